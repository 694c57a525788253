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
    let rows = nodes.into_iter().map(fields).collect();
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

fn fields(node: Node) -> Map<String, Value> {
    let status = if node.alive { "Ready" } else { "Down" };
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
