//! `version` and `info`.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::context::Target;
use super::failure::complain;
use super::host::Host;
use super::human;
use super::output::{line, write_out};
use super::template::Template;
use crate::client::Client;

/// Flags of `version`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio version -f '{{.Server.Version}}'")]
pub(super) struct VersionArgs {
    /// json, or a template as {{.Client.Version}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Prints the versions of both sides; that of the client even if there is no daemon.
pub(super) async fn version(args: VersionArgs, target: &Target) -> anyhow::Result<u8> {
    let host = target.host().context("find the daemon")?;
    let template = Template::of_json(args.format.as_deref())?;
    let mut client = json!({
        "Platform": { "Name": "nuncio" },
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": Client::own_version(),
        "DefaultAPIVersion": Client::own_version(),
        "Os": std::env::consts::OS,
        "Arch": arch(),
        "Context": target.name()?,
    });
    let (server, code) = match ask_version(host).await {
        Ok((server, spoken)) => {
            client["ApiVersion"] = spoken.into();
            (server, 0)
        }
        Err(error) => {
            complain(&error);
            (Value::Null, 1)
        }
    };
    match &template {
        Some(template) => {
            let both = json!({ "Client": go_names(client), "Server": go_names(server) });
            line(&template.render(&both)?)?;
        }
        None if args.format.is_some() => {
            line(&json!({ "Client": client, "Server": server }).to_string())?;
        }
        None => {
            write_out(side("Client", &client).as_bytes())?;
            if !server.is_null() {
                write_out(format!("\n{}", side("Server", &server)).as_bytes())?;
            }
        }
    }
    Ok(code)
}

/// A side with its fields also under the names that Docker's templates have for them.
fn go_names(mut side: Value) -> Value {
    if let Some(fields) = side.as_object_mut() {
        if let Some(version) = fields.get("ApiVersion").cloned() {
            fields.insert("APIVersion".to_owned(), version);
        }
        for absent in ["GitCommit", "GoVersion", "BuildTime"] {
            fields.entry(absent).or_insert_with(|| "".into());
        }
    }
    side
}

/// What the daemon says, and the version of the API that both speak.
async fn ask_version(host: Host) -> anyhow::Result<(Value, String)> {
    let client = Client::connect(host).await?;
    let version = client.get("/version").send().await?.json().await?;
    Ok((version, client.version()))
}

/// As Docker calls it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn side(name: &str, version: &Value) -> String {
    let text = |field: &str| {
        version
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or("unknown")
            .to_owned()
    };
    format!(
        "{name}:\n Version:       {}\n API version:   {}\n OS/Arch:       {}/{}\n",
        text("Version"),
        text("ApiVersion"),
        text("Os"),
        text("Arch"),
    )
}

/// Flags of `info`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio info -f '{{.ContainersRunning}} of {{.Containers}} run'")]
pub(super) struct InfoArgs {
    /// json, or a template as {{.Driver}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What `info` shows, if the daemon tells it.
const LINES: &[(&str, &str)] = &[
    ("Name", "Name"),
    ("ID", "ID"),
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Server Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Data Root", "DockerRootDir"),
];

pub(super) async fn info(args: InfoArgs, client: &Client, target: &Target) -> anyhow::Result<u8> {
    let template = Template::of_json(args.format.as_deref())?;
    let mut info: Value = client.get("/info").send().await?.json().await?;
    info["ClientInfo"] = json!({
        "Debug": false,
        "Version": env!("CARGO_PKG_VERSION"),
        "Context": target.name()?,
        "Plugins": [],
        "Warnings": null,
    });
    match &template {
        Some(template) => line(&template.render(&info)?)?,
        None if args.format.is_some() => line(&info.to_string())?,
        None => print_info(&info)?,
    }
    Ok(0)
}

fn print_info(info: &Value) -> anyhow::Result<()> {
    for (label, field) in LINES {
        match info.get(field) {
            Some(Value::Number(bytes)) if *field == "MemTotal" => {
                line(&format!(
                    "{label}: {}",
                    human::size(bytes.as_i64().unwrap_or_default())
                ))?;
            }
            Some(Value::String(text)) if !text.is_empty() => line(&format!("{label}: {text}"))?,
            Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                line(&format!("{label}: {value}"))?;
            }
            _ => {}
        }
    }
    let warnings = info
        .get("Warnings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    warnings
        .filter_map(Value::as_str)
        .for_each(super::output::warn);
    Ok(())
}
