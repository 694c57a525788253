//! Asks endpoints whether they are well, one task for each endpoint.

mod check;
mod probe;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
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
pub(crate) struct Checks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    check: Option<Arc<Check>>,
    tasks: HashMap<SocketAddr, AbortOnDropHandle<()>>,
    /// Endpoints that are left out.
    beyond: usize,
}

impl Checks {
    /// Checks in another way, or not at all.
    pub(crate) fn configure(&self, check: Option<&Check>, running: &Running) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.check.as_deref() != check {
            state.check = check.cloned().map(Arc::new);
            state.tasks.clear();
        }
        state.follow(running);
    }

    /// Checks the endpoints that the forward has now.
    pub(crate) fn follow(&self, running: &Running) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.follow(running);
    }
}

impl State {
    fn follow(&mut self, running: &Running) {
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
                let task = watch(endpoint, check.clone(), running);
                AbortOnDropHandle::new(tokio::spawn(task))
            });
            self.tasks.insert(address, task);
        }
    }
}

/// Asks the endpoint again and again, until the forward is closed.
fn watch(
    endpoint: Arc<Endpoint>,
    check: Arc<Check>,
    running: &Running,
) -> impl Future<Output = ()> + use<> {
    let (forward, shared) = (running.name.clone(), running.shared.clone());
    let closed = running.closed.clone();
    let asking = async move {
        let mut streak = Streak::default();
        let mut next = Instant::now() + check.interval.mul_f64(rand::rng().random_range(0.0..0.1));
        loop {
            sleep_until(next).await;
            // Nobody closes it.
            let Ok(turn) = shared.probes.acquire().await else {
                return;
            };
            let begun = Instant::now();
            let asked = probe(&check, endpoint.address, &shared.options).await;
            drop(turn);
            streak.judge(asked, &endpoint, &check, &forward);
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
    fn intervals_stay_near_what_was_asked_for() {
        for _ in 0..1_000 {
            let interval = jittered(Duration::from_secs(10));
            assert!((9_000..11_000).contains(&interval.as_millis()));
        }
    }
}
