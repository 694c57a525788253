//! `pause` and `unpause`.

use clap::Args;

use super::failure::each;
use super::output::line;
use crate::client::Client;

/// Flags of `pause` and `unpause`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio pause web          stop its processes where they stand
  nuncio unpause web        let them go on")]
pub(super) struct PauseArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(super) async fn pause(args: PauseArgs, client: &Client) -> anyhow::Result<u8> {
    post(client, "pause", &args.containers).await
}

pub(super) async fn unpause(args: PauseArgs, client: &Client) -> anyhow::Result<u8> {
    post(client, "unpause", &args.containers).await
}

async fn post(client: &Client, action: &str, containers: &[String]) -> anyhow::Result<u8> {
    each(containers, async |container| {
        client
            .post(&format!("/containers/{container}/{action}"))
            .send()
            .await?;
        line(container)
    })
    .await
}
