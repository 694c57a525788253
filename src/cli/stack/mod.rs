//! `stack`: services, networks, secrets and configs of a compose file, on all of the mesh.

mod convert;
mod deploy;
mod list;
mod remove;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::compose;
use super::output::{warn, write_out};
use super::parse::Filter;
use super::service;
use super::tasks;
use crate::client::Client;

pub(super) use convert::environment;

/// Marks what belongs to a stack.
const NAMESPACE: &str = "com.docker.stack.namespace";
/// The image as the file says it, on a service.
const IMAGE: &str = "com.docker.stack.image";

/// `nuncio stack`.
#[derive(Args, Debug)]
pub(super) struct StackArgs {
    #[command(subcommand)]
    command: StackCommand,
}

#[derive(Debug, Subcommand)]
enum StackCommand {
    /// Make or change a stack, as compose files describe it
    #[command(visible_alias = "up")]
    Deploy(deploy::DeployArgs),
    /// List stacks
    #[command(visible_alias = "list")]
    Ls(list::LsArgs),
    /// List the tasks of a stack
    Ps(list::PsArgs),
    /// List the services of a stack
    Services(list::ServicesArgs),
    /// Remove stacks
    #[command(visible_aliases = ["down", "remove"])]
    Rm(remove::RmArgs),
    /// Show what compose files come to
    Config(ConfigArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio stack config -c compose.yml -c production.yml > stack.yml")]
struct ConfigArgs {
    /// A compose file, or - for standard input (may be repeated: the later goes before)
    #[arg(short, long, value_name = "FILE", required = true)]
    compose_file: Vec<String>,

    /// A file of variables (default: .env beside the first compose file)
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Leave variables as they stand
    #[arg(long)]
    skip_interpolation: bool,
}

pub(super) async fn run(args: StackArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        StackCommand::Deploy(args) => deploy::run(args, client).await,
        StackCommand::Ls(args) => list::stacks(args, client).await,
        StackCommand::Ps(args) => list::tasks(args, client).await,
        StackCommand::Services(args) => list::services(args, client).await,
        StackCommand::Rm(args) => remove::run(args, client).await,
        StackCommand::Config(args) => {
            let text = compose::merged(
                &args.compose_file,
                args.env_file.as_deref(),
                args.skip_interpolation,
            )?;
            write_out(text.as_bytes())?;
            Ok(0)
        }
    }
}

/// A filter for what belongs to a stack.
fn of(stack: &str) -> Filter {
    Filter::new("label", format!("{NAMESPACE}={stack}"))
}
