//! `swarm`: Docker's words for what `init`, `join`, `token` and `leave` do.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{mesh, token};
use crate::client::Client;

/// `nuncio swarm`.
#[derive(Args, Debug)]
#[command(
    after_help = "A mesh is made, joined and left while no daemon runs; `nuncio daemon` then takes part in it.

Examples:
  nuncio swarm init --advertise-addr 10.0.0.1          as nuncio init
  nuncio swarm join --token TOKEN 10.0.0.1:2379        as nuncio join TOKEN 10.0.0.1:2379
  nuncio swarm join-token worker                       as nuncio token create"
)]
pub(super) struct SwarmArgs {
    #[command(subcommand)]
    pub(super) command: SwarmCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SwarmCommand {
    /// Make a mesh, whose first node is this host
    Init(mesh::InitArgs),
    /// Join a mesh by a token
    Join(JoinArgs),
    /// Leave the mesh
    Leave(mesh::LeaveArgs),
    /// Make a token, and show the command that joins by it
    JoinToken(JoinTokenArgs),
    /// Refused: tells where each setting is
    Update(AnyArgs),
    /// Refused: tells where certificates are shown and renewed
    Ca(AnyArgs),
    /// Refused: nothing is locked
    Unlock(AnyArgs),
    /// Refused: nothing is locked
    UnlockKey(AnyArgs),
}

#[derive(Args, Debug)]
pub(super) struct JoinArgs {
    /// As `nuncio init` or `nuncio token create` printed it
    #[arg(long, value_name = "TOKEN")]
    token: String,

    /// The address by which other hosts reach this one (default: that of the default route)
    #[arg(long, value_name = "IP")]
    advertise_addr: Option<IpAddr>,

    /// Where images, containers and networks are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nuncio")]
    data_root: PathBuf,

    /// The mesh's manager
    #[arg(value_name = "HOST[:PORT]")]
    host: String,
}

#[derive(Args, Debug)]
pub(super) struct JoinTokenArgs {
    /// Print the token alone
    #[arg(short, long)]
    quiet: bool,

    /// Have all tokens of before let in nobody any more
    #[arg(long)]
    rotate: bool,

    /// worker; there is no other role to join as
    #[arg(value_name = "ROLE", value_parser = ["worker", "manager"])]
    role: String,
}

/// Whatever is asked for is refused.
#[derive(Args, Debug)]
pub(super) struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    any: Vec<String>,
}

impl SwarmArgs {
    /// Whether it is done without a daemon.
    pub(super) fn is_offline(&self) -> bool {
        !matches!(self.command, SwarmCommand::JoinToken(_))
    }
}

/// What is done without a daemon, and what is not done at all.
///
/// # Errors
///
/// As the commands by their own names, and refusals.
pub(super) async fn run_offline(command: SwarmCommand) -> anyhow::Result<u8> {
    match command {
        SwarmCommand::Init(args) => mesh::init(args).await,
        SwarmCommand::Join(args) => {
            mesh::join(mesh::JoinArgs {
                token: args.token,
                host: args.host,
                advertise_addr: args.advertise_addr,
                data_root: args.data_root,
            })
            .await
        }
        SwarmCommand::Leave(args) => mesh::leave(&args),
        SwarmCommand::JoinToken(_) => bail!("a daemon makes tokens"),
        SwarmCommand::Update(_) => bail!(
            "swarm update: not built: `nuncio init --cert-expiry` says how long certificates are good, and nothing is locked"
        ),
        SwarmCommand::Ca(_) => bail!(
            "swarm ca: not built: nodes' certificates are renewed by themselves, `nuncio cert` makes those of operators, and another authority is another mesh"
        ),
        SwarmCommand::Unlock(_) | SwarmCommand::UnlockKey(_) => bail!(
            "swarm unlock: not built: nothing is locked; keys lie in the data directory, for root alone"
        ),
    }
}

/// `swarm join-token`.
///
/// # Errors
///
/// A role that is none, and the daemon's words.
pub(super) async fn join_token(args: JoinTokenArgs, client: &Client) -> anyhow::Result<u8> {
    if args.role == "manager" {
        bail!(
            "there are no tokens for managers: any node may decide for all what runs where; use `nuncio swarm join-token worker`"
        );
    }
    token::make(args.quiet, args.rotate, client).await
}
