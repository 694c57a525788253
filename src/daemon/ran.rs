//! How long a process has run.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// How long a process has run, which a clock that is set meanwhile makes neither longer nor shorter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    before: Duration,
    counted: Instant,
}

impl Ran {
    /// Of one that was started then, by a clock of this host. Counted from now on by what nobody sets.
    pub(super) fn since(started: Timestamp) -> Self {
        Self::by(started, Timestamp::now())
    }

    fn by(started: Timestamp, now: Timestamp) -> Self {
        Self {
            before: Duration::try_from(now.duration_since(started)).unwrap_or_default(),
            counted: Instant::now(),
        }
    }

    pub(super) fn so_far(&self) -> Duration {
        self.before + self.counted.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_to_be_started_yet_by_the_clock_has_just_been() {
        let second = |second| Timestamp::from_second(second).unwrap_or_default();
        let (started, hour) = (second(1_700_000_000), Duration::from_secs(3600));
        assert!(Ran::by(started, started + hour).so_far() >= hour);
        let ran = Ran::by(started, started - hour);
        assert!(ran.so_far() <= ran.counted.elapsed());
    }
}
