//! `ps`.

use bollard_stubs::models::ContainerSummary;
use clap::Args;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, filters, labelled, row};
use super::parse::Filter;
use super::port::displayed;
use crate::client::Client;

/// Flags of `ps`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio ps -a                          also those that do not run
  nuncio ps --filter label=app=web      status, name, network, ancestor and label are filters
  nuncio ps --format 'table {{.Names}}\\t{{.Status}}'")]
pub(super) struct PsArgs {
    /// Show all, not only those that run
    #[arg(short, long)]
    all: bool,

    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show the N created last, in any state
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    last: Option<i64>,

    /// Show the one created last, in any state
    #[arg(short, long)]
    latest: bool,

    /// Show how much each wrote
    #[arg(short, long)]
    size: bool,

    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,

    /// Show those for which this holds
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// table, json, or a template as {{.Names}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Mounts", "MOUNTS"),
];

pub(super) async fn run(args: PsArgs, client: &Client) -> anyhow::Result<u8> {
    let limit = if args.latest { Some(1) } else { args.last };
    let call = client
        .get("/containers/json")
        .flag("all", args.all)
        .flag("size", args.size)
        .optional(
            "limit",
            limit
                .filter(|limit| *limit > 0)
                .map(|limit| limit.to_string()),
        )
        .optional("filters", filters(&args.filter));
    let containers: Vec<ContainerSummary> = call.send().await?.json().await?;
    let mut columns = vec![
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
    ];
    if args.size {
        columns.push("Size");
    }
    let rows = containers
        .into_iter()
        .map(|container| fields(container, args.no_trunc))
        .collect();
    let list = List {
        fields: FIELDS,
        columns,
        rows,
    };
    if args.quiet && args.format.is_none() {
        list.print_field("ID")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

pub(super) fn fields(container: ContainerSummary, whole: bool) -> Map<String, Value> {
    let labels = container.labels.clone().unwrap_or_default();
    let id = container.id.unwrap_or_default();
    let command = container.command.unwrap_or_default();
    let created = container.created.unwrap_or_default();
    let networks = container
        .network_settings
        .and_then(|settings| settings.networks)
        .unwrap_or_default();
    let mounts = container.mounts.unwrap_or_default();
    let volumes = mounts
        .iter()
        .filter(|mount| mount.driver.as_deref() == Some("local"));
    let volumes = volumes.count().to_string();
    let mounts = mounts.into_iter();
    let mounts =
        mounts.filter_map(|mount| mount.name.filter(|name| !name.is_empty()).or(mount.source));
    let row = row([
        (
            "ID",
            if whole {
                id
            } else {
                human::short_id(&id).to_owned()
            },
        ),
        ("Image", container.image.unwrap_or_default()),
        (
            "Command",
            format!(
                "{:?}",
                if whole {
                    command
                } else {
                    human::ellipsis(&command, 20)
                }
            ),
        ),
        ("CreatedAt", created_at(created)),
        ("RunningFor", human::ago(created)),
        ("Status", container.status.unwrap_or_default()),
        (
            "State",
            container
                .state
                .map(|state| state.to_string())
                .unwrap_or_default(),
        ),
        ("Ports", displayed(&container.ports.unwrap_or_default())),
        ("Names", names(&container.names.unwrap_or_default(), whole)),
        ("Size", size(container.size_rw, container.size_root_fs)),
        ("LocalVolumes", volumes),
        ("Networks", sorted(networks.into_keys())),
        ("Mounts", mounts.collect::<Vec<_>>().join(",")),
    ]);
    labelled(row, labels)
}

/// `seconds` since 1970 in the local time zone, as Go prints it.
pub(super) fn created_at(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    let zoned = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// Without the names that links gave it, unless all is to be shown.
fn names(names: &[String], whole: bool) -> String {
    let bare = names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name));
    bare.filter(|name| whole || !name.contains('/'))
        .collect::<Vec<_>>()
        .join(",")
}

fn size(written: Option<i64>, whole: Option<i64>) -> String {
    match (written.unwrap_or_default(), whole.unwrap_or_default()) {
        (written, 0) => human::size(written),
        (written, whole) => format!("{} (virtual {})", human::size(written), human::size(whole)),
    }
}

fn sorted(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_given_by_links_are_left_out() {
        let all = ["/db".to_owned(), "/web/redis".to_owned()];
        assert_eq!(names(&all, false), "db");
        assert_eq!(names(&all, true), "db,web/redis");
    }
}
