//! `stack rm`.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::{of, tasks, warn};
use crate::cli::failure::complain;
use crate::cli::list::filters;
use crate::cli::output::line;
use crate::client::{Client, ClientError};

/// Flags of `stack rm`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio stack rm shop       takes its services, networks, secrets and configs; volumes stay")]
pub(super) struct RmArgs {
    /// Return at once, rather than when no task is left (true)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    detach: Option<bool>,

    #[arg(value_name = "STACK", required = true)]
    stacks: Vec<String>,
}

/// Between two looks whether tasks are left.
const PAUSE: Duration = Duration::from_millis(200);
/// How long tasks may take to leave a network.
const LEAVING: Duration = Duration::from_secs(60);

pub(super) async fn run(args: RmArgs, client: &Client) -> anyhow::Result<u8> {
    let mut code = 0;
    for stack in &args.stacks {
        match remove(stack, client).await {
            Ok(0) => warn(&format!("Nothing found in stack: {stack}")),
            Ok(_) if args.detach == Some(false) => {
                while !tasks::tasks(&[of(stack)], client).await?.is_empty() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(_) => {}
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Removes all that belongs to a stack. How much that was.
async fn remove(stack: &str, client: &Client) -> anyhow::Result<usize> {
    let mut all = Vec::new();
    // A network goes when nothing is on it any more.
    for kind in ["service", "secret", "config", "network"] {
        for one in belongings(kind, stack, client).await? {
            all.push((kind, one));
        }
    }
    let mut failed = Vec::new();
    for (kind, (id, name)) in &all {
        line(&format!("Removing {kind} {name}"))?;
        if let Err(error) = remove_one(kind, id, client).await {
            warn(&format!("Failed to remove {kind} {name}: {error}"));
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!(
            "failed to remove some resources from stack {stack}: {}",
            failed.join(", ")
        );
    }
    Ok(all.len())
}

/// Removes something; that it is gone already is as good.
async fn remove_one(kind: &str, id: &str, client: &Client) -> Result<(), ClientError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        match client.delete(&format!("/{kind}s/{id}")).send().await {
            Err(error) if error.is_not_found() => return Ok(()),
            // Tasks that are on their way out are still on it.
            Err(ClientError::Refused { .. }) if kind == "network" && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer.map(drop),
        }
    }
}

/// What of a kind belongs to a stack: ids and names.
pub(super) async fn belongings(
    kind: &str,
    stack: &str,
    client: &Client,
) -> anyhow::Result<Vec<(String, String)>> {
    let call = client
        .get(&format!("/{kind}s"))
        .optional("filters", filters(&[of(stack)]));
    let found: Vec<Value> = match call.send().await {
        // A daemon that has no such things has none of a stack.
        Err(error) if error.is_not_built() => Vec::new(),
        answer => answer?.json().await?,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut found: Vec<_> = found
        .iter()
        .filter_map(|one| {
            let id = text(&one["ID"]).or_else(|| text(&one["Id"]))?;
            let name = text(&one["Spec"]["Name"]).or_else(|| text(&one["Name"]));
            Some((id.clone(), name.unwrap_or(id)))
        })
        .collect();
    found.sort_by(|one, other| one.1.cmp(&other.1));
    Ok(found)
}
