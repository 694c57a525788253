//! What can be found by name: containers by label, what nuncio does not run but leads to, what other meshes lend.

use anyhow::bail;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cli::failure::each;
use crate::cli::list::{List, row};
use crate::cli::output::{line, warn};
use crate::client::Client;

/// Flags of `service register`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service register redis tcp://10.0.0.5:6379
  nuncio service register db tcp://db-1.lan:5432,db-2.lan:5432 --tag primary --check tcp
  nuncio service register web tcp://10.0.0.7:8080 --check http:/ready --interval 10s

It stays until it is deregistered, whichever host it was registered on. One host, chosen among those that live, checks it
for all. What does not answer is led to by nobody.")]
pub(super) struct RegisterArgs {
    /// What it is found by
    #[arg(value_name = "NAME")]
    name: String,

    /// Where it is; behind the first one the scheme may be left out
    #[arg(value_name = "tcp|udp://HOST:PORT[,..]", required = true)]
    to: Vec<String>,

    /// What tells it from others: it is TAG.NAME.service.nuncio too (may be repeated)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,

    /// How it is checked (default: it is not)
    #[arg(long, value_name = "tcp|http:/PATH")]
    check: Option<String>,

    /// Between two checks (default: 5s)
    #[arg(long, value_name = "DURATION", requires = "check")]
    interval: Option<String>,

    /// How long a check may take (default: 2s)
    #[arg(long, value_name = "DURATION", requires = "check")]
    timeout: Option<String>,
}

/// Flags of `service deregister`.
#[derive(Args, Debug)]
pub(super) struct DeregisterArgs {
    /// Services by name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// What of it is shown.
#[derive(Args, Debug)]
pub(super) struct CatalogFlags {
    /// Show what is found by name instead: containers by label, what was registered, what other meshes lend
    #[arg(long)]
    catalog: bool,

    /// Of that, show what has this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// Of that, show what is on this host, by id or name
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    /// Of that, leave out what is not well
    #[arg(long)]
    healthy: bool,
}

impl CatalogFlags {
    /// Whether it alone is to be shown.
    pub(super) fn is_asked_for(&self) -> bool {
        self.catalog || self.tag.is_some() || self.node.is_some() || self.healthy
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Registration {
    name: String,
    to: Vec<String>,
    tags: Vec<String>,
    check: Option<String>,
    interval: Option<String>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Catalog {
    stale: bool,
    services: Vec<Service>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    name: String,
    tags: Vec<String>,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    kind: String,
    address: String,
    ports: Vec<String>,
    health: String,
    node: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Kind", "KIND"),
    ("Tags", "TAGS"),
    ("Ports", "PORTS"),
    ("Endpoints", "ENDPOINTS"),
    ("Health", "HEALTH"),
    ("Addresses", "ADDRESSES"),
    ("Nodes", "NODES"),
];

const STALE: &str = "the registry does not answer: this may be out of date";

/// Takes back what was registered.
pub(super) async fn deregister(args: DeregisterArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.names, async |name: &String| {
        let path = format!("/nuncio/v1/services/{name}");
        client.delete(&path).send().await?;
        line(name)
    })
    .await
}

pub(super) async fn register(args: RegisterArgs, client: &Client) -> anyhow::Result<u8> {
    let registration = Registration {
        name: args.name,
        to: args.to,
        tags: args.tags,
        check: args.check,
        interval: args.interval,
        timeout: args.timeout,
    };
    let call = client.post("/nuncio/v1/services").json(&registration);
    call.send().await?;
    line(&registration.name)?;
    Ok(0)
}

/// A list of it, without those called as `but` says.
///
/// # Errors
///
/// The daemon's words.
pub(super) async fn list(
    flags: &CatalogFlags,
    but: &[String],
    client: &Client,
) -> anyhow::Result<List> {
    let call = client
        .get("/nuncio/v1/catalog")
        .optional("tag", flags.tag.as_ref())
        .optional("node", flags.node.as_ref())
        .flag("healthy", flags.healthy);
    let catalog: Catalog = call.send().await?.json().await?;
    if catalog.stale {
        warn(STALE);
    }
    let services = catalog.services.into_iter();
    let services = services.filter(|service| !but.contains(&service.name));
    Ok(List {
        fields: FIELDS,
        columns: vec!["Name", "Kind", "Tags", "Ports", "Endpoints", "Health"],
        rows: services.map(fields).collect(),
    })
}

/// What is found by a name, as JSON.
///
/// # Errors
///
/// A name by which nothing is found.
pub(super) async fn look_up(name: &str, client: &Client) -> anyhow::Result<Vec<Value>> {
    let call = client.get("/nuncio/v1/catalog").query("service", name);
    let catalog: Value = call.send().await?.json().await?;
    let services = catalog["Services"].as_array().cloned().unwrap_or_default();
    if services.is_empty() {
        bail!("no such service: {name}; nuncio service ls shows those that there are");
    }
    if catalog["Stale"].as_bool() == Some(true) {
        warn(STALE);
    }
    Ok(services)
}

fn fields(service: Service) -> Map<String, Value> {
    let endpoints = &service.endpoints;
    let all = |of: fn(&Endpoint) -> Vec<String>| {
        let mut all: Vec<String> = endpoints.iter().flat_map(of).collect();
        all.sort();
        all.dedup();
        all.join(",")
    };
    row([
        ("Kind", all(|endpoint| vec![endpoint.kind.clone()])),
        ("Ports", all(|endpoint| endpoint.ports.clone())),
        ("Addresses", all(|endpoint| vec![endpoint.address.clone()])),
        (
            "Nodes",
            all(|endpoint| endpoint.node.clone().into_iter().collect()),
        ),
        ("Endpoints", endpoints.len().to_string()),
        ("Health", health(endpoints)),
        ("Tags", service.tags.join(",")),
        ("Name", service.name),
    ])
}

/// As `2/3 healthy`; empty where nobody looks.
fn health(endpoints: &[Endpoint]) -> String {
    let checked = endpoints
        .iter()
        .filter(|endpoint| endpoint.health != "none");
    let checked: Vec<_> = checked.collect();
    let well = checked
        .iter()
        .filter(|endpoint| endpoint.health == "healthy");
    match checked.len() {
        0 => String::new(),
        all => format!("{}/{all} healthy", well.count()),
    }
}
