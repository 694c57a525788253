//! `secret` and `config`: what the mesh keeps for services, and gives their containers as files.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::Driver;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::failure::{complain, each};
use super::inspect::show;
use super::list::{List, filters, labelled, row};
use super::output::{line, write_out};
use super::parse::{Filter, KeyValue};
use super::service::pretty::{Text, ago};
use super::template::Template;
use crate::client::Client;

/// What is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Kept so that only containers see it.
    Secret,
    /// What anybody may see.
    Config,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Secret => "/secrets",
            Self::Config => "/configs",
        }
    }

    /// Docker's bounds, in bytes.
    fn most(self) -> u64 {
        match self {
            Self::Secret => 500 * 1024,
            Self::Config => 1000 * 1024,
        }
    }
}

/// `nuncio secret`.
#[derive(Args, Debug)]
pub(super) struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

/// `nuncio config`.
#[derive(Args, Debug)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Keep a secret
    #[command(after_help = "Examples:
  nuncio secret create db-password password.txt
  openssl rand -base64 24 | nuncio secret create db-password -")]
    Create(CreateArgs),
    /// List secrets, without what they are
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show what there is to know of secrets, without what they are
    Inspect(InspectArgs),
    /// Remove secrets that no service uses
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Keep a config
    #[command(after_help = "Example:
  nuncio config create nginx.conf ./nginx.conf")]
    Create(CreateArgs),
    /// List configs
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all there is to know of configs
    Inspect(InspectArgs),
    /// Remove configs that no service uses
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Metadata
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<KeyValue>,

    /// Refused: nothing else keeps them
    #[arg(short, long, value_name = "DRIVER")]
    driver: Option<String>,

    /// golang: fill the file in as a template, if the daemon does that
    #[arg(long, value_name = "DRIVER")]
    template_driver: Option<String>,

    /// Its name
    #[arg(value_name = "NAME")]
    name: String,

    /// Where it is read from; - is standard input
    #[arg(value_name = "FILE|-")]
    file: Option<String>,
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Show only ids
    #[arg(short, long)]
    quiet: bool,

    /// Show those for which this holds: id, label, name
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show it in words
    #[arg(long)]
    pretty: bool,

    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// A secret or a config that is to be kept.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wanted {
    name: String,
    labels: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<Driver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    templating: Option<Driver>,
}

#[derive(Deserialize)]
struct Made {
    #[serde(alias = "Id", rename = "ID")]
    id: String,
}

const SECRET_FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("CreatedAt", "CREATED"),
    ("UpdatedAt", "UPDATED"),
    ("Labels", "LABELS"),
];

const CONFIG_FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("CreatedAt", "CREATED"),
    ("UpdatedAt", "UPDATED"),
    ("Labels", "LABELS"),
];

pub(super) async fn secrets(args: SecretArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        SecretCommand::Create(args) => create(args, Kind::Secret, client).await,
        SecretCommand::Ls(args) => list(args, Kind::Secret, client).await,
        SecretCommand::Inspect(args) => inspect(args, Kind::Secret, client).await,
        SecretCommand::Rm(args) => remove(args, Kind::Secret, client).await,
    }
}

pub(super) async fn configs(args: ConfigArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        ConfigCommand::Create(args) => create(args, Kind::Config, client).await,
        ConfigCommand::Ls(args) => list(args, Kind::Config, client).await,
        ConfigCommand::Inspect(args) => inspect(args, Kind::Config, client).await,
        ConfigCommand::Rm(args) => remove(args, Kind::Config, client).await,
    }
}

async fn create(args: CreateArgs, kind: Kind, client: &Client) -> anyhow::Result<u8> {
    let driver = |name: Option<String>| {
        name.map(|name| Driver {
            name,
            options: None,
        })
    };
    let data = match args.file.as_deref() {
        None if args.driver.is_some() => None,
        None => bail!(
            "a file is needed to read {} from, or - for standard input",
            args.name
        ),
        Some(file) => Some(read(file, kind)?),
    };
    let wanted = Wanted {
        labels: args
            .label
            .into_iter()
            .map(|pair| (pair.key, pair.value.into()))
            .collect(),
        data: data.map(|data| STANDARD.encode(data)),
        driver: driver(args.driver),
        templating: driver(args.template_driver),
        name: args.name,
    };
    let call = client
        .post(&format!("{}/create", kind.path()))
        .json(&wanted);
    let made: Made = call.send().await?.json().await?;
    line(&made.id)?;
    Ok(0)
}

