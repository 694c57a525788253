//! The prunes: giving back what nothing needs.

use bollard_stubs::models::{
    ContainerPruneResponse, ImagePruneResponse, NetworkPruneResponse, VolumePruneResponse,
};
use clap::Args;
use serde_json::Value;

use super::confirm::confirm;
use super::human;
use super::list::filters;
use super::output::line;
use super::parse::Filter;
use crate::client::Client;

/// What all prunes have.
#[derive(Args, Debug)]
pub(super) struct PruneFlags {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove only those for which this holds (until=TIME, label=KEY[=VALUE])
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
}

impl PruneFlags {
    /// Whether the user wants it, having read `warning`.
    fn is_wanted(&self, warning: &str) -> anyhow::Result<bool> {
        Ok(self.force || confirm(warning)?)
    }
}

/// Flags of `container prune`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio container prune -f --filter until=24h")]
pub(super) struct ContainerPruneArgs {
    #[command(flatten)]
    flags: PruneFlags,
}

pub(super) async fn containers(args: ContainerPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning = "WARNING! This will remove all stopped containers.";
    if !args.flags.is_wanted(warning)? {
        return Ok(0);
    }
    told(containers_gone(&args.flags.filter, client).await?)
}

/// Flags of `network prune`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio network prune -f
  nuncio network prune --filter label=stage=test")]
pub(super) struct NetworkPruneArgs {
    #[command(flatten)]
    flags: PruneFlags,
}

pub(super) async fn networks(args: NetworkPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if args.flags.is_wanted(warning)? {
        networks_gone(&args.flags.filter, client).await?;
    }
    Ok(0)
}

/// Flags of `image prune`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio image prune -f
  nuncio image prune -a --filter until=24h")]
pub(super) struct ImagePruneArgs {
    /// Remove all that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,

    #[command(flatten)]
    flags: PruneFlags,
}

pub(super) async fn images(args: ImagePruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning = match args.all {
        true => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        false => "WARNING! This will remove all dangling images.",
    };
    if !args.flags.is_wanted(warning)? {
        return Ok(0);
    }
    told(images_gone(args.all, &args.flags.filter, client).await?)
}

/// Flags of `volume prune`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio volume prune -f --filter label!=keep")]
pub(super) struct VolumePruneArgs {
    /// Those that have a name, too
    #[arg(short, long)]
    all: bool,

    #[command(flatten)]
    flags: PruneFlags,
}

pub(super) async fn volumes(args: VolumePruneArgs, client: &Client) -> anyhow::Result<u8> {
    let which = if args.all { "all" } else { "anonymous" };
    let warning = format!(
        "WARNING! This will remove {which} local volumes not used by at least one container."
    );
    if !args.flags.is_wanted(&warning)? {
        return Ok(0);
    }
    told(volumes_gone(args.all, &args.flags.filter, client).await?)
}

/// Flags of `builder prune`.
#[derive(Args, Debug)]
pub(super) struct BuilderPruneArgs {
    /// All of it
    #[arg(short, long)]
    all: bool,

    /// How much of it to keep
    #[arg(long, value_name = "BYTES")]
    keep_storage: Option<String>,

    #[command(flatten)]
    flags: PruneFlags,
}

/// Asks for it, as scripts do; there is no cache of builds.
pub(super) async fn builds(args: BuilderPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let warning = "WARNING! This will remove all dangling build cache.";
    if !args.flags.is_wanted(warning)? {
        return Ok(0);
    }
    let answer = client.post("/build/prune").send().await?;
    let pruned: Value = answer.json().await?;
    line(&format!(
        "Total:\t{}",
        human::size(pruned["SpaceReclaimed"].as_i64().unwrap_or_default())
    ))?;
    Ok(0)
}

/// Flags of `system prune`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio system prune -af --volumes")]
pub(super) struct SystemPruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,

    /// Anonymous volumes, too
    #[arg(long)]
    volumes: bool,

    #[command(flatten)]
    flags: PruneFlags,
}

