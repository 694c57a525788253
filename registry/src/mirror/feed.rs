//! A watch over everything, that notices when the way to the registry is dead.

use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchStream};
use tokio::time::Instant;

use crate::client::{CallError, Cause, Registry, cause, prefix_end};
use crate::keys::ROOT;

/// Silence after which the registry is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(5);
/// Further silence after which the watch is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FeedError {
    #[error("the watch has ended")]
    Ended,
    #[error("the registry cancelled the watch: {0}")]
    Cancelled(String),
    #[error("the watch has been silent for {0:?}")]
    Silent(Duration),
    #[error("watch the registry")]
    Rpc(#[source] Cause),
    #[error(transparent)]
    Call(#[from] CallError),
}

fn rpc(error: etcd_client::Error) -> FeedError {
    FeedError::Rpc(cause(error))
}

/// What a watch tells.
pub(super) enum Update {
    /// Keys with their new values, all of the revisions up to `revision`.
    Changes {
        revision: i64,
        changes: Vec<(String, Option<Vec<u8>>)>,
    },
    /// The history needed is gone: list again.
    Compacted,
}

/// An open watch.
pub(super) struct Feed {
    stream: WatchStream,
    /// The last revision seen.
    last: i64,
}

impl Feed {
    /// Watches from revision `from` on.
    pub(super) async fn open(registry: &Registry, from: i64) -> Result<Self, FeedError> {
        let options = WatchOptions::new()
            .with_range(prefix_end(ROOT))
            .with_start_revision(from)
            .with_progress_notify();
        let mut client = registry.client().watch_client();
        let stream = registry
            .call("watch the registry", client.watch(ROOT, Some(options)))
            .await?;
        Ok(Self {
            stream,
            last: from - 1,
        })
    }

    /// The next changes. Safe to drop at an await point: a message is either taken whole or left.
    pub(super) async fn next(&mut self) -> Result<Update, FeedError> {
        let asked = Instant::now() + QUIET;
        let mut deadline = asked;
        loop {
            let message = match tokio::time::timeout_at(deadline, self.stream.message()).await {
                Ok(message) => message.map_err(rpc)?.ok_or(FeedError::Ended)?,
                Err(_) if deadline == asked => {
                    // The answer tells only that somebody lives: before etcd 3.4.25 its revision may
                    // run ahead of events still to come, so it must not be resumed from.
                    self.stream.request_progress().await.map_err(rpc)?;
                    deadline = asked + PATIENCE;
                    continue;
                }
                Err(_) => return Err(FeedError::Silent(QUIET + PATIENCE)),
            };
            if message.compact_revision() > 0 {
                return Ok(Update::Compacted);
            }
            if message.canceled() {
                return Err(FeedError::Cancelled(message.cancel_reason().to_owned()));
            }
            let mut changes = Vec::new();
            for event in message.events() {
                let Some(kv) = event.kv() else { continue };
                self.last = self.last.max(kv.mod_revision());
                let key = String::from_utf8_lossy(kv.key()).into_owned();
                let value = match event.event_type() {
                    EventType::Put => Some(kv.value().to_vec()),
                    EventType::Delete => None,
                };
                changes.push((key, value));
            }
            return Ok(Update::Changes {
                revision: self.last,
                changes,
            });
        }
    }
}
