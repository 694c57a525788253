//! `compose`: the services of a file as containers of this daemon's host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::file::{Project, load};
use super::{down, logs, ps, up};
use crate::cli::parse::Filter;
use crate::client::Client;

/// `nuncio compose`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio compose up -d
  nuncio compose -f compose.yml -f debug.yml -p shop up
  nuncio compose down -v

Containers, networks and volumes are called and labelled as docker-compose does, which can go on with them. For services on
all hosts of a mesh see `nuncio stack`.")]
pub(in crate::cli) struct ComposeArgs {
    /// A compose file, or - for standard input (may be repeated; default: compose.yaml, docker-compose.yml and their kin here)
    #[arg(short, long, value_name = "FILE")]
    file: Vec<String>,

    /// What the project is called (else COMPOSE_PROJECT_NAME, the file's own word, or the directory)
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,

    /// A file of variables (default: .env beside the first file)
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Take in services of this profile (may be repeated; else COMPOSE_PROFILES)
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,

    #[command(subcommand)]
    command: ComposeCommand,
}

#[derive(Debug, Subcommand)]
enum ComposeCommand {
    /// Make and start what the file describes
    Up(up::UpArgs),
    /// Stop and remove containers and networks
    Down(down::DownArgs),
    /// List the containers of the project
    Ps(ps::PsArgs),
    /// Show what they printed
    Logs(logs::LogsArgs),
}

/// Where files are looked for, in this order.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
/// What may stand beside them.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

pub(in crate::cli) async fn run(args: ComposeArgs, client: &Client) -> anyhow::Result<u8> {
    let files = files(&args.file)?;
    let mut project = load(&files, args.env_file.as_deref())?;
    project.name = Some(name(args.project_name, &project)?);
    let profiles = match args.profile.is_empty() {
        true => std::env::var("COMPOSE_PROFILES")
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect(),
        false => args.profile,
    };
    match args.command {
        ComposeCommand::Up(args) => up::run(args, &project, &profiles, client).await,
        ComposeCommand::Down(args) => down::run(args, &project, client).await,
        ComposeCommand::Ps(args) => ps::run(args, &project, client).await,
        ComposeCommand::Logs(args) => logs::run(args, &project, client).await,
    }
}

fn files(given: &[String]) -> anyhow::Result<Vec<String>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    if let Ok(files) = std::env::var("COMPOSE_FILE")
        && !files.is_empty()
    {
        return Ok(files.split(':').map(str::to_owned).collect());
    }
    let found = |names: &[&str]| {
        names
            .iter()
            .find(|name| Path::new(name).is_file())
            .map(|name| (*name).to_owned())
    };
    let Some(first) = found(&FILES) else {
        bail!(
            "no configuration file provided: not found: expected one of {} here, or -f FILE",
            FILES.join(", ")
        );
    };
    Ok([Some(first), found(&OVERRIDES)]
        .into_iter()
        .flatten()
        .collect())
}

/// As docker-compose finds it.
fn name(given: Option<String>, project: &Project) -> anyhow::Result<String> {
    let of_environment = std::env::var("COMPOSE_PROJECT_NAME")
        .ok()
        .filter(|name| !name.is_empty());
    if let Some(name) = given.or(of_environment).or_else(|| project.name.clone()) {
        let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            || !name.chars().all(is_of_name)
        {
            bail!(
                "invalid project name {name:?}: expected small letters, digits, - and _, a letter or digit first"
            );
        }
        return Ok(name);
    }
    let directory = project
        .directory
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let name: String = directory
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c))
        .collect();
    let name = name.trim_start_matches(['-', '_']);
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    name.context("the directory's name makes no name for the project: give one by -p")
}

/// A filter for what belongs to a project.
pub(super) fn of(project: &str) -> Filter {
    Filter::new("label", format!("{PROJECT}={project}"))
}

/// docker-compose's labels.
pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
pub(super) const ONEOFF: &str = "com.docker.compose.oneoff";
pub(super) const HASH: &str = "com.docker.compose.config-hash";
pub(super) const IMAGE: &str = "com.docker.compose.image";
