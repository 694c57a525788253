//! Waiting for a moment, on a worker's thread: workers have no runtime.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

thread_local! {
    /// The clock of the worker that has this thread.
    static OWN: RefCell<Option<Rc<Clock>>> = const { RefCell::new(None) };
}

/// Whom a worker is to wake, and when.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    alarms: RefCell<BTreeMap<Key, Waker>>,
    next: Cell<u64>,
}

/// Ordered by time; the number tells those of one moment apart.
type Key = (Instant, u64);

impl Clock {
    /// Makes it the one by which everything on this thread waits.
    pub(crate) fn install(self: &Rc<Self>) {
        OWN.set(Some(self.clone()));
    }

    /// When somebody is to be woken.
    pub(crate) fn next(&self) -> Option<Instant> {
        let alarms = self.alarms.borrow();
        let ((at, _), _) = alarms.first_key_value()?;
        Some(*at)
    }

    /// Wakes those whose moment has come.
    pub(crate) fn strike(&self, now: Instant) {
        loop {
            let mut alarms = self.alarms.borrow_mut();
            match alarms.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let waker = first.remove();
                    // What is woken may set alarms.
                    drop(alarms);
                    waker.wake();
                }
                _ => return,
            }
        }
    }

    fn set(&self, at: Instant, waker: Waker) -> Key {
        let number = self.next.replace(self.next.get() + 1);
        self.alarms.borrow_mut().insert((at, number), waker);
        (at, number)
    }
}

/// Ready at its moment, or a little later.
#[derive(Debug)]
pub(crate) struct Sleep {
    clock: Rc<Clock>,
    at: Instant,
    /// Once somebody waits. The clock forgets it when it has struck.
    set: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.set else {
            self.set = Some(self.clock.set(self.at, cx.waker().clone()));
            return Poll::Pending;
        };
        match self.clock.alarms.borrow_mut().get_mut(&key) {
            Some(waker) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let set = self.set.take();
        let waker = set.and_then(|key| self.clock.alarms.borrow_mut().remove(&key));
        drop(waker); // not while the clock is borrowed
    }
}

pub(crate) fn sleep_until(at: Instant) -> Sleep {
    let clock = OWN.with_borrow(Clone::clone);
    Sleep {
        clock: clock.expect("a worker installs its clock first"),
        at,
        set: None,
    }
}

pub(crate) fn sleep(time: Duration) -> Sleep {
    sleep_until(Instant::now() + time)
}

/// It was not ready in time.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// What `future` comes to, unless that takes longer than until `deadline`.
pub(crate) async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    // What is ready at once needs no alarm.
    let mut over = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let over = over.get_or_insert_with(|| sleep_until(deadline));
        Pin::new(over).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// What `future` comes to, unless that takes longer than `time`.
pub(crate) async fn timeout<F: Future>(time: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + time, future).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn strikes_in_order_and_forgets_those_who_are_gone() {
        let clock = Rc::new(Clock::default());
        clock.install();
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut late = sleep_until(after(3));
        let mut soon = sleep_until(after(1));
        let mut gone = sleep_until(after(2));
        for sleep in [&mut late, &mut soon, &mut gone] {
            assert!(Pin::new(sleep).poll(&mut cx).is_pending());
        }
        assert_eq!(clock.next(), Some(after(1)));
        drop(gone);
        clock.strike(after(2));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(Pin::new(&mut soon).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut late).poll(&mut cx).is_pending());
        assert_eq!(clock.next(), Some(after(3)));
        clock.strike(after(3));
        assert!(Pin::new(&mut late).poll(&mut cx).is_ready());
        assert_eq!(clock.next(), None);
    }
}
