//! `network prune`.

use bollard_stubs::models::NetworkPruneResponse;
use clap::Args;

use super::confirm::confirm;
use super::disk::gone;
use super::list::filters;
use crate::client::Client;

/// Flags of `network prune`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio network prune -f
  nuncio network prune --filter label=stage=test")]
pub(super) struct NetworkPruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove only those for which this holds (label=KEY[=VALUE])
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

const UNUSED: &str =
    "WARNING! This will remove all custom networks not used by at least one container.";

pub(super) async fn run(args: NetworkPruneArgs, client: &Client) -> anyhow::Result<u8> {
    if args.force || confirm(UNUSED)? {
        prune_networks(&args.filter, client).await?;
    }
    Ok(0)
}

/// Removes the networks that no container uses and for which `given` holds, and lists them.
pub(super) async fn prune_networks(given: &[String], client: &Client) -> anyhow::Result<()> {
    let call = client.post("/networks/prune");
    let answer = call.optional("filters", filters(given)?).send().await?;
    let pruned: NetworkPruneResponse = answer.json().await?;
    gone(
        "Deleted Networks:",
        &pruned.networks_deleted.unwrap_or_default(),
    )
}
