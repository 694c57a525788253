//! Waiting for containers to end.

use anyhow::bail;
use bollard_stubs::models::ContainerWaitResponse;
use clap::Args;

use super::failure::each;
use super::output::line;
use crate::client::{Answer, Client, ClientError};

/// What a container is waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

/// A container's exit, which the daemon has been asked to tell.
pub(super) struct Exit(Answer);

impl Exit {
    /// Asks. When this returns, no exit can be missed.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if there is no such container.
    pub(super) async fn watch(
        client: &Client,
        container: &str,
        condition: Condition,
    ) -> Result<Self, ClientError> {
        let condition = match condition {
            Condition::NotRunning => "not-running",
            Condition::NextExit => "next-exit",
            Condition::Removed => "removed",
        };
        let call = client
            .post(&format!("/containers/{container}/wait"))
            .query("condition", condition);
        call.send().await.map(Self)
    }

    /// Waits for it.
    ///
    /// # Errors
    ///
    /// What the daemon says if it cannot tell, or breaks off.
    pub(super) async fn status(self) -> anyhow::Result<i64> {
        let answer: ContainerWaitResponse = self.0.json().await?;
        if let Some(message) = answer.error.and_then(|error| error.message) {
            bail!("Error waiting for container: {message}");
        }
        Ok(answer.status_code)
    }

    /// Waits for it, and makes it an exit status of ours.
    ///
    /// # Errors
    ///
    /// As [`Exit::status`].
    pub(super) async fn code(self) -> anyhow::Result<u8> {
        // the kernel keeps the low eight bits too
        Ok((self.status().await? & 0xff) as u8)
    }
}

/// Flags of `wait`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio wait job && nuncio logs job")]
pub(super) struct WaitArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Prints the exit status of each container, as they end.
pub(super) async fn wait(args: WaitArgs, client: &Client) -> anyhow::Result<u8> {
    each(&args.containers, async |container| {
        let exit = Exit::watch(client, container, Condition::NotRunning).await?;
        line(&exit.status().await?.to_string())
    })
    .await
}
