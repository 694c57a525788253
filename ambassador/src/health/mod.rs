//! Asks endpoints whether they are well, one task for each endpoint.

mod check;
mod probe;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::balance::{Endpoint, Health};
use crate::running::Running;
use crate::tcp::is_shortage;
pub use check::{Check, CheckKind};
use probe::{Fault, probe};

/// Checks of all forwards that may be under way at once, each with a descriptor. Those beyond wait
/// for their turn; the intervals grow.
pub(crate) const MOST_AT_ONCE: usize = 256;
/// Endpoints of one forward that are checked. Those beyond count as well, and a warning says so.
const MOST_CHECKED: usize = 1024;

/// The checks of one forward. They end with it, each one with its endpoint.
#[derive(Debug, Default)]
pub(crate) struct Checks(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    check: Option<Arc<Check>>,
    tasks: HashMap<SocketAddr, Task>,
    /// Of tasks, so that one that ends is not taken for the one after it.
    next: u64,
    /// Endpoints that are left out.
    beyond: usize,
}

#[derive(Debug)]
struct Task {
    id: u64,
    _task: AbortOnDropHandle<()>,
}

impl Checks {
    /// Checks in another way, or not at all.
    pub(crate) fn configure(&self, check: Option<&Check>, running: &Running) {
        let mut state = lock(&self.0);
        if state.check.as_deref() != check {
            state.check = check.cloned().map(Arc::new);
            state.tasks.clear();
        }
        state.follow(running, &self.0);
    }

    /// Checks the endpoints that the forward has now.
    pub(crate) fn follow(&self, running: &Running) {
        lock(&self.0).follow(running, &self.0);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn follow(&mut self, running: &Running, own: &Arc<Mutex<Self>>) {
        let mut endpoints = running.balancer.endpoints();
        let checked = self.check.as_ref().map_or(0, |_| MOST_CHECKED);
        let unchecked = endpoints.split_off(endpoints.len().min(checked));
        for endpoint in &unchecked {
            endpoint.checked(Health::Unknown, None);
        }
        let mut old = std::mem::take(&mut self.tasks);
        let Some(check) = &self.check else {
            return;
        };
        if unchecked.len() > self.beyond {
            let (forward, beyond) = (&running.name, unchecked.len());
            warn!(%forward, beyond, most = MOST_CHECKED, "endpoints beyond the bound are not checked");
        }
        self.beyond = unchecked.len();
        for endpoint in endpoints {
            let address = endpoint.address;
            let task = old.remove(&address).unwrap_or_else(|| {
                self.next += 1;
                let patient = Patient {
                    endpoint,
                    task: self.next,
                    state: Arc::downgrade(own),
                };
                let task = patient.watch(check.clone(), running);
                Task {
                    id: self.next,
                    _task: AbortOnDropHandle::new(tokio::spawn(task)),
                }
            });
            self.tasks.insert(address, task);
        }
    }
}

/// An endpoint with the task that checks it.
struct Patient {
    endpoint: Arc<Endpoint>,
    task: u64,
    state: Weak<Mutex<State>>,
}

impl Patient {
    /// Asks again and again, until the forward is closed.
    fn watch(self, check: Arc<Check>, running: &Running) -> impl Future<Output = ()> + use<> {
        let (forward, shared) = (running.name.clone(), running.shared.clone());
        let closed = running.closed.clone();
        let asking = async move {
            let mut streak = Streak::default();
            let spread = rand::rng().random_range(0.0..0.1);
            let mut next = Instant::now() + check.interval.mul_f64(spread);
            loop {
                sleep_until(next).await;
                // Nobody closes it.
                let Ok(turn) = shared.probes.acquire().await else {
                    return;
                };
                let begun = Instant::now();
                let asked = probe(&check, self.endpoint.address).await;
                drop(turn);
                if self.told(asked, &mut streak, &check, &forward) {
                    shared.direct.tell();
                }
                next = begun + jittered(check.interval);
            }
        };
        async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = asking => {}
            }
        }
    }

    /// Whether the endpoint is otherwise than it was.
    fn told(
        &self,
        asked: Result<(), Fault>,
        streak: &mut Streak,
        check: &Check,
        forward: &str,
    ) -> bool {
        let Some(state) = self.state.upgrade() else {
            return false;
        };
        // A task that was ended may yet come to here, and nobody would take its word back.
        let state = lock(&state);
        let own = state.tasks.get(&self.endpoint.address);
        let before = self.endpoint.health();
        if own.is_some_and(|own| own.id == self.task) {
            streak.judge(asked, &self.endpoint, check, forward);
        }
        self.endpoint.health() != before
    }
}

