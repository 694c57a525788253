//! What the last daemon left: containers that run, that have ended meanwhile, and what belongs to none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use nuncio_overlay::NetNs;
use nuncio_runtime::{ConnectError, ExitStatus, Shim};

use super::container::{Container, locked};
use super::end::clean_up;
use super::record::{Phase, Record};
use super::restart::Patience;
use super::{Daemon, services};

/// Shims that are asked at the same time. Each takes two descriptors.
const AT_ONCE: usize = 32;

/// Since when a container does not run.
enum End {
    /// It had ended when the last daemon did.
    Before,
    /// It has ended since. Nobody knows how if its shim has left no word.
    Meanwhile(Option<ExitStatus>),
}

impl Daemon {
    /// Finds out what became of every container while no daemon was there.
    pub(super) async fn take_over(self: &Arc<Self>) -> anyhow::Result<()> {
        // Several at once: a shim that does not answer keeps few others waiting.
        let shims = self.containers().into_iter().map(async |container| {
            let shim = match container.view().phase {
                Phase::Running { .. } => Some(Shim::connect(&container.run_directory).await),
                Phase::Created | Phase::Restarting { .. } | Phase::Exited { .. } => None,
            };
            (container, shim)
        });
        let mut dead = Vec::new();
        let mut shims = stream::iter(shims).buffered(AT_ONCE);
        while let Some((container, shim)) = shims.next().await {
            let found = match shim {
                Some(connected) => self.take_over_running(&container, connected).await?,
                None => Some(End::Before),
            };
            dead.extend(found.map(|end| (container, end)));
        }
        for (container, end) in dead {
            let _turn = container.turn.lock().await;
            let waits = matches!(container.view().phase, Phase::Restarting { .. });
            container.set_status(|status| status.restarting = waits);
            let done = match end {
                End::Meanwhile(status) => self.ended(&container, status, Patience::Many).await,
                End::Before => self.take_over_idle(&container).await,
            };
            if waits {
                self.restart_later(
                    Arc::clone(&container),
                    container.pause_after(Duration::ZERO),
                    Patience::Many,
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

    /// Makes a shim that is there this daemon's; how its process ended if it is not.
    async fn take_over_running(
        self: &Arc<Self>,
        container: &Arc<Container>,
        connected: Result<Shim, ConnectError>,
    ) -> anyhow::Result<Option<End>> {
        let shim = match connected {
            Ok(shim) => Arc::new(shim),
            Err(ConnectError::Slow(shim)) => {
                tracing::warn!(id = container.id, "its shim does not answer yet");
                Arc::new(shim)
            }
            Err(ConnectError::Gone(status) | ConnectError::Dead(status)) => {
                return Ok(Some(End::Meanwhile(Some(status))));
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(id = container.id, error, "lost its shim");
                return Ok(Some(End::Meanwhile(None)));
            }
        };
        container.set_status(|status| status.running = true);
        container.adopt(Arc::clone(&shim)).await?;
        self.take_over_health(container);
        self.publish(&container.view());
        self.settle_pause(container).await?;
        self.watch_over(Arc::clone(container), shim);
        Ok(None)
    }

    /// Goes on with what the last daemon was about to do with a container that does not run.
    async fn take_over_idle(&self, container: &Arc<Container>) -> anyhow::Result<()> {
        let torn_down = self.give_back(container, false).await;
        let record = container.view();
        if record.removing || record.config.host.auto_remove {
            return torn_down.and(self.discard(container, true).await);
        }
        if record.unprepared {
            let image = self.find_image(&record.image_id).await?;
            self.prepare_mounts(container, &image).await?;
        }
        torn_down
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
        self.release_task_files(is_known)?;
        let mut addresses = locked(&self.addresses);
        for network in addresses.networks() {
            let is_local = locked(&self.local_networks).contains_key(&network);
            if !is_local && self.own_blocks(&network).is_empty() {
                addresses.forget(&network)?;
            }
        }
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
