//! `context`: daemons by name, shared with Docker's client, and which of them is meant.

mod archive;
mod choose;
mod endpoint;
mod show;
mod store;

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::config_file::{self, ConfigFile};
use super::failure::each;
use super::output::{line, warn};
use choose::{current, overriding};
use show::{InspectArgs, LsArgs};
use store::{DEFAULT, Meta, Store, check_name};

pub(super) use choose::Target;

/// What the default context is called in lists.
const OF_THE_ENVIRONMENT: &str = "Current DOCKER_HOST based configuration";

/// `nuncio context`.
#[derive(Args, Debug)]
pub(super) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Make a context
    Create(CreateArgs),
    /// Write a context into an archive
    Export(ExportArgs),
    /// Take a context from an archive
    Import(ImportArgs),
    /// Show all there is to know of contexts, as JSON
    Inspect(InspectArgs),
    /// List contexts
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove contexts
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Print the name of the context in use
    Show(ShowArgs),
    /// Change a context
    Update(UpdateArgs),
    /// Use a context from now on
    Use(UseArgs),
}

pub(super) async fn run(args: ContextArgs, target: &Target) -> anyhow::Result<u8> {
    let store = Store::own();
    match args.command {
        ContextCommand::Create(args) => create(&args, target, &store),
        ContextCommand::Export(args) => export(&args, &store),
        ContextCommand::Import(args) => import(&args, &store),
        ContextCommand::Inspect(args) => show::inspect(args, target, &store),
        ContextCommand::Ls(args) => show::list(&args, target, &store),
        ContextCommand::Rm(args) => remove(&args, target, &store).await,
        ContextCommand::Show(_) => {
            line(&current(target)?)?;
            Ok(0)
        }
        ContextCommand::Update(args) => update(&args, target, &store),
        ContextCommand::Use(args) => use_it(&args, &store),
    }
}

/// The context of that name; the default one is what the environment says.
fn find(name: &str, target: &Target, store: &Store) -> anyhow::Result<Meta> {
    match name {
        DEFAULT => Ok(Meta::new(
            name,
            &choose::of_environment(target),
            OF_THE_ENVIRONMENT,
        )),
        name => store.find(name),
    }
}

const ENDPOINT: &str =
    "Where the daemon is: host=unix:///PATH, and ca=, cert=, key=, skip-tls-verify= and from=";

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio context create edge --docker host=unix:///run/edge/nuncio.sock --description 'at the edge'")]
struct CreateArgs {
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,

    #[arg(long, value_name = "KEY=VALUE,..", help = ENDPOINT)]
    docker: Vec<String>,

