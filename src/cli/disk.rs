//! `system df`: what takes room on the disk.

use bollard_stubs::models::ContainerSummary;
use clap::Args;
use serde_json::{Value, json};

use super::human;
use super::list::{List, row};
use super::output::{line, write_out};
use super::table::table;
use super::template::{LABELS, Template};
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
    if args.verbose {
        match args.format.as_deref() {
            None | Some("table") => verbose(&usage)?,
            Some("json") => line(&details(&usage)?.to_string())?,
            Some(format) => line(&Template::parse(format)?.render(&details(&usage)?)?)?,
        }
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
    let headers = [
        "CACHE ID",
        "CACHE TYPE",
        "SIZE",
        "CREATED",
        "LAST USED",
        "USAGE",
        "SHARED",
    ];
    section("\nBuild cache usage: 0B", &headers, Vec::new())
}

/// What `-v` shows, as the docker client has it for `--format`: what the lists of each kind have, and sizes.
fn details(usage: &Value) -> anyhow::Result<Value> {
    let mut images = Vec::new();
    for image in items(usage, "Images") {
        let (size, shared) = (number(&image["Size"]), number(&image["SharedSize"]));
        let rows = super::images::fields(&serde_json::from_value(image.clone())?, true, false);
        for mut row in rows.into_iter().take(1) {
            for (field, text) in [
                ("Containers", number(&image["Containers"]).to_string()),
                ("SharedSize", human::size(shared)),
                ("UniqueSize", human::size(size - shared)),
            ] {
                row.insert(field.to_owned(), text.into());
            }
            images.push(Value::Object(row));
        }
    }
    let mut containers = Vec::new();
    for container in items(usage, "Containers") {
        let mut container: ContainerSummary = serde_json::from_value(container.clone())?;
        container.size_root_fs = None; // what it wrote is what is meant
        containers.push(shown(super::ps::fields(container, true)));
    }
    let volumes = items(usage, "Volumes").map(|volume| shown(super::volume::fields(volume)));
    Ok(json!({
        "Images": images,
        "Containers": containers,
        "Volumes": volumes.collect::<Vec<_>>(),
        "BuildCache": [],
    }))
}

fn shown(mut row: Row) -> Value {
    row.remove(LABELS);
    Value::Object(row)
}

fn section(title: &str, headers: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    line(&format!("{title}\n"))?;
    write_out(table(headers, &rows).as_bytes())
}
