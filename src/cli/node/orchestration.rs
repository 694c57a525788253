//! `node inspect`, `node update` and `node ps`: what nodes are to services.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use bollard_stubs::models::{Node, NodeSpec, NodeSpecAvailabilityEnum};
use clap::Args;
use serde_json::Value;

use crate::cli::failure::complain;
use crate::cli::inspect::show;
use crate::cli::output::{line, write_out};
use crate::cli::parse::{Filter, KeyValue};
use crate::cli::service::pretty::{Text, bytes};
use crate::cli::tasks::{self, TaskFlags};
use crate::cli::template::Template;
use crate::client::Client;

/// Flags of `node inspect`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio node inspect --pretty self")]
pub(super) struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show it in words
    #[arg(long)]
    pretty: bool,

    /// Nodes by id or name; self is that of the daemon
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

/// Flags of `node update`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio node update --availability drain host-3       its tasks go to other nodes, and no new ones come
  nuncio node update --label-add disk=ssd host-2       for --constraint node.labels.disk==ssd")]
pub(super) struct UpdateArgs {
    /// active: it takes tasks; pause: no new ones; drain: none at all
    #[arg(long, value_name = "AVAILABILITY", value_parser = ["active", "pause", "drain"])]
    availability: Option<String>,

    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label_add: Vec<KeyValue>,

    /// Take a label, by its key
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,

    /// Refused: `nuncio init` decides who keeps the registry
    #[arg(long, value_name = "ROLE", value_parser = ["worker", "manager"])]
    role: Option<String>,

    /// By id or name; self is that of the daemon
    #[arg(value_name = "NODE")]
    node: String,
}

/// Flags of `node ps`.
#[derive(Args, Debug)]
pub(super) struct PsArgs {
    #[command(flatten)]
    flags: TaskFlags,

    /// Nodes by id or name (default: that of the daemon)
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// Why roles do not change.
pub(super) const ROLES: &str = "the mesh's registry and authority are where `nuncio init` made them, and any node that is up may decide for all what runs where, so there is nothing to promote to; `nuncio registry migrate` moves the registry";

pub(super) async fn inspect(args: InspectArgs, client: &Client) -> anyhow::Result<u8> {
    if args.pretty && args.format.is_some() {
        bail!("--format is incompatible with human friendly format: leave out --pretty");
    }
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &args.nodes {
        match look(name, client).await {
            Ok(node) => found.push(node),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    if args.pretty {
        for node in found {
            let text = in_words(&serde_json::from_value(node)?);
            write_out(format!("{text}\n").as_bytes())?;
        }
    } else {
        show(found, template.as_ref(), args.format.is_some())?;
    }
    Ok(code)
}

async fn look(name: &str, client: &Client) -> anyhow::Result<Value> {
    let id = match name {
        "self" => own_id(client).await?,
        name => name.to_owned(),
    };
    let answer = client.get(&format!("/nodes/{id}")).send().await?;
    Ok(answer.json().await?)
}

/// The id of the daemon's own node.
async fn own_id(client: &Client) -> anyhow::Result<String> {
    let info: Value = client.get("/info").send().await?.json().await?;
    let id = info["Swarm"]["NodeID"].as_str().filter(|id| !id.is_empty());
    Ok(id
        .context("the daemon is no node that takes tasks")?
        .to_owned())
}

fn in_words(node: &Node) -> String {
    let mut out = Text::default();
    let spec = node.spec.clone().unwrap_or_default();
    let description = node.description.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    out.field("ID:\t\t\t", node.id.as_deref().unwrap_or_default());
    out.optional("Name:\t\t\t", spec.name.filter(|name| !name.is_empty()));
    out.map("Labels:", spec.labels.iter().flatten());
    out.optional("Hostname:              \t", description.hostname);
    out.optional("Joined at:             \t", node.created_at.clone());
    out.line("Status:");
    out.optional(" State:\t\t\t", status.state);
    out.optional(
        " Message:\t\t",
        status.message.filter(|text| !text.is_empty()),
    );
    out.optional(" Availability:         \t", spec.availability);
    out.optional(" Address:\t\t", status.addr);
    if let Some(manager) = &node.manager_status {
        out.line("Manager Status:");
        out.optional(" Address:\t\t", manager.addr.as_deref());
        out.optional(" Raft Status:\t\t", manager.reachability);
        let leader = manager.leader.unwrap_or_default();
        out.field(" Leader:\t\t", if leader { "Yes" } else { "No" });
    }
    if let Some(platform) = description.platform {
        out.line("Platform:");
        out.optional(" Operating System:\t", platform.os);
        out.optional(" Architecture:\t\t", platform.architecture);
    }
    if let Some(resources) = description.resources {
        out.line("Resources:");
        let cpus = resources.nano_cpus.map(|nanos| nanos as f64 / 1e9);
        out.optional(" CPUs:\t\t\t", cpus);
        out.optional(" Memory:\t\t", resources.memory_bytes.map(bytes));
    }
    let engine = description.engine.and_then(|engine| engine.engine_version);
    out.optional("Engine Version:\t\t", engine);
    out.0
}

pub(super) async fn update(args: UpdateArgs, client: &Client) -> anyhow::Result<u8> {
    if args.role.is_some() {
        bail!("--role: not built: {ROLES}");
    }
    let node: Node = serde_json::from_value(look(&args.node, client).await?)?;
    let spec = changed(node.spec.unwrap_or_default(), &args)?;
    let id = node.id.context("the node has no id")?;
    let version = node.version.and_then(|version| version.index);
    let call = client.post(&format!("/nodes/{id}/update"));
    let call = call.query("version", version.unwrap_or_default().to_string());
    call.json(&spec).send().await?;
    line(&args.node)?;
    Ok(0)
}

fn changed(mut spec: NodeSpec, args: &UpdateArgs) -> anyhow::Result<NodeSpec> {
    spec.availability = match args.availability.as_deref() {
        Some("active") => Some(NodeSpecAvailabilityEnum::ACTIVE),
        Some("pause") => Some(NodeSpecAvailabilityEnum::PAUSE),
        Some(_) => Some(NodeSpecAvailabilityEnum::DRAIN),
        None => spec.availability,
    };
    let added = args.label_add.iter();
    let added: HashMap<_, _> = added
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect();
    let labels = spec.labels.get_or_insert_default();
    labels.extend(added);
    for key in &args.label_rm {
        if labels.remove(key).is_none() {
            bail!("key {key} doesn't exist in node's labels");
        }
    }
    Ok(spec)
}

pub(super) async fn ps(args: PsArgs, client: &Client) -> anyhow::Result<u8> {
    let names = match args.nodes.is_empty() {
        true => vec!["self".to_owned()],
        false => args.nodes,
    };
    let (mut filter, mut code, mut found) = (args.flags.filter.clone(), 0, false);
    for name in &names {
        match look(name, client).await {
            Ok(node) => {
                found = true;
                filter.push(Filter::new("node", node["ID"].as_str().unwrap_or(name)));
            }
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    if found {
        tasks::print(&filter, &args.flags, client).await?;
    }
    Ok(code)
}
