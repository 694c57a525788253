//! `compose down`.

use clap::Args;
use serde_json::Value;

use super::command::of;
use super::file::Project;
use super::up::{containers, tell};
use crate::cli::list::filters;
use crate::cli::output::warn;
use crate::client::Client;

/// Flags of `compose down`.
#[derive(Args, Debug)]
pub(super) struct DownArgs {
    /// Remove the volumes of the file, and anonymous ones
    #[arg(short, long)]
    volumes: bool,

    /// Remove containers of services that the file does not have, too
    #[arg(long)]
    remove_orphans: bool,

    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<i64>,
}

pub(super) async fn run(args: DownArgs, project: &Project, client: &Client) -> anyhow::Result<u8> {
    let name = project.name.as_deref().unwrap_or_default();
    let found = containers(name, client).await?.into_iter();
    let gone: Vec<_> = found
        .filter(|one| args.remove_orphans || project.services.contains_key(&one.service))
        .collect();
    if gone.is_empty() {
        warn(&format!(
            "Warning: No resource found to remove for project \"{name}\"."
        ));
    }
    // All are stopped at once: they may wait for each other.
    let stops = gone.iter().map(|one| async {
        let call = client.post(&format!("/containers/{}/stop", one.id));
        let timeout = args.timeout.map(|seconds| seconds.to_string());
        call.optional("t", timeout).send().await
    });
    for (one, stopped) in gone.iter().zip(futures_util::future::join_all(stops).await) {
        match stopped {
            Err(error) if error.is_not_found() => {}
            answer => {
                answer?;
                tell("Container", &one.name, "Stopped");
            }
        }
    }
    for one in &gone {
        let call = client.delete(&format!("/containers/{}", one.id));
        match call
            .flag("force", true)
            .flag("v", args.volumes)
            .send()
            .await
        {
            Err(error) if error.is_not_found() => {}
            answer => drop(answer?),
        }
        tell("Container", &one.name, "Removed");
    }
    remove("Network", "/networks", name, client).await?;
    if args.volumes {
        remove("Volume", "/volumes", name, client).await?;
    }
    Ok(0)
}

/// Removes all networks or volumes of a project.
async fn remove(kind: &str, path: &str, project: &str, client: &Client) -> anyhow::Result<()> {
    let call = client
        .get(path)
        .optional("filters", filters(&[of(project)]));
    let answer: Value = call.send().await?.json().await?;
    let found = answer.as_array().or_else(|| answer["Volumes"].as_array());
    for one in found.into_iter().flatten() {
        let name = one["Name"].as_str().unwrap_or_default();
        match client.delete(&format!("{path}/{name}")).send().await {
            Ok(_) => tell(kind, name, "Removed"),
            Err(error) if error.is_not_found() => {}
            Err(error) => tell(kind, name, &format!("is left: {error}")),
        }
    }
    Ok(())
}
