//! Waiting until a service's tasks are as they are to be, and showing how it goes.

mod board;
mod display;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use bollard_stubs::models::{
    Node, NodeState, ServiceUpdateStatus, ServiceUpdateStatusStateEnum as State, Task,
};
use serde_json::json;

use super::wire;
use crate::client::Client;
use board::Board;
use display::Display;

/// How often is looked.
const PAUSE: Duration = Duration::from_millis(200);
/// How long tasks must run on, unless the service says so.
const MONITOR: Duration = Duration::from_secs(5);

/// Waits until all tasks run and have done so for as long as failures are watched for; jobs, until they are done. A
/// SIGINT ends the waiting alone.
///
/// # Errors
///
/// An update that was paused.
pub(in crate::cli) async fn wait(client: &Client, id: &str, quiet: bool) -> anyhow::Result<u8> {
    let mut display = Display::new(quiet);
    let waited = converge(client, id, &mut display).await;
    display.finish();
    waited?;
    Ok(0)
}

async fn converge(client: &Client, id: &str, display: &mut Display) -> anyhow::Result<()> {
    let mut board = Board::default();
    let mut rollback = Rollback::default();
    let mut since: Option<Instant> = None;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let service = wire::service(client, id).await?;
        let spec = service.spec.as_ref();
        let monitor = spec
            .and_then(|spec| spec.update_config.as_ref()?.monitor)
            .and_then(|nanos| u64::try_from(nanos).ok())
            .filter(|nanos| *nanos > 0)
            .map_or(MONITOR, Duration::from_nanos);
        if let Some(status) = &service.update_status
            && rollback.follow(status, since.is_some(), display)?
        {
            return Ok(());
        }
        if since.is_some_and(|since| since.elapsed() >= monitor) {
            display.tell("verify", &format!("Service {id} converged"))?;
            if let Some(message) = &rollback.message {
                display.tell("rollback", message)?;
            }
            return Ok(());
        }
        let filters = json!({"service": [service.id], "_up-to-date": ["true"]});
        let call = client.get("/tasks").query("filters", filters.to_string());
        let tasks: Vec<Task> = call.send().await?.json().await?;
        let look = board.look(
            &service,
            &tasks,
            &active_nodes(client).await?,
            rollback.is_on,
        )?;
        display.show(&look.rows)?;
        if look.converged && service.job_status.is_some() {
            return display.say("job complete");
        }
        if look.converged {
            let since = since.get_or_insert_with(Instant::now);
            let left = monitor.saturating_sub(since.elapsed()).as_secs() + 1;
            let text = format!("Waiting {left} seconds to verify that tasks are stable...");
            display.tell("verify", &text)?;
        } else if since.take().is_some() {
            display.tell("verify", "Detected task failure")?;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = &mut interrupted => {
                if since.is_none() {
                    display.say("Operation continuing in background.")?;
                    display.say(&format!("Use `nuncio service ps {id}` to check progress."))?;
                }
                return Ok(());
            }
        }
    }
}

async fn active_nodes(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let nodes: Vec<Node> = client.get("/nodes").send().await?.json().await?;
    let is_up = |node: &Node| {
        let state = node.status.as_ref().and_then(|status| status.state);
        state != Some(NodeState::DOWN)
    };
    Ok(nodes
        .into_iter()
        .filter(is_up)
        .filter_map(|node| node.id)
        .collect())
}

/// Whether an update is being taken back, and what that said at its end.
#[derive(Default)]
struct Rollback {
    is_on: bool,
    message: Option<String>,
}

impl Rollback {
    /// Takes in how an update goes. Whether it is over without anything to verify.
    fn follow(
        &mut self,
        status: &ServiceUpdateStatus,
        converged: bool,
        display: &mut Display,
    ) -> anyhow::Result<bool> {
        let message = status.message.clone().unwrap_or_default();
        match status.state {
            Some(State::UPDATING) => self.is_on = false,
            Some(State::COMPLETED) => return Ok(!converged),
            Some(State::PAUSED) => bail!("service update paused: {message}"),
            Some(State::ROLLBACK_STARTED) => {
                if !self.is_on && !message.is_empty() {
                    display.tell("rollback", &message)?;
                }
                self.is_on = true;
            }
            Some(State::ROLLBACK_PAUSED) => bail!("service rollback paused: {message}"),
            Some(State::ROLLBACK_COMPLETED) => {
                if !converged {
                    self.message = Some(message);
                }
                self.is_on = true;
            }
            _ => {}
        }
        Ok(false)
    }
}
