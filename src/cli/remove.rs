//! `rm` and `rmi`.

use bollard_stubs::models::ImageDeleteResponseItem;
use clap::Args;

use super::failure::each;
use super::output::line;
use crate::client::{Client, ClientError};

/// Flags of `rm`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio rm -f web
  nuncio rm --link web/redis        takes the link away, not the container")]
pub(super) struct RmArgs {
    /// Kill it if it runs; do not mind if there is none
    #[arg(short, long)]
    force: bool,

    /// Remove its anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,

    /// Remove the link that has this name
    #[arg(short, long)]
    link: bool,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(super) async fn containers(args: RmArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.containers, async |container| {
        let call = client.delete(&format!(
            "/containers/{}",
            container.trim_start_matches('/')
        ));
        let call = call
            .flag("force", args.force)
            .flag("v", args.volumes)
            .flag("link", args.link);
        match call.send().await {
            Err(error) if args.force && error.is_not_found() => Ok(()),
            answer => {
                answer?;
                line(container)
            }
        }
    })
    .await
}

/// Flags of `rmi`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio rmi redis:6")]
pub(super) struct RmiArgs {
    /// Remove it though containers use it
    #[arg(short, long)]
    force: bool,

    /// Keep parents that have no name
    #[arg(long)]
    no_prune: bool,

    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub(super) async fn images(args: RmiArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.images, async |image| {
        let call = client
            .delete(&format!("/images/{image}"))
            .flag("force", args.force)
            .flag("noprune", args.no_prune);
        let answer = match call.send().await {
            Err(error @ ClientError::Refused { .. }) if args.force && error.is_not_found() => {
                return Ok(());
            }
            answer => answer?,
        };
        let removed: Vec<ImageDeleteResponseItem> = answer.json().await?;
        for item in removed {
            item.untagged
                .iter()
                .try_for_each(|name| line(&format!("Untagged: {name}")))?;
            item.deleted
                .iter()
                .try_for_each(|id| line(&format!("Deleted: {id}")))?;
        }
        Ok(())
    })
    .await
}
