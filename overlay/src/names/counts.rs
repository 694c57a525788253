//! How many queries there were, how they ended, and how long they took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets in microseconds: from the table in memory to the last upstream's turn.
const BOUNDS: [u64; 9] = [
    100, 500, 1_000, 5_000, 20_000, 100_000, 500_000, 1_000_000, 4_000_000,
];

/// What a name server has answered since it began.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NameStats {
    /// Of itself.
    pub own: AnswerStats,
    /// As an upstream said, or failed to.
    pub upstream: AnswerStats,
}

/// Answers of one kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AnswerStats {
    /// Those that say that there is no such name.
    pub unknown: u64,
    /// Those that say neither that nor anything else: nobody answered, or refused.
    pub failed: u64,
    /// All of them, by how long they took: upper bounds in microseconds, the last without one, each with the count of
    /// its own bucket.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// How long all took together, in microseconds.
    pub micros: u64,
}

/// Counts answers of one kind, without a lock.
#[derive(Debug, Default)]
struct Kind {
    unknown: AtomicU64,
    failed: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// Counts answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(Arc<[Kind; 2]>);

impl Counts {
    /// Notes an answer to a query that came at `began`.
    pub(super) fn note(&self, answer: &[u8], forwarded: bool, began: Instant) {
        self.0[usize::from(forwarded)].note(answer, began.elapsed());
    }

    pub(super) fn stats(&self) -> NameStats {
        let [own, upstream] = &*self.0;
        NameStats {
            own: own.stats(),
            upstream: upstream.stats(),
        }
    }
}

impl Kind {
    fn note(&self, answer: &[u8], took: Duration) {
        let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed);
        // The response code is in the lower half of the fourth byte (RFC 1035 §4.1.1).
        match answer.get(3).map(|flags| flags & 0xf) {
            Some(0) => {}
            Some(3) => {
                add(&self.unknown, 1);
            }
            _ => {
                add(&self.failed, 1);
            }
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        add(&self.buckets[bucket], 1);
        add(&self.micros, micros);
    }

    fn stats(&self) -> AnswerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        AnswerStats {
            unknown: read(&self.unknown),
            failed: read(&self.failed),
            buckets: bounds.zip(self.buckets.iter().map(read)).collect(),
            micros: read(&self.micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_their_code_and_by_who_knew() {
        let counts = Counts::default();
        let began = Instant::now();
        for (code, forwarded) in [(0, false), (3, false), (2, false), (5, true), (0, true)] {
            counts.note(&[0, 0, 0x80, code], forwarded, began);
        }
        let stats = counts.stats();
        let all = |kind: &AnswerStats| kind.buckets.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(
            (all(&stats.own), stats.own.unknown, stats.own.failed),
            (3, 1, 1)
        );
        assert_eq!((all(&stats.upstream), stats.upstream.failed), (2, 1));
        assert_eq!(
            stats.own.buckets.last().map(|(bound, _)| *bound),
            Some(None)
        );
    }

    #[test]
    fn what_takes_long_is_in_a_later_bucket() {
        let kind = Kind::default();
        kind.note(&[0, 0, 0, 0], Duration::from_micros(100));
        kind.note(&[0, 0, 0, 0], Duration::from_secs(9));
        let stats = kind.stats();
        assert_eq!(stats.buckets.first(), Some(&(Some(100), 1)));
        assert_eq!(stats.buckets.last(), Some(&(None, 1)));
        assert_eq!(stats.micros, 9_000_100);
    }
}