    /// Make it as another context is
    #[arg(long, value_name = "CONTEXT")]
    from: Option<String>,

    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn create(args: &CreateArgs, target: &Target, store: &Store) -> anyhow::Result<u8> {
    let name = args.name.as_str();
    check_name(name)?;
    if args.from.is_some() && !args.docker.is_empty() {
        bail!("cannot use --docker flag when --from is set");
    }
    if store.has(name) {
        bail!("context {name:?} already exists");
    }
    if args.docker.is_empty() {
        let from = match &args.from {
            Some(from) => from.clone(),
            None => current(target)?,
        };
        let mut meta = find(&from, target, store)?;
        for (endpoint, files) in store.tls(&from) {
            for file in files {
                let path = store.tls_directory(&from).join(&endpoint).join(&file);
                let content =
                    std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                store.write_tls(name, &endpoint, &file, &content)?;
            }
        }
        name.clone_into(&mut meta.name);
        if !args.description.is_empty() {
            meta.describe(&args.description);
        }
        store.write(&meta)?;
    } else {
        let mut meta = Meta::new(name, "", &args.description);
        set_endpoint(&mut meta, &args.docker, target, store)?;
        store.write(&meta)?;
    }
    line(name)?;
    warn(&format!("Successfully created context {name:?}"));
    Ok(0)
}

/// Has `meta` lead where the words of `--docker` say.
fn set_endpoint(
    meta: &mut Meta,
    words: &[String],
    target: &Target,
    store: &Store,
) -> anyhow::Result<()> {
    endpoint::set(meta, words, |from| find(from, target, store), store)
        .context("unable to create docker endpoint config")
}

#[derive(Args, Debug)]
struct UpdateArgs {
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    #[arg(long, value_name = "KEY=VALUE,..", help = ENDPOINT)]
    docker: Vec<String>,

    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn update(args: &UpdateArgs, target: &Target, store: &Store) -> anyhow::Result<u8> {
    let name = args.name.as_str();
    check_name(name)?;
    let mut meta = store.find(name)?;
    if let Some(description) = &args.description {
        meta.describe(description);
    }
    if !args.docker.is_empty() {
        set_endpoint(&mut meta, &args.docker, target, store)?;
    }
    store.write(&meta)?;
    line(name)?;
    warn(&format!("Successfully updated context {name:?}"));
    Ok(0)
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Also the one in use
    #[arg(short, long)]
    force: bool,

    #[arg(value_name = "CONTEXT", required = true)]
    names: Vec<String>,
}

async fn remove(args: &RmArgs, target: &Target, store: &Store) -> anyhow::Result<u8> {
    let current = current(target)?;
    each(&args.names, async |name| {
        if name == DEFAULT {
            bail!("context \"default\" cannot be removed");
        }
        if !args.force && !store.has(name) {
            bail!("context {name:?} does not exist");
        }
        if *name == current {
            if !args.force {
                bail!("context {name:?} is in use, set -f flag to force remove");
            }
            set_current(None)?;
        }
        store.remove(name)?;
        line(name)
    })
    .await
}

#[derive(Args, Debug)]
struct ShowArgs {}

#[derive(Args, Debug)]
struct UseArgs {
    #[arg(value_name = "CONTEXT")]
    name: String,
}

fn use_it(args: &UseArgs, store: &Store) -> anyhow::Result<u8> {
    let name = args.name.as_str();
    if name != DEFAULT {
        check_name(name)?;
        store.find(name)?;
    }
    set_current(Some(name).filter(|name| *name != DEFAULT))?;
    line(name)?;
    warn(&format!("Current context is now {name:?}"));
    if name != DEFAULT
        && let Some(variable) = overriding()
    {
        warn(&format!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(0)
}

/// Writes down which context is in use from now on.
fn set_current(name: Option<&str>) -> anyhow::Result<()> {
    let mut config = ConfigFile::read(&config_file::directory())?;
    let before = match name {
        Some(name) => config
            .fields
            .insert(choose::CURRENT.to_owned(), name.into()),
        None => config.fields.remove(choose::CURRENT),
    };
    match before.as_ref().and_then(Value::as_str) == name {
        true => Ok(()),
        false => config.write(),
    }
}

#[derive(Args, Debug)]
struct ExportArgs {
    #[arg(value_name = "CONTEXT")]
    name: String,

    /// The archive; - is standard output (default: CONTEXT.dockercontext)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

fn export(args: &ExportArgs, store: &Store) -> anyhow::Result<u8> {
    let name = args.name.as_str();
    if name != DEFAULT {
        check_name(name)?;
    }
    let mut content = Vec::new();
    archive::write(store, name, &mut content)?;
    let default = || PathBuf::from(format!("{name}.dockercontext"));
    let path = args.file.clone().unwrap_or_else(default);
    if path == Path::new("-") {
        super::output::write_out(&content)?;
        return Ok(0);
    }
    let mut options = OpenOptions::new();
    let open = options.write(true).create_new(true).mode(0o600).open(&path);
    let write = open.and_then(|mut file| file.write_all(&content));
    write.with_context(|| format!("open {}", path.display()))?;
    warn(&format!("Written file \"{}\"", path.display()));
    Ok(0)
}

#[derive(Args, Debug)]
struct ImportArgs {
    #[arg(value_name = "CONTEXT")]
    name: String,

    /// The archive; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

fn import(args: &ImportArgs, store: &Store) -> anyhow::Result<u8> {
    let name = args.name.as_str();
    check_name(name)?;
    if store.has(name) {
        bail!("context {name:?} already exists");
    }
    let from: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => {
            let open = || format!("open {}", args.file.display());
            Box::new(std::fs::File::open(&args.file).with_context(open)?)
        }
    };
    archive::read(store, name, from)?;
    line(name)?;
    warn(&format!("Successfully imported context {name:?}"));
    Ok(0)
}