/// What is in a file, or comes from standard input.
///
/// # Errors
///
/// A file that cannot be read, is empty, or longer than what may be kept.
pub(super) fn read(file: &str, kind: Kind) -> anyhow::Result<Vec<u8>> {
    let most = kind.most();
    let mut data = Vec::new();
    match file {
        "-" => std::io::stdin().take(most + 1).read_to_end(&mut data),
        path => std::fs::File::open(Path::new(path))
            .with_context(|| format!("open {path}"))?
            .take(most + 1)
            .read_to_end(&mut data),
    }
    .with_context(|| format!("read {file}"))?;
    if data.len() as u64 > most {
        bail!(
            "{file}: longer than {} KiB, which is the most that is kept",
            most / 1024
        );
    }
    if data.is_empty() && kind == Kind::Secret {
        bail!("{file}: a secret must be from 1 to {most} bytes long, and this has none");
    }
    Ok(data)
}

async fn list(args: LsArgs, kind: Kind, client: &Client) -> anyhow::Result<u8> {
    let call = client
        .get(kind.path())
        .optional("filters", filters(&args.filter));
    let found: Vec<Value> = call.send().await?.json().await?;
    let mut rows: Vec<_> = found.iter().map(fields).collect();
    rows.sort_by_key(|row| row["Name"].to_string());
    let (fields, columns) = match kind {
        Kind::Secret => (
            SECRET_FIELDS,
            vec!["ID", "Name", "Driver", "CreatedAt", "UpdatedAt"],
        ),
        Kind::Config => (CONFIG_FIELDS, vec!["ID", "Name", "CreatedAt", "UpdatedAt"]),
    };
    let list = List {
        fields,
        columns,
        rows,
    };
    match args.quiet && args.format.is_none() {
        true => list.print_field("ID")?,
        false => list.print(args.format.as_deref())?,
    }
    Ok(0)
}

fn fields(one: &Value) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let spec = &one["Spec"];
    let labels = spec["Labels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| (key.clone(), text(value)));
    let of_row = row([
        ("ID", text(&one["ID"])),
        ("Name", text(&spec["Name"])),
        ("Driver", text(&spec["Driver"]["Name"])),
        ("CreatedAt", ago(&text(&one["CreatedAt"]))),
        ("UpdatedAt", ago(&text(&one["UpdatedAt"]))),
    ]);
    labelled(of_row, labels)
}

async fn inspect(args: InspectArgs, kind: Kind, client: &Client) -> anyhow::Result<u8> {
    if args.pretty && args.format.is_some() {
        bail!("--format is incompatible with human friendly format: leave out --pretty");
    }
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let (mut found, mut code) = (Vec::new(), 0);
    for name in &args.names {
        match client.get(&format!("{}/{name}", kind.path())).send().await {
            Ok(answer) => found.push(answer.json::<Value>().await?),
            Err(error) => {
                complain(&error.into());
                code = 1;
            }
        }
    }
    if args.pretty {
        let texts = found.iter().map(in_words).collect::<Vec<_>>();
        write_out(texts.join("\n").as_bytes())?;
    } else {
        show(found, template.as_ref(), args.format.is_some())?;
    }
    Ok(code)
}

fn in_words(one: &Value) -> String {
    let mut out = Text::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    out.field("ID:\t\t\t", &text(&one["ID"]));
    out.field("Name:\t\t\t", &text(&one["Spec"]["Name"]));
    let labels = one["Spec"]["Labels"].as_object().into_iter().flatten();
    let labels: Vec<_> = labels
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    out.map("Labels:", labels.iter().map(|(key, value)| (key, value)));
    out.field("Created at:\t\t", &text(&one["CreatedAt"]));
    out.field("Updated at:\t\t", &text(&one["UpdatedAt"]));
    if let Some(data) = one["Spec"]["Data"].as_str() {
        let data = STANDARD.decode(data).unwrap_or_default();
        out.field("Data:\n", &String::from_utf8_lossy(&data));
    }
    out.0
}

async fn remove(args: RmArgs, kind: Kind, client: &Client) -> anyhow::Result<u8> {
    each(&args.names, async |name: &String| {
        let path = format!("{}/{name}", kind.path());
        client.delete(&path).send().await?;
        line(name)
    })
    .await
}