pub(super) async fn everything(args: SystemPruneArgs, client: &Client) -> anyhow::Result<u8> {
    let given = &args.flags.filter;
    let until = given.iter().any(|filter| filter.key == "until");
    if args.volumes && until {
        anyhow::bail!("ERROR: The \"until\" filter is not supported with \"--volumes\"");
    }
    if !args.flags.is_wanted(&warning(&args))? {
        return Ok(0);
    }
    let mut reclaimed = containers_gone(given, client).await?;
    networks_gone(given, client).await?;
    if args.volumes {
        reclaimed += volumes_gone(false, given, client).await?;
    }
    reclaimed += images_gone(args.all, given, client).await?;
    told(reclaimed)
}

fn warning(args: &SystemPruneArgs) -> String {
    let mut warning = "WARNING! This will remove:
  - all stopped containers
  - all networks not used by at least one container\n"
        .to_owned();
    if args.volumes {
        warning.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    warning.push_str(match args.all {
        true => "  - all images without at least one container associated to them\n",
        false => "  - all dangling images\n",
    });
    if !args.flags.filter.is_empty() {
        let filters: Vec<_> = args.flags.filter.iter().map(Filter::to_string).collect();
        let filters = filters.join(", ");
        warning.push_str(&format!(
            "\n  Items to be pruned will be filtered with:\n  - {filters}\n"
        ));
    }
    warning
}

async fn containers_gone(given: &[Filter], client: &Client) -> anyhow::Result<i64> {
    let call = client.post("/containers/prune");
    let answer = call.optional("filters", filters(given)).send().await?;
    let pruned: ContainerPruneResponse = answer.json().await?;
    gone(
        "Deleted Containers:",
        &pruned.containers_deleted.unwrap_or_default(),
    )?;
    Ok(pruned.space_reclaimed.unwrap_or_default())
}

async fn networks_gone(given: &[Filter], client: &Client) -> anyhow::Result<()> {
    let call = client.post("/networks/prune");
    let answer = call.optional("filters", filters(given)).send().await?;
    let pruned: NetworkPruneResponse = answer.json().await?;
    gone(
        "Deleted Networks:",
        &pruned.networks_deleted.unwrap_or_default(),
    )
}

async fn volumes_gone(all: bool, given: &[Filter], client: &Client) -> anyhow::Result<i64> {
    let mut given = given.to_vec();
    given.extend(all.then(|| Filter::new("all", "true")));
    let call = client.post("/volumes/prune");
    let answer = call.optional("filters", filters(&given)).send().await?;
    let pruned: VolumePruneResponse = answer.json().await?;
    gone(
        "Deleted Volumes:",
        &pruned.volumes_deleted.unwrap_or_default(),
    )?;
    Ok(pruned.space_reclaimed.unwrap_or_default())
}

async fn images_gone(all: bool, given: &[Filter], client: &Client) -> anyhow::Result<i64> {
    let mut given = given.to_vec();
    given.push(Filter::new("dangling", (!all).to_string()));
    let call = client.post("/images/prune");
    let answer = call.optional("filters", filters(&given)).send().await?;
    let pruned: ImagePruneResponse = answer.json().await?;
    let items = pruned.images_deleted.unwrap_or_default().into_iter();
    let names: Vec<String> = items
        .flat_map(|item| {
            let untagged = item.untagged.map(|name| format!("untagged: {name}"));
            untagged
                .into_iter()
                .chain(item.deleted.map(|id| format!("deleted: {id}")))
        })
        .collect();
    gone("Deleted Images:", &names)?;
    Ok(pruned.space_reclaimed.unwrap_or_default())
}

fn gone(title: &str, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    line(title)?;
    names.iter().try_for_each(|name| line(name))?;
    line("")
}

fn told(reclaimed: i64) -> anyhow::Result<u8> {
    line(&format!(
        "Total reclaimed space: {}",
        human::size(reclaimed)
    ))?;
    Ok(0)
}
