//! How long things took, in buckets that are counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations; the last bucket takes what is longer than every bound.
#[derive(Debug)]
pub(crate) struct Histogram<const BUCKETS: usize> {
    bounds: &'static [Duration],
    counts: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// Upper bounds in seconds, each with the count of its own bucket.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// All durations together, in seconds.
    pub(crate) sum: f64,
}

const fn microseconds<const N: usize>(bounds: [u64; N]) -> [Duration; N] {
    let mut durations = [Duration::ZERO; N];
    let mut at = 0;
    while at < N {
        durations[at] = Duration::from_micros(bounds[at]);
        at += 1;
    }
    durations
}

// Plain numbers: a type that is as long as a computed constant is a cycle to rustc when it optimises.
const CONNECT_BOUNDS: usize = 12;
const FLOW_BOUNDS: usize = 10;

/// From a peer on this host to a SYN that is sent a third time, in microseconds.
const CONNECT: [Duration; CONNECT_BOUNDS] = microseconds([
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
]);
/// From one request to a connection that is kept for days, in microseconds.
const FLOW: [Duration; FLOW_BOUNDS] = microseconds([
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
    21_600_000_000,
    86_400_000_000,
]);

/// How long connects took.
pub(crate) type ConnectTimes = Histogram<{ CONNECT_BOUNDS + 1 }>;
/// How long flows lasted.
pub(crate) type Durations = Histogram<{ FLOW_BOUNDS + 1 }>;

impl Default for ConnectTimes {
    fn default() -> Self {
        Self::new(&CONNECT)
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self::new(&FLOW)
    }
}

impl<const BUCKETS: usize> Histogram<BUCKETS> {
    fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            nanoseconds: AtomicU64::new(0),
        }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        // Five centuries of flows fit.
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let bounds = self.bounds.iter().map(Duration::as_secs_f64);
        let counts = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        Snapshot {
            buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
            sum: Duration::from_nanos(nanoseconds).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_it_fits() {
        let times = ConnectTimes::default();
        for micros in [0, 100, 101, 5_000_000, 5_000_001] {
            times.observe(Duration::from_micros(micros));
        }
        let snapshot = times.snapshot();
        let of = |bound: f64| {
            let found = snapshot.buckets.iter().find(|(at, _)| *at == bound);
            found.map(|(_, count)| *count)
        };
        assert_eq!(of(0.0001), Some(2));
        assert_eq!(of(0.00025), Some(1));
        assert_eq!(of(5.0), Some(1));
        assert_eq!(of(f64::INFINITY), Some(1));
        let count: u64 = snapshot.buckets.iter().map(|(_, count)| count).sum();
        assert_eq!(count, 5);
        assert!((snapshot.sum - 10.000_202).abs() < 1e-9, "{snapshot:?}");
    }

    #[test]
    fn bounds_rise() {
        assert!(CONNECT.is_sorted_by(|a, b| a < b));
        assert!(FLOW.is_sorted_by(|a, b| a < b));
    }
}
