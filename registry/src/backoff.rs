//! Waiting between attempts: doubling, bounded, with jitter so that hosts do not move in step.

use std::time::Duration;

/// Successive waits of one loop of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// For optimistic transactions that lost against another one.
    pub(crate) fn contention() -> Self {
        Self::new(Duration::from_millis(2), Duration::from_millis(100))
    }

    /// For a registry that does not answer.
    pub(crate) fn outage() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// Starts over after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now: between half and all of a bound that doubles from call to call.
    pub(crate) fn delay(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.most);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_bound_and_starts_over() {
        let (first, most) = (Duration::from_millis(10), Duration::from_millis(35));
        let mut backoff = Backoff::new(first, most);
        for bound in [10, 20, 35, 35] {
            let bound = Duration::from_millis(bound);
            let delay = backoff.delay();
            assert!(
                delay >= bound / 2 && delay <= bound,
                "{delay:?} for {bound:?}"
            );
        }
        backoff.reset();
        assert!(backoff.delay() <= first);
    }
}
