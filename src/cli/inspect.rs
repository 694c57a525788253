//! `inspect`.

use clap::Args;
use clap::ValueEnum;
use serde::Serialize as _;
use serde_json::Value;

use super::failure::complain;
use super::output::{line, write_out};
use super::template::Template;
use crate::client::{Client, ClientError};

/// Flags of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    same: SameFlags,

    /// What it is, if a name is that of several
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
}

const EXAMPLES: &str = "\
Examples:
  nuncio inspect web
  nuncio inspect -f '{{.State.Pid}} {{json .NetworkSettings.Networks}}' web";

/// Flags of `container inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ContainerInspectArgs {
    #[command(flatten)]
    same: SameFlags,
}

/// Flags of `image inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImageInspectArgs {
    #[command(flatten)]
    same: SameFlags,

    /// OS and architecture, as linux/amd64, that it is to have
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

#[derive(Args, Debug)]
struct SameFlags {
    /// json, or a template of {{.Path.To.Field}} and {{json .Path}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Show how much a container wrote
    #[arg(short, long)]
    size: bool,

    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// What can be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Kind {
    fn path(self, name: &str) -> String {
        match self {
            Self::Container => format!("/containers/{name}/json"),
            Self::Image => format!("/images/{name}/json"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
        }
    }
}

pub(super) async fn run(args: InspectArgs, client: &Client) -> anyhow::Result<u8> {
    let kinds = match args.kind {
        Some(kind) => vec![kind],
        None => vec![Kind::Container, Kind::Image, Kind::Network, Kind::Volume],
    };
    print(client, &args.same.into(), &kinds).await
}

pub(super) async fn containers(args: ContainerInspectArgs, client: &Client) -> anyhow::Result<u8> {
    print(client, &args.same.into(), &[Kind::Container]).await
}

pub(super) async fn images(args: ImageInspectArgs, client: &Client) -> anyhow::Result<u8> {
    let asked = Asked {
        platform: args.platform,
        ..args.same.into()
    };
    print(client, &asked, &[Kind::Image]).await
}

/// As [`run`], of networks alone.
pub(super) async fn networks(
    names: Vec<String>,
    format: Option<String>,
    client: &Client,
) -> anyhow::Result<u8> {
    of_kind(Kind::Network, names, format, client).await
}

/// As [`run`], of volumes alone.
pub(super) async fn volumes(
    names: Vec<String>,
    format: Option<String>,
    client: &Client,
) -> anyhow::Result<u8> {
    of_kind(Kind::Volume, names, format, client).await
}

async fn of_kind(
    kind: Kind,
    names: Vec<String>,
    format: Option<String>,
    client: &Client,
) -> anyhow::Result<u8> {
    let asked = Asked {
        format,
        names,
        ..Asked::default()
    };
    print(client, &asked, &[kind]).await
}

/// What is to be shown, and how.
#[derive(Default)]
struct Asked {
    names: Vec<String>,
    format: Option<String>,
    size: bool,
    platform: Option<String>,
}

impl From<SameFlags> for Asked {
    fn from(flags: SameFlags) -> Self {
        Self {
            names: flags.names,
            format: flags.format,
            size: flags.size,
            platform: None,
        }
    }
}

async fn print(client: &Client, asked: &Asked, kinds: &[Kind]) -> anyhow::Result<u8> {
    let template = match asked.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found = Vec::new();
    let mut code = 0;
    for name in &asked.names {
        match look(client, name, kinds, asked).await {
            Ok(value) => found.push(value),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    show(found, template.as_ref(), asked.format.is_some())?;
    Ok(code)
}

/// Prints what was found: by a template, else as JSON, on one line if it is `short`.
pub(super) fn show(
    found: Vec<Value>,
    template: Option<&Template>,
    short: bool,
) -> anyhow::Result<()> {
    match template {
        Some(template) => found
            .iter()
            .try_for_each(|value| line(&template.render(value)?)),
        None if short => line(&Value::Array(found).to_string()),
        None => write_out(&indented(&Value::Array(found))?),
    }
}

/// The first of `kinds` that has this name.
async fn look(client: &Client, name: &str, kinds: &[Kind], asked: &Asked) -> anyhow::Result<Value> {
    for (at, kind) in kinds.iter().enumerate() {
        let call = client
            .get(&kind.path(name))
            .flag("size", asked.size && *kind == Kind::Container)
            .optional("platform", asked.platform.as_deref());
        match call.send().await {
            Err(error) if error.is_not_found() && kinds.len() == 1 => return Err(error.into()),
            Err(error) if error.is_not_found() && at + 1 < kinds.len() => {}
            Err(error) if error.is_not_found() => anyhow::bail!("no such object: {name}"),
            // Docker's daemon calls a name that no image can have malformed
            Err(ClientError::Refused { message, .. })
                if message.contains("invalid reference format") => {}
            answer => return Ok(answer?.json().await?),
        }
    }
    anyhow::bail!("no such object: {name}")
}

/// JSON with four spaces for each level, and an end of line, as Docker prints it.
fn indented(value: &Value) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, formatter,
    ))?;
    text.push(b'\n');
    Ok(text)
}
