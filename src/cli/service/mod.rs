//! `service`: tasks that are run on whatever nodes fit, and kept running; and what nuncio does not run but leads to.

mod catalog;
mod change;
mod create;
mod flags;
mod inspect;
mod list;
mod logs;
pub(super) mod pretty;
mod progress;
pub(super) mod references;
mod spec;
mod update;
pub(super) mod wire;

use clap::{Args, Subcommand};

use super::failure::each;
use super::output::line;
use super::tasks;
use crate::client::Client;

pub(super) use create::{capabilities, some_list};
pub(super) use list::{ListedFlags, print as print_list, services, with_status, without_digest};
pub(super) use progress::wait;

/// `nuncio service`.
#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Make a service: so many tasks, or one on each node
    Create(Box<create::CreateArgs>),
    /// List services
    #[command(visible_alias = "list")]
    Ls(list::LsArgs),
    /// List the tasks of services
    Ps(PsArgs),
    /// Show all there is to know of services
    Inspect(inspect::InspectArgs),
    /// Show what the tasks of a service, or one task, printed
    Logs(logs::LogsArgs),
    /// Say how many tasks services are to have
    Scale(update::ScaleArgs),
    /// Change a service, task by task
    Update(Box<update::UpdateArgs>),
    /// Go back to the specification before the last update
    Rollback(update::RollbackArgs),
    /// Remove services and their tasks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Register a service that nuncio does not run, for links, ambassadors and names to lead to it
    Register(catalog::RegisterArgs),
    /// Take such services back
    Deregister(catalog::DeregisterArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio service ps -f desired-state=running web")]
struct PsArgs {
    #[command(flatten)]
    flags: tasks::TaskFlags,

    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

#[derive(Args, Debug)]
struct RmArgs {
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
}

pub(super) async fn run(args: ServiceArgs, client: &Client) -> anyhow::Result<u8> {
    match args.command {
        ServiceCommand::Create(args) => create::run(*args, client).await,
        ServiceCommand::Ls(args) => list::run(args, client).await,
        ServiceCommand::Ps(args) => tasks::of_services(&args.services, &args.flags, client).await,
        ServiceCommand::Inspect(args) => inspect::run(args, client).await,
        ServiceCommand::Logs(args) => logs::run(args, client).await,
        ServiceCommand::Scale(args) => update::scale(args, client).await,
        ServiceCommand::Update(args) => update::update(*args, client).await,
        ServiceCommand::Rollback(args) => update::rollback(args, client).await,
        ServiceCommand::Rm(args) => {
            each(&args.services, async |service: &String| {
                client
                    .delete(&format!("/services/{service}"))
                    .send()
                    .await?;
                line(service)
            })
            .await
        }
        ServiceCommand::Register(args) => catalog::register(args, client).await,
        ServiceCommand::Deregister(args) => catalog::deregister(args, client).await,
    }
}
