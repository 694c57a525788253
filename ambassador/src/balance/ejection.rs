//! Leaves an endpoint alone for a while after failures, and lets one newcomer at a time try it then.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::settings::Eject;

/// One who tries an endpoint after its ejection and has not come back for so long, such as a UDP
/// session that nobody answers, does not keep others from trying.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Whether newcomers may have an endpoint, as far as ejection goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    Fine,
    /// Until that time.
    Ejected(Duration),
    /// The while is over, and nobody tries it now.
    ProbeDue,
    /// The while is over, and one tries it now.
    Probing,
}

/// All times are since one and the same moment. Written to under the balancer's lock, but for
/// probes, which come and go without.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// In a row.
    failures: AtomicU32,
    rounds: AtomicU32,
    /// In nanoseconds; 0 if not ejected.
    until: AtomicU64,
    /// When the one who tries began, in nanoseconds; 0 if nobody does.
    probe: AtomicU64,
}

impl Ejection {
    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn standing(&self, now: Duration) -> Standing {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return Standing::Fine;
        }
        let until = Duration::from_nanos(until);
        if now < until {
            return Standing::Ejected(until);
        }
        let probe = self.probe.load(Ordering::Relaxed);
        if is_fresh(probe, now) {
            Standing::Probing
        } else {
            Standing::ProbeDue
        }
    }

    /// Makes the caller the one who tries. None if another one does.
    pub(super) fn begin_probe(&self, now: Duration) -> Option<Probe> {
        let token = nanos(now);
        let take = |probe| (!is_fresh(probe, now) && probe != token.get()).then_some(token.get());
        (self.probe)
            .try_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(Probe(token))
    }

    /// The one who tried gives up without having learnt anything.
    pub(super) fn end_probe(&self, Probe(token): &Probe) {
        let relaxed = Ordering::Relaxed;
        // Another one's, if it has changed.
        let _ = (self.probe).compare_exchange(token.get(), 0, relaxed, relaxed);
    }

    pub(super) fn succeeded(&self) {
        // Mostly there is nothing to write, and reading keeps the line shared between the cores.
        for counter in [&self.failures, &self.rounds] {
            if counter.load(Ordering::Relaxed) != 0 {
                counter.store(0, Ordering::Relaxed);
            }
        }
        for time in [&self.until, &self.probe] {
            if time.load(Ordering::Relaxed) != 0 {
                time.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Counts a failure, and ejects if `may_go` and there were enough in a row. Returns for how
    /// long. Those who fail while it is ejected began before, and tell nothing new.
    pub(super) fn failed(&self, now: Duration, eject: &Eject, may_go: bool) -> Option<Duration> {
        let failures = self.failures().saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        if matches!(self.standing(now), Standing::Ejected(_)) {
            return None;
        }
        self.probe.store(0, Ordering::Relaxed);
        if failures < eject.after.get() || !may_go {
            return None;
        }
        let rounds = self.rounds.load(Ordering::Relaxed);
        self.rounds
            .store(rounds.saturating_add(1), Ordering::Relaxed);
        let factor = 1_u32.checked_shl(rounds).unwrap_or(u32::MAX);
        let pause = eject.first.saturating_mul(factor).min(eject.longest);
        self.until
            .store(nanos(now + pause).get(), Ordering::Relaxed);
        Some(pause)
    }
}

/// The right to be the one who tries. A flow holds one or none: not being 0 saves it a word.
#[derive(Debug)]
pub(super) struct Probe(NonZeroU64);

fn is_fresh(probe: u64, now: Duration) -> bool {
    probe != 0 && now < Duration::from_nanos(probe) + PROBE_PATIENCE
}

/// 0 stands for none.
fn nanos(time: Duration) -> NonZeroU64 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    NonZeroU64::new(nanos).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const BEGIN: Duration = Duration::from_secs(5);

    fn failed(ejection: &Ejection, now: Duration) -> Option<Duration> {
        ejection.failed(now, &Eject::default(), true)
    }

    #[test]
    fn the_while_doubles_up_to_its_bound_and_begins_anew_after_success() {
        let ejection = Ejection::default();
        let mut now = BEGIN;
        let pauses: Vec<_> = (0..40)
            .map(|_| {
                let pause = failed(&ejection, now).unwrap();
                now += pause;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses[39], 60);
        ejection.succeeded();
        assert_eq!(ejection.standing(now), Standing::Fine);
        assert_eq!(failed(&ejection, now), Some(Duration::from_secs(1)));
    }

    #[test]
    fn many_who_fail_at_once_are_one_failure_to_the_while() {
        let ejection = Ejection::default();
        assert!(failed(&ejection, BEGIN).is_some());
        for _ in 0..100 {
            assert_eq!(failed(&ejection, BEGIN), None);
        }
        assert_eq!(ejection.failures(), 101);
        let over = BEGIN + Duration::from_secs(1);
        assert_eq!(ejection.standing(over), Standing::ProbeDue);
        assert_eq!(failed(&ejection, over), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_threshold_counts_failures_in_a_row() {
        let ejection = Ejection::default();
        let eject = Eject {
            after: 3.try_into().unwrap(),
            ..Eject::default()
        };
        assert_eq!(ejection.failed(BEGIN, &eject, true), None);
        assert_eq!(ejection.failed(BEGIN, &eject, true), None);
        ejection.succeeded();
        assert_eq!(ejection.failed(BEGIN, &eject, true), None);
        assert_eq!(ejection.failed(BEGIN, &eject, true), None);
        assert!(ejection.failed(BEGIN, &eject, true).is_some());
    }

    #[test]
    fn one_tries_at_a_time() {
        let ejection = Ejection::default();
        failed(&ejection, BEGIN);
        let over = BEGIN + Duration::from_secs(1);
        let first = ejection.begin_probe(over).unwrap();
        assert!(ejection.begin_probe(over).is_none());
        assert_eq!(ejection.standing(over), Standing::Probing);
        ejection.end_probe(&first);
        assert_eq!(ejection.standing(over), Standing::ProbeDue);

        let lost = ejection.begin_probe(over).unwrap();
        let late = over + PROBE_PATIENCE;
        assert_eq!(ejection.standing(late), Standing::ProbeDue);
        let _second = ejection.begin_probe(late).unwrap();
        ejection.end_probe(&lost);
        assert_eq!(ejection.standing(late), Standing::Probing, "not its own");
    }
}
