//! `volume`.

use bollard_stubs::models::VolumeCreateOptions;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::failure::each;
use super::human;
use super::inspect;
use super::list::{List, filters, labelled, row};
use super::output::line;
use super::parse::{Filter, KeyValue};
use super::prune::{self, VolumePruneArgs};
use crate::client::Client;

/// `nuncio volume`.
#[derive(Args, Debug)]
pub(super) struct VolumeArgs {
    #[command(subcommand)]
    command: VolumeCommand,
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Make a volume
    Create(CreateArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all there is to know of volumes, as JSON
    Inspect(InspectArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Remove the volumes that no container mounts
    Prune(VolumePruneArgs),
}

pub(super) async fn run(args: VolumeArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        VolumeCommand::Create(args) => create(args, client).await,
        VolumeCommand::Ls(args) => list(args, client).await,
        VolumeCommand::Inspect(args) => inspect::volumes(args.volumes, args.format, client).await,
        VolumeCommand::Rm(args) => remove(args, client).await,
        VolumeCommand::Prune(args) => prune::volumes(args, client).await,
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio volume create data
  nuncio volume create --opt type=none --opt o=bind --opt device=/srv/data data")]
struct CreateArgs {
    /// local is the one there is
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,

    /// An option of the driver: type, o or device
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<KeyValue>,

    /// Metadata
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<KeyValue>,

    /// Its name, as the argument has it
    #[arg(long = "name", value_name = "NAME", hide = true)]
    old_name: Option<String>,

    /// Its name (default: by chance)
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

async fn create(args: CreateArgs, client: &Client) -> anyhow::Result<u8> {
    if args.name.is_some() && args.old_name.is_some() {
        anyhow::bail!(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        );
    }
    let map = |pairs: &[KeyValue]| {
        let pairs = pairs.iter();
        Some(
            pairs
                .map(|pair| (pair.key.clone(), pair.value.clone()))
                .collect(),
        )
    };
    let request = VolumeCreateOptions {
        name: Some(args.name.or(args.old_name).unwrap_or_default()),
        driver: Some(args.driver),
        driver_opts: map(&args.opt),
        labels: map(&args.label),
        cluster_volume_spec: None,
    };
    let answer = client.post("/volumes/create").json(&request).send().await?;
    let volume: Value = answer.json().await?;
    line(volume["Name"].as_str().unwrap_or_default())?;
    Ok(0)
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio volume ls --filter dangling=true")]
struct LsArgs {
    /// Show only names
    #[arg(short, long)]
    quiet: bool,

    /// Show those for which this holds: dangling, driver, label, name
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// Show only those of a cluster, of which there are none
    #[arg(long)]
    cluster: bool,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Labels", "LABELS"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Scope", "SCOPE"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
];

async fn list(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get("/volumes")
        .optional("filters", filters(&args.filter));
    let answer: Value = call.send().await?.json().await?;
    let mut rows: Vec<_> = answer["Volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|volume| !args.cluster || volume["ClusterVolume"].is_object())
        .map(fields)
        .collect();
    rows.sort_by_key(|row| row["Name"].to_string());
    let list = List {
        fields: FIELDS,
        columns: vec!["Driver", "Name"],
        rows,
    };
    if args.quiet && args.format.is_none() {
        list.print_field("Name")?;
    } else {
        list.print(args.format.as_deref())?;
    }
    Ok(0)
}

/// A volume as a row; `df` knows its size and how many containers have it.
pub(super) fn fields(volume: &Value) -> Map<String, Value> {
    let text = |field: &str| volume[field].as_str().unwrap_or_default().to_owned();
    let labels = volume["Labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        (key.clone(), value.to_owned())
    });
    let usage = |field: &str| {
        volume["UsageData"][field]
            .as_i64()
            .filter(|&number| number >= 0)
    };
    let unknown = || "N/A".to_owned();
    let of_row = row([
        ("Availability", unknown()),
        ("Driver", text("Driver")),
        ("Group", unknown()),
        ("Name", text("Name")),
        ("Status", unknown()),
        ("Mountpoint", text("Mountpoint")),
        ("Scope", text("Scope")),
        (
            "Links",
            usage("RefCount").map_or_else(unknown, |number| number.to_string()),
        ),
        ("Size", usage("Size").map_or_else(unknown, human::size)),
    ]);
    labelled(of_row, labels)
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Do not mind if there is none
    #[arg(short, long)]
    force: bool,

    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

async fn remove(args: RmArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.volumes, async |volume| {
        let call = client.delete(&format!("/volumes/{volume}"));
        call.flag("force", args.force).send().await?;
        line(volume)
    })
    .await
}
