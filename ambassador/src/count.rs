//! Counts what is open, for those who wait until it is less.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A number that goes up and down on any thread, and wakes somebody only if somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Count {
    now: AtomicUsize,
    waiting: AtomicUsize,
    less: Notify,
}

impl Count {
    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn add(&self) {
        self.now.fetch_add(1, Ordering::SeqCst);
    }

    /// Adds one unless that would make more than `most`.
    pub(crate) fn add_within(&self, most: usize) -> bool {
        let more = |now| (now < most).then(|| now + 1);
        let order = Ordering::SeqCst;
        self.now.try_update(order, order, more).is_ok()
    }

    pub(crate) fn subtract(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
        // Both sides write before they look: one of them sees the other.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.less.notify_waiters();
        }
    }

    /// Waits until `holds` says so of the number, which is asked at once and after each decrease.
    pub(crate) async fn wait(&self, mut holds: impl FnMut(usize) -> bool) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        loop {
            let less = self.less.notified();
            tokio::pin!(less);
            less.as_mut().enable();
            if holds(self.now()) {
                return;
            }
            less.await;
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn wakes_those_who_wait_for_less() {
        let count = Arc::new(Count::default());
        assert!(count.add_within(2) && count.add_within(2) && !count.add_within(2));
        let waits = tokio::spawn({
            let count = count.clone();
            async move { count.wait(|now| now == 0).await }
        });
        while count.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        count.subtract();
        count.subtract();
        assert!(waits.await.is_ok());
        assert_eq!((count.now(), count.waiting.load(Ordering::SeqCst)), (0, 0));
    }

    #[test]
    fn loses_nothing_between_threads() {
        let count = Arc::new(Count::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let count = count.clone();
                std::thread::spawn(move || {
                    for _ in 0..10_000 {
                        count.add();
                        count.subtract();
                    }
                })
            })
            .collect();
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
        assert_eq!(count.now(), 0);
    }
}
