//! The command line of `nuncio-ambassador`: those of nuncio's commands that an ambassador by itself has a use for.

use clap::{Parser, Subcommand};

use super::Failure;
use super::ambassador::{self, ExplainArgs, FlowsArgs, TapArgs};
use crate::ambassador::{AmbassadorArgs, run as serve};

/// Carries TCP and UDP to containers, wherever they run
#[derive(Debug, Parser)]
#[command(name = "nuncio", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Sidecar {
    #[command(subcommand)]
    command: SidecarCommand,
}

const EXAMPLES: &str = "\
Examples:
  REDIS_PORT_6379_TCP=tcp://10.0.0.5:6379 nuncio ambassador
                                                    as Docker's links say it
  nuncio ambassador --config FILE --admin unix:///run/a.sock
  nuncio flows --admin unix:///run/a.sock

'nuncio COMMAND --help' tells more. What else nuncio can do is in its other program, of the same name.";

#[derive(Debug, Subcommand)]
enum SidecarCommand {
    /// Forward TCP and UDP
    Ambassador(Box<AmbassadorArgs>),
    /// List the flows that an ambassador carries, or end them
    Flows(Box<FlowsArgs>),
    /// Tell where a name leads now, and why
    Explain(ExplainArgs),
    /// Show flows as they begin and end
    Tap(TapArgs),
}

impl Sidecar {
    /// Whether this process serves others, and needs more than one thread.
    pub(crate) fn serves(&self) -> bool {
        matches!(self.command, SidecarCommand::Ambassador(_))
    }

    /// What to log unless the environment says otherwise.
    pub(crate) fn log_level(&self) -> &'static str {
        if self.serves() { "info" } else { "warn" }
    }

    /// Does what was asked; the result is the exit status.
    ///
    /// # Errors
    ///
    /// What the user is to be told.
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let code = match self.command {
            SidecarCommand::Ambassador(args) => serve(*args, None).await?,
            SidecarCommand::Flows(args) => ambassador::flows(*args, None).await?,
            SidecarCommand::Explain(args) => ambassador::explain(args, None).await?,
            SidecarCommand::Tap(args) => ambassador::tap(args, None).await?,
        };
        Ok(code)
    }
}
