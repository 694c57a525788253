//! A moving average that a peak raises at once and that falls only with time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An old peak fades over this time, to 1/e.
const FADE: f64 = 10.0;
/// Ticks of the stored time per second: fine for [`FADE`], and 32 bits last for eight years.
const TICKS: u64 = 16;

/// Peak-sensitive average in seconds as an `f32`, and when it was measured, in one word, so that
/// nobody reads the one without the other. Zero before the first measurement.
#[derive(Debug, Default)]
pub(super) struct Peak(AtomicU64);

impl Peak {
    /// The average at `at`, in seconds; none before the first measurement. All times are since one
    /// and the same moment.
    pub(super) fn faded(&self, at: Duration) -> Option<f64> {
        faded(self.0.load(Ordering::Relaxed), ticks(at))
    }

    /// A slow one counts at once and fully; a fast one only as the memory of slow ones fades.
    pub(super) fn measure(&self, took: Duration, at: Duration) {
        let (took, at) = (took.as_secs_f64(), ticks(at));
        let next = |word| {
            let average = match faded(word, at) {
                Some(faded) if took < faded => {
                    let kept = faded / f64::from(average(word));
                    faded + took * (1.0 - kept)
                }
                _ => took,
            };
            // Never 0, which means that nothing was measured.
            let average = (average as f32).max(f32::MIN_POSITIVE);
            u64::from(average.to_bits()) << 32 | (at & u64::from(u32::MAX))
        };
        (self.0).update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

fn ticks(at: Duration) -> u64 {
    at.as_secs() * TICKS + u64::from(at.subsec_nanos()) * TICKS / 1_000_000_000
}

fn average(word: u64) -> f32 {
    f32::from_bits((word >> 32) as u32)
}

fn faded(word: u64, at: u64) -> Option<f64> {
    let age = at.saturating_sub(word & u64::from(u32::MAX)) as f64 / TICKS as f64;
    (word != 0).then(|| f64::from(average(word)) * (-age / FADE).exp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let peak = Peak::default();
        let begin = Duration::from_secs(3);
        assert_eq!(peak.faded(begin), None);
        peak.measure(Duration::from_millis(1), begin);
        peak.measure(Duration::from_secs(1), begin);
        assert!(peak.faded(begin).unwrap() > 0.99);
        let later = begin + Duration::from_secs(50);
        peak.measure(Duration::from_millis(1), later);
        assert!(peak.faded(later).unwrap() < 0.05);
    }

    #[test]
    fn nothing_measured_is_not_the_same_as_nothing_taken() {
        let peak = Peak::default();
        peak.measure(Duration::ZERO, Duration::ZERO);
        assert!(peak.faded(Duration::ZERO).unwrap() < 1e-9);
    }
}
