//! `system df` and the prunes: what takes room on the disk, and giving it back.

use bollard_stubs::models::{ContainerPruneResponse, ImagePruneResponse};
use clap::Args;
use serde_json::Value;

use super::confirm::confirm;
use super::human;
use super::list::{List, filters, row};
use super::network_prune::prune_networks;
use super::output::{line, write_out};
use super::table::table;
use super::volume;
use crate::client::Client;

/// Flags of `system df`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio system df -v")]
pub(super) struct DfArgs {
    /// Each image, container and volume
    #[arg(short, long)]
    verbose: bool,

    /// table, json, or a template as {{.Type}}: {{.Size}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

pub(super) async fn df(args: DfArgs, client: &Client) -> anyhow::Result<u8> {
    let usage: Value = client.get("/system/df").send().await?.json().await?;
    if args.verbose && args.format.is_none() {
        verbose(&usage)?;
        return Ok(0);
    }
    let list = List {
        fields: FIELDS,
        columns: FIELDS.iter().map(|(field, _)| *field).collect(),
        rows: vec![
            images(&usage),
            containers(&usage),
            volumes(&usage),
            total("Build Cache", 0, 0, 0, 0),
        ],
    };
    list.print(args.format.as_deref())?;
    Ok(0)
}

type Row = serde_json::Map<String, Value>;

fn items<'a>(usage: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    usage[field].as_array().into_iter().flatten()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn images(usage: &Value) -> Row {
    let all = items(usage, "Images");
    let (mut count, mut active, mut used) = (0, 0, 0);
    for image in all {
        count += 1;
        if number(&image["Containers"]) > 0 {
            active += 1;
            used += number(&image["Size"]) - number(&image["SharedSize"]);
        }
    }
    let size = number(&usage["LayersSize"]);
    // What is shared with an image in use counts as used, as long as one is.
    let shared: i64 = items(usage, "Images")
        .filter(|image| number(&image["Containers"]) > 0)
        .map(|image| number(&image["SharedSize"]))
        .max()
        .unwrap_or_default();
    total("Images", count, active, size, (size - used - shared).max(0))
}

fn containers(usage: &Value) -> Row {
    let (mut count, mut active, mut size, mut idle) = (0, 0, 0, 0);
    for container in items(usage, "Containers") {
        let written = number(&container["SizeRw"]);
        count += 1;
        size += written;
        match container["State"].as_str() {
            Some("running" | "paused" | "restarting") => active += 1,
            _ => idle += written,
        }
    }
    total("Containers", count, active, size, idle)
}

fn volumes(usage: &Value) -> Row {
    let (mut count, mut active, mut size, mut idle) = (0, 0, 0, 0);
    for volume in items(usage, "Volumes") {
        let bytes = number(&volume["UsageData"]["Size"]);
        count += 1;
        size += bytes;
        match number(&volume["UsageData"]["RefCount"]) {
            0 => idle += bytes,
            _ => active += 1,
        }
    }
    total("Local Volumes", count, active, size, idle)
}

fn total(kind: &str, count: usize, active: usize, size: i64, idle: i64) -> Row {
    let reclaimable = match (size, kind) {
        (..1, _) | (_, "Build Cache") => human::size(idle),
        _ => format!("{} ({}%)", human::size(idle), idle * 100 / size),
    };
    row([
        ("Type", kind.to_owned()),
        ("TotalCount", count.to_string()),
        ("Active", active.to_string()),
        ("Size", human::size(size)),
        ("Reclaimable", reclaimable),
    ])
}

fn verbose(usage: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let images = items(usage, "Images").map(|image| {
        let name = image["RepoTags"][0].as_str().unwrap_or("<none>:<none>");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let (size, shared) = (number(&image["Size"]), number(&image["SharedSize"]));
        vec![
            repository.to_owned(),
            tag.to_owned(),
            human::short_id(&text(&image["Id"])).to_owned(),
            human::ago(number(&image["Created"])),
            human::size(size),
            human::size(shared),
            human::size(size - shared),
            number(&image["Containers"]).to_string(),
        ]
    });
    let headers = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "CONTAINERS",
    ];
    section("Images space usage:", &headers, images.collect())?;
    let containers = items(usage, "Containers").map(|container| {
        let volumes = items(container, "Mounts").filter(|mount| mount["Type"] == "volume");
        vec![
            human::short_id(&text(&container["Id"])).to_owned(),
            text(&container["Image"]),
            format!("\"{}\"", human::ellipsis(&text(&container["Command"]), 20)),
            volumes.count().to_string(),
            human::size(number(&container["SizeRw"])),
            human::ago(number(&container["Created"])),
            text(&container["Status"]),
            text(&container["Names"][0])
                .trim_start_matches('/')
                .to_owned(),
        ]
    });
    let headers = [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "LOCAL VOLUMES",
        "SIZE",
        "CREATED",
        "STATUS",
        "NAMES",
    ];
    section("\nContainers space usage:", &headers, containers.collect())?;
    let volumes = items(usage, "Volumes").map(|volume| {
        let usage = &volume["UsageData"];
        vec![
            text(&volume["Name"]),
            number(&usage["RefCount"]).to_string(),
            human::size(number(&usage["Size"])),
        ]
    });
    let headers = ["VOLUME NAME", "LINKS", "SIZE"];
    section("\nLocal Volumes space usage:", &headers, volumes.collect())?;
    line("\nBuild cache usage: 0B")
}

