//! `node`.

mod orchestration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::failure::each;
use crate::cli::human;
use crate::cli::list::{List, row};
use crate::cli::output::line;
use crate::cli::parse::Filter;
use crate::client::Client;

/// `nuncio node`.
#[derive(Args, Debug)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// List the hosts
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all there is to know of nodes
    Inspect(orchestration::InspectArgs),
    /// Say which tasks a node takes, and label it
    Update(orchestration::UpdateArgs),
    /// List the tasks on nodes
    Ps(orchestration::PsArgs),
    /// Refused, with the reason
    Promote(RoleArgs),
    /// Refused, with the reason
    Demote(RoleArgs),
    /// Remove hosts from the mesh, and cut them off at once
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Show how encrypted networks reach the other hosts, and what goes around VXLAN
    Tunnels(TunnelsArgs),
    /// Make new keys for encrypted networks and the way around VXLAN; those before are still accepted, older ones are not
    RotateKeys,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio node ls --format '{{.Name}} {{.Status}}'")]
struct LsArgs {
    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show those for which this holds: id, name or status
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio node rm host-3        its certificate is good for nothing any more, its endpoints vanish")]
struct RmArgs {
    /// Docker's word for a host that is up; it is removed with and without
    #[arg(short, long)]
    force: bool,

    /// Hosts by id, the beginning of it, or name
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

#[derive(Args, Debug)]
struct RoleArgs {
    /// Hosts by id or name
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio node tunnels --format '{{.ID}} {{.Handshake}}'")]
struct TunnelsArgs {
    /// table, json, or a template as {{.Endpoint}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// How a tunnel reaches another host, as the daemon tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tunnel {
    #[serde(rename = "ID")]
    id: String,
    endpoint: String,
    key: Option<String>,
    handshake: Option<u64>,
    sent: i64,
    received: i64,
    fallback: Option<Fallback>,
}

/// How it does where UDP does not get through.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Fallback {
    endpoint: String,
    wanted: bool,
    connected: bool,
    serving: bool,
    sent: i64,
    received: i64,
    dropped: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tunnels {
    peers: Vec<Tunnel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NewKey {
    key: String,
}

const TUNNEL_FIELDS: &[(&str, &str)] = &[
    ("ID", "NODE ID"),
    ("Endpoint", "ENDPOINT"),
    ("Key", "KEY"),
    ("Handshake", "HANDSHAKE"),
    ("Sent", "SENT"),
    ("Received", "RECEIVED"),
    ("Fallback", "FALLBACK"),
    ("FallbackEndpoint", "FALLBACK ENDPOINT"),
    ("FallbackSent", "FALLBACK SENT"),
    ("FallbackReceived", "FALLBACK RECEIVED"),
    ("FallbackDropped", "FALLBACK DROPPED"),
];

/// A host, as the daemon tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    address: String,
    alive: bool,
    /// Whether it is the host of the daemon that was asked.
    me: bool,
    /// Whether it is to have tasks of services.
    #[serde(default)]
    availability: String,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Address", "ADDRESS"),
    ("Status", "STATUS"),
    ("Availability", "AVAILABILITY"),
    ("Self", "SELF"),
];

pub(super) async fn run(args: NodeArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        NodeCommand::Ls(args) => list(args, client).await,
        NodeCommand::Inspect(args) => orchestration::inspect(args, client).await,
        NodeCommand::Update(args) => orchestration::update(args, client).await,
        NodeCommand::Ps(args) => orchestration::ps(args, client).await,
        NodeCommand::Promote(args) => refuse("promote", &args),
        NodeCommand::Demote(args) => refuse("demote", &args),
        NodeCommand::Rm(args) => remove(args, client).await,
        NodeCommand::Tunnels(args) => tunnels(args, client).await,
        NodeCommand::RotateKeys => rotate_keys(client).await,
    }
}

fn refuse(what: &str, args: &RoleArgs) -> anyhow::Result<u8> {
    let nodes = args.nodes.join(", ");
    anyhow::bail!("{what} {nodes}: not built: {}", orchestration::ROLES)
}

async fn remove(args: RmArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.nodes, async |node: &String| {
        let path = format!("/nuncio/v1/nodes/{node}");
        client.delete(&path).send().await?;
        line(node)
    })
    .await
}

async fn tunnels(args: TunnelsArgs, client: &Client) -> anyhow::Result<u8> {
    let Tunnels { peers } = client.get("/nuncio/v1/tunnel").send().await?.json().await?;
    let list = List {
        fields: TUNNEL_FIELDS,
        columns: vec![
            "ID",
            "Endpoint",
            "Handshake",
            "Sent",
            "Received",
            "Fallback",
        ],
        rows: peers.into_iter().map(tunnel_fields).collect(),
    };
    list.print(args.format.as_deref())?;
    Ok(0)
}

fn tunnel_fields(tunnel: Tunnel) -> Map<String, Value> {
    let ago = |seconds| format!("{seconds} s ago");
    let fallback = tunnel.fallback.as_ref();
    let size = |bytes: Option<i64>| human::size(bytes.unwrap_or_default());
    let endpoint = fallback.map(|fallback| fallback.endpoint.clone());
    let dropped = fallback.map_or(0, |fallback| fallback.dropped);
    row([
        ("ID", tunnel.id),
        ("Endpoint", tunnel.endpoint),
        ("Key", tunnel.key.unwrap_or_default()),
        (
            "Handshake",
            tunnel.handshake.map_or_else(|| "none".to_owned(), ago),
        ),
        ("Sent", human::size(tunnel.sent)),
        ("Received", human::size(tunnel.received)),
        ("Fallback", fallback.map_or("none", in_a_word).to_owned()),
        ("FallbackEndpoint", endpoint.unwrap_or_default()),
        ("FallbackSent", size(fallback.map(|fallback| fallback.sent))),
        (
            "FallbackReceived",
            size(fallback.map(|fallback| fallback.received)),
        ),
        ("FallbackDropped", dropped.to_string()),
    ])
}

/// Who sends by it, if somebody does.
fn in_a_word(fallback: &Fallback) -> &'static str {
    match (fallback.wanted, fallback.connected, fallback.serving) {
        (true, false, _) => "connecting",
        (true, true, true) => "both ways",
        (true, true, false) => "outwards",
        (false, _, true) => "inwards",
        (false, _, false) => "idle",
    }
}

