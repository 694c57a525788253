//! `image prune`.

use bollard_stubs::models::ImagePruneResponse;
use clap::Args;

use super::confirm::confirm;
use super::human;
use super::list::filters;
use super::output::line;
use crate::client::Client;

/// Flags of `image prune`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio image prune -f
  nuncio image prune -a --filter until=24h")]
pub(super) struct ImagePruneArgs {
    /// Remove all that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove only those for which this holds (until=TIME, label=KEY[=VALUE])
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

const UNNAMED: &str = "WARNING! This will remove all dangling images.";
const UNUSED: &str =
    "WARNING! This will remove all images without at least one container associated to them.";

pub(super) async fn run(args: ImagePruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning = if args.all { UNUSED } else { UNNAMED };
    if !args.force && !confirm(warning)? {
        return Ok(0);
    }
    let mut wanted = args.filter;
    wanted.push(format!("dangling={}", !args.all));
    let call = client
        .post("/images/prune")
        .optional("filters", filters(&wanted)?);
    let pruned: ImagePruneResponse = call.send().await?.json().await?;
    let removed = pruned.images_deleted.unwrap_or_default();
    if !removed.is_empty() {
        line("Deleted Images:")?;
        for item in removed {
            let untagged = item.untagged.map(|name| format!("untagged: {name}"));
            let deleted = item.deleted.map(|id| format!("deleted: {id}"));
            untagged
                .iter()
                .chain(&deleted)
                .try_for_each(|text| line(text))?;
        }
        line("")?;
    }
    let reclaimed = human::size(pruned.space_reclaimed.unwrap_or_default());
    line(&format!("Total reclaimed space: {reclaimed}"))?;
    Ok(0)
}
