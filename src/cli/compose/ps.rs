//! `compose ps`.

use bollard_stubs::models::ContainerSummary;
use clap::Args;
use serde_json::{Map, Value};

use super::command::{SERVICE, of};
use super::file::Project;
use crate::cli::human;
use crate::cli::list::{List, filters, row};
use crate::cli::output::line;
use crate::cli::parse::Filter;
use crate::cli::port::displayed;
use crate::client::Client;

/// Flags of `compose ps`.
#[derive(Args, Debug)]
pub(super) struct PsArgs {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,

    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show names of services
    #[arg(long)]
    services: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    #[arg(value_name = "SERVICE")]
    of: Vec<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Name", "NAME"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Service", "SERVICE"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("Ports", "PORTS"),
    ("ID", "CONTAINER ID"),
    ("State", "STATE"),
    ("Project", "PROJECT"),
];

pub(super) async fn run(args: PsArgs, project: &Project, client: &Client) -> anyhow::Result<u8> {
    let name = project.name.as_deref().unwrap_or_default();
    let call = client
        .get("/containers/json")
        .flag("all", args.all)
        .optional(
            "filters",
            filters(&[of(name), Filter::new("label", SERVICE)]),
        );
    let found: Vec<ContainerSummary> = call.send().await?.json().await?;
    let mut rows: Vec<_> = found
        .into_iter()
        .map(|container| fields(container, name))
        .collect();
    let is_wanted = |row: &Map<String, Value>| {
        args.of.is_empty()
            || args
                .of
                .iter()
                .any(|service| row["Service"] == service.as_str())
    };
    rows.retain(is_wanted);
    rows.sort_by_key(|row| row["Name"].to_string());
    if args.services {
        let mut services: Vec<_> = rows
            .iter()
            .filter_map(|row| row["Service"].as_str())
            .collect();
        services.sort_unstable();
        services.dedup();
        services.into_iter().try_for_each(line)?;
        return Ok(0);
    }
    let list = List {
        fields: FIELDS,
        columns: FIELDS.iter().take(7).map(|(field, _)| *field).collect(),
        rows,
    };
    match args.quiet && args.format.is_none() {
        true => list.print_field("ID")?,
        false => list.print(args.format.as_deref())?,
    }
    Ok(0)
}

fn fields(container: ContainerSummary, project: &str) -> Map<String, Value> {
    let labels = container.labels.unwrap_or_default();
    let names = container.names.unwrap_or_default();
    let name = names.iter().find(|name| name.matches('/').count() == 1);
    row([
        ("ID", container.id.unwrap_or_default()),
        (
            "Name",
            name.map_or("", |name| name.trim_start_matches('/'))
                .to_owned(),
        ),
        ("Image", container.image.unwrap_or_default()),
        (
            "Command",
            format!(
                "{:?}",
                human::ellipsis(&container.command.unwrap_or_default(), 20)
            ),
        ),
        ("Service", labels.get(SERVICE).cloned().unwrap_or_default()),
        (
            "RunningFor",
            human::ago(container.created.unwrap_or_default()),
        ),
        ("Status", container.status.unwrap_or_default()),
        (
            "State",
            container
                .state
                .map(|state| state.to_string())
                .unwrap_or_default(),
        ),
        ("Ports", displayed(&container.ports.unwrap_or_default())),
        ("Project", project.to_owned()),
    ])
}
