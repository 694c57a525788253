//! `inspect`.

use clap::Args;
use serde::Serialize as _;
use serde_json::Value;

use super::failure::complain;
use super::output::{line, warn, write_out};
use super::template::Template;
use crate::client::{Client, ClientError};

/// Flags of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    same: SameFlags,

    /// What it is, if a name is that of several: config, container, image, network, node, plugin, secret, service, task or volume
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
    Service,
    Task,
    Node,
    Plugin,
    Secret,
    Config,
}

impl Kind {
    /// In the order in which Docker looks for a name among them.
    const ALL: [(&str, Self); 10] = [
        ("container", Self::Container),
        ("image", Self::Image),
        ("network", Self::Network),
        ("volume", Self::Volume),
        ("service", Self::Service),
        ("task", Self::Task),
        ("node", Self::Node),
        ("plugin", Self::Plugin),
        ("secret", Self::Secret),
        ("config", Self::Config),
    ];

    fn named(name: &str) -> anyhow::Result<Self> {
        if let Some((_, kind)) = Self::ALL.iter().find(|(of, _)| *of == name) {
            return Ok(*kind);
        }
        let mut known = Self::ALL.map(|(name, _)| format!("{name:?}"));
        known.sort();
        let known = known.join(", ");
        match name {
            "" => anyhow::bail!("type is empty: must be one of {known}"),
            _ => anyhow::bail!("unknown type: {name:?}: must be one of {known}"),
        }
    }

    fn word(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(word, _)| word)
    }

    fn path(self, name: &str) -> String {
        match self {
            Self::Container => format!("/containers/{name}/json"),
            Self::Image => format!("/images/{name}/json"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
            Self::Service => format!("/services/{name}"),
            Self::Task => format!("/tasks/{name}"),
            Self::Node => format!("/nodes/{name}"),
            Self::Plugin => format!("/plugins/{name}/json"),
            Self::Secret => format!("/secrets/{name}"),
            Self::Config => format!("/configs/{name}"),
        }
    }
}

pub(super) async fn run(args: InspectArgs, client: &Client) -> anyhow::Result<u8> {
    let kinds = match &args.kind {
        Some(kind) => vec![Kind::named(kind)?],
        None => Kind::ALL.map(|(_, kind)| kind).to_vec(),
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
    let template = Template::of_json(asked.format.as_deref())?;
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
    for kind in kinds {
        let call = client
            .get(&kind.path(name))
            .flag("size", asked.size && *kind == Kind::Container)
            .optional("platform", asked.platform.as_deref());
        match call.send().await {
            Err(error) if kinds.len() == 1 => return Err(error.into()),
            // A daemon that has no such things has none of this name.
            Err(error) if error.is_not_found() || error.is_not_built() => {}
            // Docker's daemon calls a name that no image can have malformed
            Err(ClientError::Refused { message, .. })
                if message.contains("invalid reference format") => {}
            answer => {
                let found = answer?.json().await?;
                if asked.size && *kind != Kind::Container {
                    warn(&format!("WARNING: --size ignored for {}", kind.word()));
                }
                return Ok(found);
            }
        }
    }
    anyhow::bail!("No such object: {name}")
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
