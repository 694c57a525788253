//! `explain`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{AdminFlag, short};
use crate::cli::host::Host;
use crate::cli::output::{line, write_out};
use crate::cli::table::table;

/// `nuncio explain`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio explain redis                          by name, or by the alias within it
  nuncio explain 6379                           by port
  nuncio explain redis --format json | jq '.[0].endpoints'")]
pub(crate) struct ExplainArgs {
    /// A forward, by its name or a part of it, its port or its target
    #[arg(value_name = "NAME")]
    name: String,

    /// Text for people, or JSON
    #[arg(long, value_enum, value_name = "text|json", default_value = "text")]
    format: Format,

    #[command(flatten)]
    admin: AdminFlag,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
struct Explained {
    forward: String,
    listen: String,
    local: String,
    target: Option<Vec<String>>,
    policy: String,
    flows: u64,
    #[serde(flatten)]
    own: Upstreams,
    /// None of an ambassador that is older than this program.
    #[serde(default)]
    names: Vec<Named>,
    #[serde(default)]
    direct: Option<Direct>,
    #[serde(default)]
    not_direct: Option<String>,
}

/// Those who ask for this server name are sent there.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    target: Option<Vec<String>>,
    #[serde(flatten)]
    upstreams: Upstreams,
}

#[derive(Debug, Deserialize)]
struct Upstreams {
    known: Known,
    next: Next,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Direct {
    unavailable: Option<String>,
    cgroups: Vec<Cgroup>,
    connects: Vec<Connects>,
}

#[derive(Debug, Deserialize)]
struct Cgroup {
    path: String,
    unavailable: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Connects {
    endpoint: String,
    connects: u64,
}

#[derive(Debug, Deserialize)]
struct Known {
    age: Option<f64>,
    revision: Option<i64>,
    failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    age: f64,
    error: String,
}

#[derive(Debug, Deserialize)]
struct Next {
    endpoint: Option<String>,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    address: String,
    state: String,
    weight: u16,
    flows: u64,
    connect_time: Option<f64>,
    failures: u32,
    last_failure: Option<Failure>,
    last_check_failure: Option<Failure>,
}

/// Prints what is known of the forwards that are meant.
pub(crate) async fn run(args: ExplainArgs, daemon: Option<Host>) -> anyhow::Result<u8> {
    let client = args.admin.client(daemon).await?;
    let query = [("forward", args.name)];
    let told: Value = client.json(Method::GET, "/explain", &query).await?;
    match args.format {
        Format::Json => line(&format!("{told:#}"))?,
        Format::Text => {
            let forwards: Vec<Explained> = serde_json::from_value(told)?;
            let texts: Vec<String> = forwards.iter().map(text).collect();
            write_out(texts.join("\n").as_bytes())?;
        }
    }
    Ok(0)
}

fn text(told: &Explained) -> String {
    let mut text = format!("{}\n", told.forward);
    let local = told.listen.split_once("://").map(|(_, address)| address);
    if local == Some(&told.local) {
        add(&mut text, "listen", &told.listen);
    } else {
        let listen = format!("{}, which is {}", told.listen, told.local);
        add(&mut text, "listen", &listen);
    }
    // those who ask for no name that is listed may have nowhere to go
    if let Some(target) = told.target.as_ref().filter(|target| !target.is_empty()) {
        add(&mut text, "target", &target.join(", "));
    }
    add(&mut text, "policy", &told.policy);
    add(&mut text, "flows", &told.flows.to_string());
    match (&told.direct, &told.not_direct) {
        (Some(direct), _) => {
            for line in straight(direct) {
                add(&mut text, "direct", &line);
            }
        }
        (None, Some(reason)) => add(&mut text, "direct", &format!("no: {reason}")),
        (None, None) => {}
    }
    add_upstreams(&mut text, &told.own);
    for named in &told.names {
        add(&mut text, "name", &named.name);
        if let Some(target) = &named.target {
            add(&mut text, "target", &target.join(", "));
        }
        add_upstreams(&mut text, &named.upstreams);
    }
    text
}

fn add(text: &mut String, key: &str, value: &str) {
    // writing to a string cannot fail
    let _ = writeln!(text, "  {key:<8} {value}");
}

fn add_upstreams(text: &mut String, told: &Upstreams) {
    add(text, "known", &known(&told.known));
    if let Some(failure) = &told.known.failure {
        add(text, "failed", &ago(failure));
    }
    let endpoint = told.next.endpoint.as_deref().unwrap_or("not certain");
    add(text, "next", &format!("{endpoint}: {}", told.next.why));
    if !told.endpoints.is_empty() {
        let headers = [
            "ENDPOINT",
            "STATE",
            "WEIGHT",
            "FLOWS",
            "CONNECT",
            "FAILURES",
            "LAST FAILURE",
        ];
        let rows: Vec<_> = told.endpoints.iter().map(cells).collect();
        let indented = table(&headers, &rows);
        text.extend(indented.lines().map(|line| format!("  {line}\n")));
    }
}

/// Whose connections go straight to the endpoints, and how many have; and whose cannot.
fn straight(direct: &Direct) -> Vec<String> {
    if let Some(reason) = &direct.unavailable {
        return vec![format!("no: {reason}")];
    }
    let spared = direct
        .cgroups
        .iter()
        .filter(|cgroup| cgroup.unavailable.is_none());
    let counts: Vec<_> = (direct.connects.iter())
        .map(|count| format!("{} to {}", count.connects, count.endpoint))
        .collect();
    let counts = match &counts[..] {
        [] => "none yet".to_owned(),
        counts => counts.join(", "),
    };
    let cgroups = match spared.count() {
        1 => "1 cgroup".to_owned(),
        count => format!("{count} cgroups"),
    };
    let mut lines = vec![format!("from {cgroups}: {counts}")];
    lines.extend(direct.cgroups.iter().filter_map(|cgroup| {
        let reason = cgroup.unavailable.as_ref()?;
        Some(format!("not from {}: {reason}", cgroup.path))
    }));
    lines
}

fn known(known: &Known) -> String {
    let revision = known
        .revision
        .map(|revision| format!("revision {revision}"));
    let age = known.age.map(|age| format!("{} ago", short(age)));
    match (age, revision) {
        (Some(age), Some(revision)) => format!("{age}, {revision}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) if known.failure.is_some() => "not yet".to_owned(),
        (None, None) => "as configured".to_owned(),
    }
}

fn cells(endpoint: &Endpoint) -> Vec<String> {
    let took = endpoint.connect_time.map(short);
    let failures = [&endpoint.last_failure, &endpoint.last_check_failure];
    let latest = failures.into_iter().flatten();
    let latest = latest.min_by(|a, b| a.age.total_cmp(&b.age));
    vec![
        endpoint.address.clone(),
        endpoint.state.clone(),
        endpoint.weight.to_string(),
        endpoint.flows.to_string(),
        took.unwrap_or_else(|| "-".to_owned()),
        endpoint.failures.to_string(),
        latest.map_or_else(|| "-".to_owned(), ago),
    ]
}

fn ago(failure: &Failure) -> String {
    format!("{} ({} ago)", failure.error, short(failure.age))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_forward_is_a_paragraph() {
        let told = json!({
            "forward": "link/redis/6379", "listen": "tcp://127.0.0.1:0",
            "local": "127.0.0.1:4321", "target": ["tcp://db:1", "tcp://10.0.0.6:1"],
            "policy": "p2c", "flows": 3, "resolved": true,
            "known": {
                "answered": "2026-01-01T00:00:00Z", "age": 12.0, "revision": 42,
                "failure": { "time": "", "age": 1.0, "error": "look up db: timed out" },
            },
            "next": { "endpoint": "10.0.0.5:1", "why": "it is the only one of 2 that can be used" },
            "endpoints": [
                { "address": "10.0.0.5:1", "state": "up", "usable": true, "weight": 1, "flows": 3,
                  "connect_time": 0.0003, "failures": 0, "last_failure": null,
                  "last_check_failure": null },
                { "address": "10.0.0.6:1", "state": "ejected", "usable": false, "weight": 2,
                  "flows": 0, "connect_time": null, "failures": 1,
                  "last_failure": { "time": "", "age": 2.0, "error": "refused" },
                  "last_check_failure": { "time": "", "age": 9.0, "error": "older" } },
            ],
        });
        let expected = "\
link/redis/6379
  listen   tcp://127.0.0.1:0, which is 127.0.0.1:4321
  target   tcp://db:1, tcp://10.0.0.6:1
  policy   p2c
  flows    3
  known    12.0s ago, revision 42
  failed   look up db: timed out (1.0s ago)
  next     10.0.0.5:1: it is the only one of 2 that can be used
  ENDPOINT     STATE     WEIGHT    FLOWS     CONNECT   FAILURES   LAST FAILURE
  10.0.0.5:1   up        1         3         300us     0          -
  10.0.0.6:1   ejected   2         0         -         1          refused (2.0s ago)
";
        let told: Explained = serde_json::from_value(told).expect("an explanation");
        assert_eq!(text(&told), expected);
    }

    #[test]
    fn each_server_name_has_its_upstreams() {
        let nobody = json!({ "answered": null, "age": null, "revision": null, "failure": null });
        let told = json!({
            "forward": "web", "listen": "tcp://10.0.0.1:443", "local": "10.0.0.1:443",
            "target": [], "policy": "p2c", "flows": 0, "resolved": false, "known": nobody,
            "next": { "endpoint": null, "why": "those who ask for another name are refused" },
            "endpoints": [],
            "names": [{
                "name": "*.example.org", "target": ["tcp://10.0.0.5:1"], "resolved": true,
                "known": nobody,
                "next": { "endpoint": "10.0.0.5:1", "why": "it is the only one" },
                "endpoints": [
                    { "address": "10.0.0.5:1", "state": "up", "usable": true, "weight": 1,
                      "flows": 0, "connect_time": null, "failures": 0, "last_failure": null,
                      "last_check_failure": null },
                ],
            }],
        });
        let expected = "\
web
  listen   tcp://10.0.0.1:443
  policy   p2c
  flows    0
  known    as configured
  next     not certain: those who ask for another name are refused
  name     *.example.org
  target   tcp://10.0.0.5:1
  known    as configured
  next     10.0.0.5:1: it is the only one
  ENDPOINT     STATE     WEIGHT    FLOWS     CONNECT   FAILURES   LAST FAILURE
  10.0.0.5:1   up        1         0         -         0          -
";
        let told: Explained = serde_json::from_value(told).expect("an explanation");
        assert_eq!(text(&told), expected);
    }

    #[test]
    fn what_is_configured_has_no_age() {
        let nothing = Known {
            age: None,
            revision: None,
            failure: None,
        };
        assert_eq!(known(&nothing), "as configured");
    }
}
