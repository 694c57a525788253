//! What the last daemon left: containers that run, that have ended meanwhile, and what belongs to none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nuncio_overlay::NetNs;
use nuncio_runtime::{ConnectError, Shim};

use super::container::locked;
use super::end::clean_up;
use super::record::{Phase, Record};
use super::{Daemon, services};

impl Daemon {
    /// Finds out what became of every container while no daemon was there.
    pub(super) async fn take_over(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut dead = Vec::new();
        for container in self.containers() {
            match container.view().phase {
                Phase::Running { .. } => {}
                Phase::Restarting { .. } => {
                    container.set_status(|status| status.restarting = true);
                    dead.push((container, None));
                    continue;
                }
                Phase::Created | Phase::Exited { .. } => {
                    dead.push((container, None));
                    continue;
                }
            }
            match Shim::connect(&container.run_directory).await {
                Ok(shim) => {
                    let shim = Arc::new(shim);
                    container.set_status(|status| status.running = true);
                    container.adopt(Arc::clone(&shim)).await?;
                    self.publish(&container.view());
                    self.find_frozen(&container)?;
                    self.watch_health(&container);
                    self.watch_over(container, shim);
                }
                Err(ConnectError::Gone(status) | ConnectError::Dead(status)) => {
                    dead.push((container, Some(Some(status))));
                }
                Err(error) => {
                    tracing::warn!(
                        id = container.id,
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "lost its shim"
                    );
                    dead.push((container, Some(None)));
                }
            }
        }
        for (container, end) in dead {
            let _turn = container.turn.lock().await;
            let done = match end {
                Some(status) => self.ended(&container, status).await,
                None if container.view().config.host.auto_remove => self
                    .tear_down(&container)
                    .await
                    .and(self.discard(&container, true).await),
                None => self.tear_down(&container).await,
            };
            if container.is_restarting()
                && matches!(container.view().phase, Phase::Restarting { .. })
            {
                self.restart_later(
                    Arc::clone(&container),
                    container.pause_after(Duration::ZERO),
                );
            }
            if let Err(error) = done {
                tracing::error!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "clean up after a container"
                );
            }
        }
        self.release_orphans().await
    }

    /// Gives back what belongs to no container: run directories, namespaces and addresses that a crash left.
    async fn release_orphans(&self) -> anyhow::Result<()> {
        let known: Vec<Record> = self
            .containers()
            .iter()
            .map(|container| container.view())
            .collect();
        let is_known = |id: &str| known.iter().any(|record| record.id == id);
        for entry in std::fs::read_dir(self.options.exec_root.join("run"))? {
            let path = entry?.path();
            let id = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !is_known(&id) {
                clean_up(path).await?;
            }
        }
        for entry in std::fs::read_dir(self.options.exec_root.join("exec"))? {
            take_over_exec(entry?.path()).await?;
        }
        for entry in std::fs::read_dir(self.options.exec_root.join("netns"))? {
            let path = entry?.path();
            if !is_known(&path.file_name().unwrap_or_default().to_string_lossy()) {
                NetNs::remove(&path)?;
            }
        }
        let mut addresses = locked(&self.addresses);
        for owner in addresses.owners() {
            let stands_in = owner.starts_with("link:") || owner.starts_with(services::OWNER);
            if !stands_in && !is_known(&owner) {
                addresses.release(&owner)?;
            }
        }
        drop(addresses);
        self.release_unused_links()
    }
}

/// Lets an exec of the last daemon go on, and cleans up when it has ended. Who asked for it has lost it.
pub(super) async fn take_over_exec(run_directory: PathBuf) -> anyhow::Result<()> {
    let Ok(shim) = Shim::connect(&run_directory).await else {
        return clean_up(run_directory).await;
    };
    tokio::spawn(async move {
        let ended = match shim.wait().await {
            Ok(_) => clean_up(run_directory).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ended {
            tracing::warn!(error = format!("{error:#}"), "clean up after an exec");
        }
    });
    Ok(())
}
