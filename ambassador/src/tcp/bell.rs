//! Wakes a worker that waits for its sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use rustix::event::{EventfdFlags, eventfd};

/// Rung when a task can go on; costs a system call only if the worker waits.
#[derive(Debug)]
pub(super) struct Bell {
    event: OwnedFd,
    rung: AtomicBool,
    waits: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
            waits: AtomicBool::new(false),
        }))
    }

    /// Before a wait: whether there may be one, for nothing was rung since the last.
    pub(super) fn lie_down(&self) -> bool {
        // Both sides write before they look: one of them sees the other.
        self.waits.store(true, Ordering::SeqCst);
        !self.rung.swap(false, Ordering::SeqCst)
    }

    /// After a wait.
    pub(super) fn rise(&self) {
        self.waits.store(false, Ordering::SeqCst);
    }

    /// Takes back what made the descriptor readable.
    pub(super) fn silence(&self) {
        // Fails only if somebody was faster, of whom there is none.
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if self.waits.load(Ordering::SeqCst) {
            // Full only if it is readable already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(bell: &Bell) -> bool {
        rustix::io::read(&bell.event, &mut [0_u8; 8]).is_ok()
    }

    #[test]
    fn only_who_waits_costs_a_call() -> std::io::Result<()> {
        let bell = Bell::new()?;
        bell.wake_by_ref();
        assert!(!is_readable(&bell));
        assert!(!bell.lie_down(), "it was rung before");
        assert!(bell.lie_down());
        bell.wake_by_ref();
        assert!(is_readable(&bell));
        bell.rise();
        assert!(!bell.lie_down());
        Ok(())
    }
}
