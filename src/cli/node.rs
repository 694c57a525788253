//! `node`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::list::{List, row};
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
    filter: Vec<String>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

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
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Address", "ADDRESS"),
    ("Status", "STATUS"),
    ("Self", "SELF"),
];

pub(super) async fn run(args: NodeArgs, client: &Client) -> anyhow::Result<u8> {
    let NodeCommand::Ls(args) = args.command;
    let nodes: Vec<Node> = client.get("/nuncio/v1/nodes").send().await?.json().await?;
    let wanted = wanted(&args.filter)?;
    let nodes = nodes.into_iter().filter(|node| is_wanted(node, &wanted));
    let rows = nodes.map(fields).collect();
    let list = List {
        fields: FIELDS,
        columns: vec!["ID", "Name", "Address", "Status"],
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
fn wanted(filters: &[String]) -> anyhow::Result<Vec<(&str, &str)>> {
    let parse = |filter| match str::split_once(filter, '=') {
        Some((key @ ("id" | "name" | "status"), value)) => Ok((key, value)),
        Some((key, _)) => anyhow::bail!("invalid filter '{key}': expected id, name or status"),
        None => anyhow::bail!("invalid filter {filter:?}: expected KEY=VALUE"),
    };
    filters
        .iter()
        .map(|filter| parse(filter.as_str()))
        .collect()
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
        ("Self", node.me.to_string()),
    ])
}
