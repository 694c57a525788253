//! Removing a container: what it held of the host, its record and its files.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::container::{Container, RECORD, locked};
use super::end::await_end;
use super::mount::MountPoint;
use super::record::Phase;
use super::refusal::Refusal;
use super::{Daemon, state_file};

impl Daemon {
    /// Removes a container; one that runs only with `force`.
    pub(crate) async fn remove(
        &self,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> anyhow::Result<()> {
        let _turn = loop {
            if container.is_running() || container.is_restarting() {
                if !force {
                    return Err(still_there(container).into());
                }
                self.kill_to_remove(container).await?;
            }
            let turn = container.turn.lock().await;
            if container.status().borrow().removed {
                return Ok(()); // by --rm, meanwhile
            }
            if !container.is_running() {
                break turn;
            }
            // Somebody, or its policy, started it meanwhile.
        };
        container.set_status(|status| status.restarting = false);
        self.tear_down(container).await?;
        self.discard(container, volumes).await
    }

    /// Kills a container, or lets one that is ending by itself come to its end.
    async fn kill_to_remove(&self, container: &Arc<Container>) -> anyhow::Result<()> {
        match self.kill(container, "KILL").await {
            Err(error) if Refusal::is_conflict(&error) => await_end(container).await,
            killed => killed,
        }
    }

    /// Removes a container that does not run: directory, addresses, name, and with `volumes` those that have no name.
    pub(super) async fn discard(
        &self,
        container: &Arc<Container>,
        volumes: bool,
    ) -> anyhow::Result<()> {
        let mounts = container.view().mounts;
        let mut own = mounts.iter().filter_map(MountPoint::volume);
        let volumes = volumes && own.any(|volume| volume.anonymous);
        if volumes {
            // Whatever happens now, the next daemon goes on with it.
            container.update(|record| record.removing = true)?;
        }
        locked(&self.addresses).release(&container.id)?;
        let removed = match volumes {
            true => self.remove_anonymous(&mounts).await,
            false => Ok(()),
        };
        remove_directory(container.directory.clone()).await?;
        state_file::remove(&container.run_directory)?;
        self.forget_container(&container.id);
        self.release_unused_links()?;
        self.tell(container, "destroy");
        container.set_status(|status| (status.removed, status.restarting) = (true, false));
        removed
    }
}

fn still_there(container: &Container) -> Refusal {
    let (state, first) = match container.view().phase {
        Phase::Running { paused: true, .. } => ("paused", "unpause and then "),
        Phase::Restarting { .. } => ("restarting", ""),
        _ => ("running", ""),
    };
    Refusal::conflict(format!(
        "cannot remove container \"/{}\": container is {state}: {first}stop the container before removing or force remove",
        container.name()
    ))
}

/// Removes a container's directory, of which the record goes first: without it there is no container.
async fn remove_directory(directory: PathBuf) -> anyhow::Result<()> {
    let removing = tokio::task::spawn_blocking(move || {
        state_file::remove_with(&directory, &directory.join(RECORD))
            .with_context(|| format!("remove {}", directory.display()))
    });
    removing.await?
}