async fn rotate_keys(client: &Client) -> anyhow::Result<u8> {
    let answer = client.post("/nuncio/v1/tunnel/keys").send().await?;
    let NewKey { key } = answer.json().await?;
    line(&key)?;
    Ok(0)
}

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let nodes: Vec<Node> = client.get("/nuncio/v1/nodes").send().await?.json().await?;
    let wanted = wanted(&args.filter)?;
    let nodes = nodes.into_iter().filter(|node| is_wanted(node, &wanted));
    let rows = nodes.map(fields).collect();
    let list = List {
        fields: FIELDS,
        columns: vec!["ID", "Name", "Address", "Status", "Availability"],
        rows,
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

/// Filters that Docker has for nodes, as far as these have what they are about.
fn wanted(filters: &[Filter]) -> anyhow::Result<Vec<(&str, &str)>> {
    let known = |filter: &Filter| matches!(filter.key.as_str(), "id" | "name" | "status");
    if let Some(Filter { key, .. }) = filters.iter().find(|filter| !known(filter)) {
        anyhow::bail!("invalid filter '{key}': expected id, name or status");
    }
    let pairs = filters.iter();
    let pairs = pairs.map(|filter| (filter.key.as_str(), filter.value.as_str()));
    Ok(pairs.collect())
}

/// Every key must hold, by one of its values.
fn is_wanted(node: &Node, wanted: &[(&str, &str)]) -> bool {
    let holds = |(key, value): &(&str, &str)| match *key {
        "id" => node.id.starts_with(value),
        "name" => node.name.starts_with(value),
        _ => status(node).eq_ignore_ascii_case(value),
    };
    wanted.iter().all(|(key, _)| {
        let mut same = wanted.iter().filter(|(other, _)| other == key);
        same.any(holds)
    })
}

fn status(node: &Node) -> &'static str {
    if node.alive { "Ready" } else { "Down" }
}

/// As docker's client writes it.
fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn fields(node: Node) -> Map<String, Value> {
    let status = status(&node);
    row([
        (
            "ID",
            if node.me {
                format!("{} *", node.id)
            } else {
                node.id
            },
        ),
        ("Name", node.name),
        ("Address", node.address),
        ("Status", status.to_owned()),
        ("Availability", capitalized(&node.availability)),
        ("Self", node.me.to_string()),
    ])
}
