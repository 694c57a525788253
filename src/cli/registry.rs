//! `registry`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, row};
use crate::client::Client;

/// `nuncio registry`.
#[derive(Args, Debug)]
pub(super) struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    /// Show how its members are; the exit status is 1 if one does not answer, or there is no leader
    Status(StatusArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio registry status --format '{{.Endpoint}} {{.Revision}}'")]
struct StatusArgs {
    /// table, json, or a template as {{.Endpoint}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// A member, as the daemon tells it. One that does not answer has an error, and nothing else.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    endpoint: String,
    error: Option<String>,
    #[serde(flatten)]
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    version: String,
    leader: Option<bool>,
    revision: i64,
    lag: u64,
    leases: u64,
    size: i64,
    errors: Vec<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Endpoint", "ENDPOINT"),
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Version", "VERSION"),
    ("Leader", "LEADER"),
    ("Revision", "REVISION"),
    ("Lag", "LAG"),
    ("Leases", "LEASES"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

pub(super) async fn run(args: RegistryArgs, client: &Client) -> anyhow::Result<u8> {
    let RegistryCommand::Status(args) = args.command;
    let answer = client.get("/nuncio/v1/registry").send().await?;
    let members: Vec<Member> = answer.json().await?;
    let well = members.iter().all(|member| {
        let led = |health: &Health| health.leader.is_some();
        member.health.as_ref().is_some_and(led)
    });
    let list = List {
        fields: FIELDS,
        columns: vec![
            "Endpoint", "Name", "Version", "Leader", "Revision", "Lag", "Leases", "Size", "Status",
        ],
        rows: members.into_iter().map(fields).collect(),
    };
    list.print(args.format.as_deref())?;
    Ok(u8::from(!well))
}

fn fields(member: Member) -> Map<String, Value> {
    let Some(health) = member.health else {
        let empty = |(field, _): &(&str, _)| ((*field).to_owned(), Value::String(String::new()));
        let mut unknown: Map<String, Value> = FIELDS.iter().map(empty).collect();
        unknown.extend(row([
            ("Endpoint", member.endpoint),
            ("Status", member.error.unwrap_or_default()),
        ]));
        return unknown;
    };
    let leader = match health.leader {
        Some(true) => "yes",
        Some(false) => "no",
        None => "none",
    };
    row([
        ("Endpoint", member.endpoint),
        ("ID", health.id),
        ("Name", health.name),
        ("Version", health.version),
        ("Leader", leader.to_owned()),
        ("Revision", health.revision.to_string()),
        ("Lag", health.lag.to_string()),
        ("Leases", health.leases.to_string()),
        ("Size", human::size(health.size)),
        (
            "Status",
            match &health.errors[..] {
                [] => "Ready".to_owned(),
                errors => errors.join("; "),
            },
        ),
    ])
}