/// So that the checks of many do not come all at once.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}

/// Results in a row that are alike.
#[derive(Debug, Default)]
struct Streak {
    well: bool,
    length: u32,
}

impl Streak {
    fn judge(
        &mut self,
        asked: Result<(), Fault>,
        endpoint: &Endpoint,
        check: &Check,
        forward: &str,
    ) {
        let shortage = |fault: &Fault| fault.io().is_some_and(is_shortage);
        if asked.as_ref().is_err_and(shortage) {
            // This host lacks something, for which the endpoint is not to blame.
            return debug!(forward, address = %endpoint.address, ?asked, "check is void");
        }
        let before = endpoint.health();
        let after = self.next(before, asked.is_ok(), check.rise, check.fall);
        let fault = asked.err().map(|fault| fault.chain());
        let address = endpoint.address;
        match (before == after, after, &fault) {
            (true, ..) | (_, Health::Unknown, _) => debug!(forward, %address, fault, "checked"),
            (_, Health::Up, _) => info!(forward, %address, "endpoint is well"),
            (_, Health::Down, _) => warn!(forward, %address, fault, "endpoint is down"),
        }
        endpoint.checked(after, fault);
    }

    fn next(&mut self, before: Health, well: bool, rise: NonZeroU32, fall: NonZeroU32) -> Health {
        self.length = if self.well == well {
            self.length.saturating_add(1)
        } else {
            1
        };
        self.well = well;
        match (before, well) {
            (Health::Unknown, true) => Health::Up,
            (Health::Unknown, false) => Health::Down,
            (Health::Down, true) if self.length >= rise.get() => Health::Up,
            (Health::Up, false) if self.length >= fall.get() => Health::Down,
            (before, _) => before,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn verdicts(results: &str) -> String {
        let (rise, fall) = (2.try_into().unwrap(), 3.try_into().unwrap());
        let (mut streak, mut health) = (Streak::default(), Health::Unknown);
        let verdicts = results.chars().map(|result| {
            health = streak.next(health, result == '+', rise, fall);
            match health {
                Health::Unknown => '?',
                Health::Up => 'u',
                Health::Down => 'd',
            }
        });
        verdicts.collect()
    }

    #[test]
    fn the_first_result_decides_and_later_ones_in_a_row() {
        assert_eq!(verdicts("+--+---+-++"), "uuuuuuddddu");
        assert_eq!(verdicts("-+-++"), "ddddu");
        assert_eq!(verdicts("++--+--+"), "uuuuuuuu");
    }

    #[test]
    fn a_shortage_of_this_host_is_no_fault_of_the_endpoint() {
        let balancer = crate::balance::Balancer::default();
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        balancer.update(
            &[(address, std::num::NonZeroU16::MIN)],
            std::time::Instant::now(),
        );
        let endpoint = &balancer.endpoints()[0];
        let check = Check::new(CheckKind::Tcp);
        let mut streak = Streak::default();
        let mut judge = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            let fault = Fault::Connect { address, source };
            streak.judge(Err(fault), endpoint, &check, "test");
            endpoint.health()
        };
        assert_eq!(judge(nix::libc::EMFILE), Health::Unknown);
        assert_eq!(judge(nix::libc::ECONNREFUSED), Health::Down);
    }

    #[test]
    fn intervals_stay_near_what_was_asked_for() {
        for _ in 0..1_000 {
            let interval = jittered(Duration::from_secs(10));
            assert!((9_000..11_000).contains(&interval.as_millis()));
        }
    }
}
