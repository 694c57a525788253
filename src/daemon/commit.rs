//! Making an image of a container.

use std::sync::Arc;

use nuncio_runtime::image::{About, Image, Reference};
use nuncio_runtime::{freeze, thaw};

use super::Daemon;
use super::container::Container;

impl Daemon {
    /// Makes an image of a container, whose processes stand still meanwhile if `pause`.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: Option<Reference>,
        about: About,
        pause: bool,
    ) -> anyhow::Result<Image> {
        let (daemon, container) = (Arc::clone(self), Arc::clone(container));
        // Goes on though nobody waits any more, so that what was frozen is thawed.
        let work = async move { daemon.commit_now(&container, name, about, pause).await };
        tokio::spawn(work).await?
    }

    async fn commit_now(
        &self,
        container: &Container,
        name: Option<Reference>,
        about: About,
        pause: bool,
    ) -> anyhow::Result<Image> {
        let _turn = container.turn.lock().await; // it neither starts nor goes meanwhile
        let freezes = pause && container.is_running() && !container.is_paused();
        let directory = container.run_directory.clone();
        if freezes {
            let directory = directory.clone();
            tokio::task::spawn_blocking(move || freeze(&directory)).await??;
        }
        let image_id = container.view().image_id;
        let comment = about.comment.clone();
        let image_ref = name.as_ref().map(Reference::familiar).unwrap_or_default();
        let committed = self
            .images
            .commit(&image_id, &container.directory, name, about)
            .await;
        if freezes {
            tokio::task::spawn_blocking(move || thaw(&directory)).await??;
        }
        let image = committed?;
        let attributes = [
            ("comment", comment),
            ("imageID", image.id.clone()),
            ("imageRef", image_ref),
        ];
        self.tell_more(container, "commit", attributes);
        tracing::info!(
            id = container.id,
            image = image.id,
            "made an image of a container"
        );
        Ok(image)
    }
}
