//! What keeps the content of unfinished work from being collected as garbage.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinError;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::store::{Content, Inner, hold};

/// Keeps what work in progress needs from being collected; what then nobody needs is collected on drop.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Arc<Inner>,
    held: Mutex<Vec<Content>>,
    pub(crate) tasks: TaskTracker,
    /// Ends the unpacking of layers.
    pub(crate) stopped: CancellationToken,
}

impl Lease {
    pub(crate) fn new(store: &Arc<Inner>) -> Self {
        Self {
            store: Arc::clone(store),
            held: Mutex::default(),
            tasks: TaskTracker::new(),
            stopped: CancellationToken::new(),
        }
    }

    /// Begins blocking work that is not cut short, even if nobody waits for it any more: then it also ends what came of it.
    pub(crate) fn spawn_blocking<T: Send + 'static, W: FnOnce() -> T + Send + 'static>(
        &self,
        work: W,
    ) -> impl Future<Output = Result<T, JoinError>> + use<T, W> {
        let (to, from) = oneshot::channel();
        let work = self.tasks.spawn_blocking(move || drop(to.send(work())));
        async {
            work.await?;
            Ok(from.await.expect("it was sent as the work ended"))
        }
    }

    /// Has the unpacking of layers end when the guard goes: who asked for it did.
    pub(crate) fn stop_on_drop(&self) -> DropGuard {
        self.stopped.clone().drop_guard()
    }

    /// Waits until all work is over, so that what it made is garbage or recorded and nothing in between.
    pub(crate) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// To be called before looking whether `content` is there, and before making it.
    pub(crate) fn pin(&self, content: Content) {
        *hold(&self.store.pins).entry(content).or_insert(0) += 1;
        hold(&self.held).push(content);
    }

    pub(crate) fn store(&self) -> &Arc<Inner> {
        &self.store
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *hold(&self.held));
        if held.is_empty() {
            return;
        }
        let mut pins = hold(&self.store.pins);
        for content in held {
            if let Some(count) = pins.get_mut(&content) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(&content);
                }
            }
        }
        drop(pins);
        self.store.collect();
    }
}
