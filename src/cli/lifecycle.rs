//! `stop`, `restart`, `kill` and `rename`.

use clap::Args;

use super::failure::each;
use super::output::line;
use crate::client::Client;

/// Flags of `stop`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio stop -t 30 db")]
pub(super) struct StopArgs {
    #[command(flatten)]
    how: StopFlags,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Flags of `restart`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio restart web")]
pub(super) struct RestartArgs {
    #[command(flatten)]
    how: StopFlags,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// How a container is stopped.
#[derive(Args, Debug)]
struct StopFlags {
    /// Seconds between the stop signal and SIGKILL; -1 never kills
    #[arg(
        short,
        long,
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    timeout: Option<i64>,

    /// Send this instead of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

pub(super) async fn stop(args: StopArgs, client: &Client) -> anyhow::Result<u8> {
    halt(client, "stop", &args.how, &args.containers).await
}

pub(super) async fn restart(args: RestartArgs, client: &Client) -> anyhow::Result<u8> {
    halt(client, "restart", &args.how, &args.containers).await
}

async fn halt(
    client: &Client,
    action: &str,
    how: &StopFlags,
    containers: &[String],
) -> anyhow::Result<u8> {
    each(containers, async |container| {
        let call = client.post(&format!("/containers/{container}/{action}"));
        let call = call.optional("t", how.timeout.map(|seconds| seconds.to_string()));
        call.optional("signal", how.signal.as_deref())
            .send()
            .await?;
        line(container)
    })
    .await
}

/// Flags of `kill`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio kill -s HUP web")]
pub(super) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,

    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(super) async fn kill(args: KillArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.containers, async |container| {
        client
            .post(&format!("/containers/{container}/kill"))
            .query("signal", &args.signal)
            .send()
            .await?;
        line(container)
    })
    .await
}

/// Flags of `rename`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio rename web web-old")]
pub(super) struct RenameArgs {
    #[arg(value_name = "CONTAINER")]
    container: String,

    #[arg(value_name = "NAME")]
    name: String,
}

pub(super) async fn rename(args: RenameArgs, client: &Client) -> anyhow::Result<u8> {
    let call = client.post(&format!("/containers/{}/rename", args.container));
    call.query("name", &args.name).send().await?;
    Ok(0)
}
