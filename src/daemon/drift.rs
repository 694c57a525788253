//! What others change in the kernel is mended soon after, and told.

use std::sync::Arc;
use std::time::Duration;

use nuncio_overlay::{ChangeWatch, Object};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::events::Kind;

/// How long changes are gathered before they are looked at: whoever changes one thing often changes more.
const GATHER: Duration = Duration::from_millis(100);
/// How long to wait before listening again after a failure; until then the regular comparison has to do.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Tells `changed` whenever something of ours may have changed, until `stop`.
pub(super) async fn watch(changed: Arc<Notify>, stop: CancellationToken) {
    let listen = async {
        loop {
            if let Err(error) = tell_changes(&changed).await {
                tracing::warn!(%error, "listen for changes in the kernel");
            }
            sleep(LISTEN_AGAIN).await;
            changed.notify_one(); // for what was not heard meanwhile
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen => {}
    }
}

async fn tell_changes(changed: &Notify) -> std::io::Result<()> {
    let mut watch = ChangeWatch::open().await?;
    loop {
        watch.changed().await?;
        sleep(GATHER).await;
        watch.drain();
        changed.notify_one();
    }
}

impl Daemon {
    /// Tells what somebody had changed and is as it was.
    pub(super) fn tell_repairs(&self, repaired: Vec<Object>) {
        for object in repaired {
            self.tally.count("repair", object.kind());
            tracing::warn!(kind = object.kind(), %object, "changed by others, and mended");
            let attributes = [
                ("name", self.node.name.clone()),
                ("kind", object.kind().to_owned()),
                ("object", object.to_string()),
                ("cause", "somebody had changed it by hand".to_owned()),
                ("before", "missing or otherwise".to_owned()),
                ("after", "as it was left".to_owned()),
            ];
            let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
            self.events
                .tell(Kind::Daemon, "repair", &self.node.id, attributes);
        }
    }
}
