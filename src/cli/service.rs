//! `service`: what can be found by name, and what nuncio does not run but leads to.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::each;
use super::list::{List, row};
use super::output::{line, warn, write_out};
use crate::client::Client;

/// `nuncio service`.
#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Register a service that nuncio does not run, for links, ambassadors and names to lead to it
    Register(RegisterArgs),
    /// Take such services back
    #[command(visible_alias = "rm")]
    Deregister(DeregisterArgs),
    /// List services: containers, what was registered, and what other meshes lend
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all there is to know of services, as JSON
    Inspect(InspectArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service register redis tcp://10.0.0.5:6379
  nuncio service register db tcp://db-1.lan:5432,db-2.lan:5432 --tag primary --check tcp
  nuncio service register web tcp://10.0.0.7:8080 --check http:/ready --interval 10s

It stays until it is deregistered, whichever host it was registered on. One host, chosen among those that live, checks it
for all. What does not answer is led to by nobody.")]
struct RegisterArgs {
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

#[derive(Args, Debug)]
struct DeregisterArgs {
    /// Services by name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio service ls --tag blue --format '{{.Name}} {{.Endpoints}}'")]
struct LsArgs {
    /// Show only names
    #[arg(short, long)]
    quiet: bool,

    /// Show those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// Show what is on this host, by id or name
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    /// Leave out what is not well
    #[arg(long)]
    healthy: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Services by name
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
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

pub(super) async fn run(args: ServiceArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        ServiceCommand::Register(args) => register(args, client).await,
        ServiceCommand::Deregister(args) => {
            each(&args.names, async |name: &String| {
                let path = format!("/nuncio/v1/services/{name}");
                client.delete(&path).send().await?;
                line(name)
            })
            .await
        }
        ServiceCommand::Ls(args) => list(args, client).await,
        ServiceCommand::Inspect(args) => inspect(&args, client).await,
    }
}

async fn register(args: RegisterArgs, client: &Client) -> anyhow::Result<u8> {
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

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get("/nuncio/v1/catalog")
        .optional("tag", args.tag.as_ref())
        .optional("node", args.node.as_ref())
        .flag("healthy", args.healthy);
    let catalog: Catalog = call.send().await?.json().await?;
    if catalog.stale {
        warn(STALE);
    }
    let list = List {
        fields: FIELDS,
        columns: vec!["Name", "Kind", "Tags", "Ports", "Endpoints", "Health"],
        rows: catalog.services.into_iter().map(fields).collect(),
    };
    if args.quiet && args.format.is_none() {
        list.print_field("Name")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

async fn inspect(args: &InspectArgs, client: &Client) -> anyhow::Result<u8> {
    let mut found = Vec::new();
    for name in &args.names {
        let call = client.get("/nuncio/v1/catalog").query("service", name);
        let catalog: Value = call.send().await?.json().await?;
        let services = catalog["Services"].as_array().cloned().unwrap_or_default();
        if services.is_empty() {
            bail!("no such service: {name}; nuncio service ls shows those that there are");
        }
        if catalog["Stale"].as_bool() == Some(true) {
            warn(STALE);
        }
        found.extend(services);
    }
    let text = serde_json::to_string_pretty(&found)?;
    write_out(format!("{text}\n").as_bytes())?;
    Ok(0)
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