fn section(title: &str, headers: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    line(&format!("{title}\n"))?;
    write_out(table(headers, &rows).as_bytes())
}

/// Flags of `container prune`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio container prune -f --filter until=24h")]
pub(super) struct ContainerPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove those for which this holds (until=TIME, label=KEY[=VALUE])
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

pub(super) async fn prune_stopped(args: ContainerPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning = "WARNING! This will remove all stopped containers.";
    if !args.force && !confirm(warning)? {
        return Ok(0);
    }
    let reclaimed = containers_gone(&args.filter, client).await?;
    told(reclaimed)
}

async fn containers_gone(given: &[String], client: &Client) -> anyhow::Result<i64> {
    let call = client.post("/containers/prune");
    let answer = call.optional("filters", filters(given)?).send().await?;
    let pruned: ContainerPruneResponse = answer.json().await?;
    gone(
        "Deleted Containers:",
        &pruned.containers_deleted.unwrap_or_default(),
    )?;
    Ok(pruned.space_reclaimed.unwrap_or_default())
}

async fn networks_gone(given: &[String], client: &Client) -> anyhow::Result<()> {
    // a network's age is not known
    let given: Vec<String> = given
        .iter()
        .filter(|filter| !filter.starts_with("until"))
        .cloned()
        .collect();
    prune_networks(&given, client).await
}

async fn images_gone(all: bool, given: &[String], client: &Client) -> anyhow::Result<i64> {
    let mut given = given.to_vec();
    given.push(format!("dangling={}", !all));
    let call = client.post("/images/prune");
    let answer = call.optional("filters", filters(&given)?).send().await?;
    let pruned: ImagePruneResponse = answer.json().await?;
    let items = pruned.images_deleted.unwrap_or_default().into_iter();
    let names: Vec<String> = items
        .flat_map(|item| {
            let untagged = item.untagged.map(|name| format!("untagged: {name}"));
            untagged
                .into_iter()
                .chain(item.deleted.map(|id| format!("deleted: {id}")))
        })
        .collect();
    gone("Deleted Images:", &names)?;
    Ok(pruned.space_reclaimed.unwrap_or_default())
}

pub(super) fn gone(title: &str, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    line(title)?;
    names.iter().try_for_each(|name| line(name))?;
    line("")
}

fn told(reclaimed: i64) -> anyhow::Result<u8> {
    line(&format!(
        "Total reclaimed space: {}",
        human::size(reclaimed)
    ))?;
    Ok(0)
}

/// Flags of `system prune`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio system prune -af --volumes")]
pub(super) struct SystemPruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Anonymous volumes, too
    #[arg(long)]
    volumes: bool,

    /// Remove what this holds for (until=TIME, label=KEY[=VALUE])
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

pub(super) async fn prune_all(args: SystemPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let until = args
        .filter
        .iter()
        .any(|filter| filter.starts_with("until="));
    if args.volumes && until {
        anyhow::bail!("ERROR: The \"until\" filter is not supported with \"--volumes\"");
    }
    let mut warning = "WARNING! This will remove:
  - all stopped containers
  - all networks not used by at least one container\n"
        .to_owned();
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(match args.all {
        true => "  - all images without at least one container associated to them\n",
        false => "  - all dangling images\n",
    });
    if !args.filter.is_empty() {
        let filters = args.filter.join(", ");
        warning.push_str(&format!(
            "\n  Items to be pruned will be filtered with:\n  - {filters}\n"
        ));
    }
    if !args.force && !confirm(&warning)? {
        return Ok(0);
    }
    let mut reclaimed = containers_gone(&args.filter, client).await?;
    networks_gone(&args.filter, client).await?;
    if args.volumes {
        reclaimed += volume::prune_volumes(false, &args.filter, client).await?;
    }
    reclaimed += images_gone(args.all, &args.filter, client).await?;
    told(reclaimed)
}
