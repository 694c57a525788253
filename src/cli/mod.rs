//! The command line: Docker's grammar, spoken to a daemon through the Engine API.

mod ambassador;
mod archive;
mod cert;
mod changes;
mod commands;
mod commit;
mod completion;
mod compose;
mod config_file;
mod confirm;
mod container_body;
mod container_flags;
mod context;
mod cp;
mod credentials;
pub(crate) mod daemon;
mod dashboard;
mod disk;
mod doctor;
mod events;
mod exec;
mod failure;
mod frames;
mod gather;
mod grammar;
mod history;
pub(crate) mod host;
mod hosts;
mod human;
mod images;
mod import;
mod inspect;
mod lifecycle;
mod list;
mod login;
mod logs;
mod map;
mod merge;
mod mesh;
mod network;
mod network_create;
mod node;
mod output;
mod parse;
mod pause;
mod peer;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod rare_flags;
mod registry;
mod registry_migrate;
mod remove;
mod run;
mod search;
mod service;
mod session;
mod sidecar;
mod stack;
mod start;
mod stats;
mod stored;
mod swarm;
mod system;
mod table;
mod task;
mod tasks;
mod template;
mod terminal;
pub(crate) mod tls;
mod token;
mod top;
mod tunnel;
mod update;
mod usage;
mod volume;
mod wait;
mod why;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};

pub(crate) use failure::Failure;
pub(crate) use output::{line, warn};
pub(crate) use parse::{Moment, OtlpEndpoint, Span};
pub(crate) use sidecar::Sidecar;

use commands::{Command, OwnCommand};
use context::Target;
use host::Host;

/// Containers that find each other by name, on one host or on two hundred
#[derive(Debug, Parser)]
#[command(name = "nuncio", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The daemon to talk to (else NUNCIO_HOST, DOCKER_HOST, unix:///run/nuncio/nuncio.sock)
    #[arg(short = 'H', long, value_name = "unix://PATH|tcp://HOST:PORT")]
    host: Option<Host>,

    #[command(flatten)]
    tls: tls::TlsArgs,

    /// The context whose daemon to talk to (else DOCKER_CONTEXT, or what `context use` said)
    #[arg(short = 'c', long, value_name = "CONTEXT")]
    context: Option<String>,

    /// Where accounts and contexts are kept (else DOCKER_CONFIG, ~/.docker)
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,

    /// Tell what happens within
    #[arg(short = 'D', long)]
    debug: bool,

    /// How much to tell of that
    #[arg(short = 'l', long, value_name = "LEVEL", value_parser = ["debug", "info", "warn", "error", "fatal"])]
    log_level: Option<String>,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  nuncio daemon &                                   serve this host
  nuncio run -d --name db redis                     start a container
  nuncio run --rm --link db:redis redis redis-cli -h redis ping
                                                    reach it by name, from this host or another
  nuncio network create -d overlay mesh             a network across hosts
  nuncio why web db 6379                            where does the way from one to the other break?
  nuncio doctor                                     does this machine have what it takes?

'nuncio COMMAND --help' tells more, with examples.";

/// Runs the process that this one is started to be, if it is one that must stay single-threaded: a shim, or the
/// init of a container.
pub(crate) fn single_threaded() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    match args.next()?.to_str()? {
        // Without the dashes it is the command that makes a mesh.
        "init" if args.peek().is_some_and(|next| next == "--") => {
            Some(nuncio_runtime::init::main(args))
        }
        "shims" => Some(nuncio_runtime::shim::forker::main()),
        "shim" => {
            let directory = args.next().map(PathBuf::from)?;
            Some(nuncio_runtime::shim::main(&directory))
        }
        _ => None,
    }
}

/// Parses the arguments of the process.
///
/// # Errors
///
/// The exit status, when help is printed or the arguments are wrong; the user has been told.
pub(crate) fn parse<C: Parser>(args: impl Iterator<Item = OsString>) -> Result<C, ExitCode> {
    let mut command = C::command();
    command.build();
    let args = args
        .skip(1)
        .map(|arg| arg.into_string().map_err(|arg| usage::not_unicode(&arg)))
        .collect::<Result<Vec<_>, _>>()?;
    let normal = grammar::normalise(&command, args);
    let parsed = command
        .try_get_matches_from_mut(
            std::iter::once("nuncio".to_owned()).chain(normal.iter().cloned()),
        )
        .and_then(|matches| C::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(cli),
        Err(error) => Err(usage::report(&error, &command, &normal)),
    }
}

impl Cli {
    /// Whether this process makes cgroups, or looks whether it could: under `ip netns exec` they are hidden from it.
    pub(crate) fn manages_containers(&self) -> bool {
        matches!(
            self.command,
            Command::Own(OwnCommand::Daemon(_) | OwnCommand::Doctor(_))
        )
    }

    /// Whether this process serves others, and needs more than one thread.
    pub(crate) fn serves(&self) -> bool {
        matches!(
            self.command,
            Command::Own(OwnCommand::Daemon(_) | OwnCommand::Ambassador(_))
        )
    }

    /// What to log unless the environment says otherwise.
    pub(crate) fn log_level(&self) -> &str {
        match &self.command {
            Command::Own(OwnCommand::Daemon(args)) => args.log_level(),
            Command::Own(OwnCommand::Ambassador(_)) => "info",
            // The protocol's own log tells of each host that is away, again and again.
            Command::Own(OwnCommand::Tunnel(_)) => "info,boringtun=off",
            _ if self.debug => "debug",
            _ => match self.log_level.as_deref() {
                Some("fatal") => "error",
                level => level.unwrap_or("warn"),
            },
        }
    }

    /// Does what was asked; the result is the exit status.
    ///
    /// # Errors
    ///
    /// What the user is to be told.
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        if let Some(directory) = self.config {
            config_file::choose(directory);
        }
        let target = Target {
            host: self.host,
            context: self.context,
            tls: self.tls,
        };
        self.command.run(&target).await
    }
}

/// The whole tree of commands, for completion scripts.
fn tree() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests;
