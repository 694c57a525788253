//! Freezing a container and letting it go on.

use std::path::PathBuf;
use std::sync::Arc;

use nuncio_runtime::{FreezeError, freeze, is_frozen, thaw};

use super::Daemon;
use super::container::Container;
use super::record::Phase;
use super::refusal::Refusal;

impl Daemon {
    /// Stops every process of a container where it stands.
    pub(crate) async fn pause(&self, container: &Arc<Container>) -> anyhow::Result<()> {
        let _turn = container.turn.lock().await;
        check_running(container)?;
        let id = &container.id;
        if container.is_paused() {
            let message = format!("Container {id} is already paused");
            return Err(Refusal::conflict(message).into());
        }
        // First: a daemon that is killed in between leaves a container that goes on, not one that nobody thaws.
        set_paused(container, true)?;
        if let Err(error) = in_cgroup(container, freeze).await {
            set_paused(container, false)?;
            return Err(error);
        }
        if !container.is_paused() {
            in_cgroup(container, thaw).await?; // it was sent meanwhile what is to end it
            return Ok(());
        }
        self.tell(container, "pause");
        Ok(())
    }

    /// Lets a paused container go on.
    pub(crate) async fn unpause(&self, container: &Arc<Container>) -> anyhow::Result<()> {
        let _turn = container.turn.lock().await;
        check_running(container)?;
        if !container.is_paused() {
            let message = format!("Container {} is not paused", container.id);
            return Err(Refusal::conflict(message).into());
        }
        in_cgroup(container, thaw).await?;
        set_paused(container, false)?;
        self.tell(container, "unpause");
        Ok(())
    }

    /// Lets a container go on that was sent a signal to end it, which it cannot do while it is frozen.
    pub(super) async fn thaw_to_end(&self, container: &Arc<Container>) {
        if !container.is_paused() {
            return;
        }
        let thawed = in_cgroup(container, thaw)
            .await
            .and_then(|()| set_paused(container, false));
        match thawed {
            Ok(()) => self.tell(container, "unpause"),
            Err(error) => tracing::warn!(
                id = container.id,
                error = format!("{error:#}"),
                "let a paused container go on to its end"
            ),
        }
    }

    /// Has a container that was taken over stand still only if that was asked for: the last daemon may have been killed
    /// on the way there or back, or while it made an image.
    pub(super) async fn settle_pause(&self, container: &Container) -> anyhow::Result<()> {
        let frozen = match is_frozen(&container.run_directory) {
            Ok(frozen) => frozen,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    id = container.id,
                    error,
                    "look whether a container is paused"
                );
                return Ok(());
            }
        };
        match (frozen, container.is_paused()) {
            (true, false) => in_cgroup(container, thaw).await,
            (false, true) => set_paused(container, false),
            (true, true) | (false, false) => Ok(()),
        }
    }
}

fn check_running(container: &Container) -> Result<(), Refusal> {
    let id = &container.id;
    if container.is_restarting() {
        let message = format!("Container {id} is restarting, wait until the container is running");
        return Err(Refusal::conflict(message));
    }
    match container.is_running() {
        true => Ok(()),
        false => Err(Refusal::conflict(format!("container {id} is not running"))),
    }
}

async fn in_cgroup(
    container: &Container,
    work: fn(&std::path::Path) -> Result<(), FreezeError>,
) -> anyhow::Result<()> {
    let directory: PathBuf = container.run_directory.clone();
    Ok(tokio::task::spawn_blocking(move || work(&directory)).await??)
}

fn set_paused(container: &Container, now: bool) -> anyhow::Result<()> {
    container.update(|record| {
        if let Phase::Running { paused, .. } = &mut record.phase {
            *paused = now;
        }
    })
}
