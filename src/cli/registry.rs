//! `registry`.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, row};
use super::registry_migrate::MigrateArgs;
use super::warn;
use crate::client::Client;

/// `nuncio registry`.
#[derive(Args, Debug)]
pub(super) struct RegistryArgs {
    #[command(subcommand)]
    pub(super) command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum RegistryCommand {
    /// Show how its members are; the exit status is 1 if one does not answer, or there is no leader
    Status(StatusArgs),
    /// Move all of it to another one, while hosts and containers go on
    Migrate(MigrateArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio registry status --format '{{.Endpoint}} {{.Revision}}'")]
pub(super) struct StatusArgs {
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
    let args = match args.command {
        RegistryCommand::Status(args) => args,
        RegistryCommand::Migrate(args) => return super::registry_migrate::run(args).await,
    };
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
    tell_quarantine(client).await?;
    Ok(u8::from(!well))
}

/// Values that this host's daemon cannot read, and does without.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Quarantine {
    count: usize,
    /// The first of them: keys, and why.
    values: Vec<(String, String)>,
}

async fn tell_quarantine(client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/nuncio/v1/registry/quarantine").send().await?;
    let quarantine: Quarantine = answer.json().await?;
    if quarantine.count == 0 {
        return Ok(());
    }
    warn(&format!(
        "WARNING: {} of its values cannot be read, and are left out:",
        quarantine.count
    ));
    for (key, reason) in quarantine.values {
        warn(&format!("  {key}: {reason}"));
    }
    Ok(())
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
