//! Lines of several sources in the order of their times, as far as that can be had without waiting long for any of them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Bytes that wait at most; then the earliest go, whoever has yet to say something earlier.
const MOST: usize = 32 << 20;

/// A line that waits.
struct Waiting<T> {
    time: Timestamp,
    came: Instant,
    bytes: usize,
    line: T,
}

struct Source<T> {
    waiting: VecDeque<Waiting<T>>,
    is_open: bool,
    /// Said nothing while others waited for it, so that they wait no more.
    is_late: bool,
}

/// Lines of several sources, each of which is in order.
///
/// The earliest line goes once all sources have said something later or have ended. None is waited for longer than the window:
/// of what has no end each line waits that long at most; of what has, a source that is late is not waited for until it speaks.
pub(super) struct Merge<T> {
    sources: Vec<Source<T>>,
    window: Duration,
    endless: bool,
    bytes: usize,
}

impl<T> Merge<T> {
    pub(super) fn new(window: Duration, endless: bool) -> Self {
        Self {
            sources: Vec::new(),
            window,
            endless,
            bytes: 0,
        }
    }

    /// A further source; its number.
    pub(super) fn open(&mut self) -> usize {
        self.sources.push(Source {
            waiting: VecDeque::new(),
            is_open: true,
            is_late: false,
        });
        self.sources.len() - 1
    }

    pub(super) fn close(&mut self, source: usize) {
        self.sources[source].is_open = false;
    }

    pub(super) fn push(
        &mut self,
        source: usize,
        time: Timestamp,
        bytes: usize,
        line: T,
        now: Instant,
    ) {
        self.bytes += bytes;
        let source = &mut self.sources[source];
        source.is_late = false;
        source.waiting.push_back(Waiting {
            time,
            came: now,
            bytes,
            line,
        });
    }

    /// The next line that need not wait any more, and its source.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(usize, T)> {
        let heads = self.sources.iter().enumerate();
        let heads = heads.filter_map(|(number, source)| Some((number, source.waiting.front()?)));
        let (first, _) = heads.min_by_key(|(number, head)| (head.time, *number))?;
        let awaited = |source: &Source<T>| {
            source.is_open && source.waiting.is_empty() && (self.endless || !source.is_late)
        };
        if self.sources.iter().any(awaited) && self.bytes <= MOST {
            if self.due().is_some_and(|due| due > now) {
                return None;
            }
            for source in self
                .sources
                .iter_mut()
                .filter(|source| source.waiting.is_empty())
            {
                source.is_late = true;
            }
        }
        let waiting = self.sources[first].waiting.pop_front()?;
        self.bytes -= waiting.bytes;
        Some((first, waiting.line))
    }

    /// When a line has waited long enough; `None` while none waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let heads = self
            .sources
            .iter()
            .filter_map(|source| source.waiting.front());
        let came = heads.map(|head| head.came).min()?;
        Some(came + self.window)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn the_earliest_waits_for_those_that_may_have_earlier_ones() {
        let now = Instant::now();
        let mut merge = Merge::new(WINDOW, false);
        let (a, b) = (merge.open(), merge.open());
        merge.push(a, at(2), 1, "second", now);
        assert!(merge.pop(now).is_none(), "b may have an earlier one");
        merge.push(b, at(1), 1, "first", now);
        assert_eq!(merge.pop(now), Some((b, "first")));
        assert!(merge.pop(now).is_none());
        merge.close(b);
        assert_eq!(merge.pop(now), Some((a, "second")));
        assert_eq!(merge.due(), None);
    }

    #[test]
    fn who_is_late_is_waited_for_once() {
        let now = Instant::now();
        let mut merge = Merge::new(WINDOW, false);
        let (a, b) = (merge.open(), merge.open());
        merge.push(a, at(1), 1, 1, now);
        assert_eq!(merge.due(), Some(now + WINDOW));
        assert_eq!(merge.pop(now + WINDOW), Some((a, 1)));
        merge.push(a, at(2), 1, 2, now + WINDOW);
        assert_eq!(merge.pop(now + WINDOW), Some((a, 2)), "at once");
        merge.push(b, at(1), 1, 3, now + WINDOW);
        assert_eq!(
            merge.pop(now + WINDOW),
            None,
            "b is heard, and a is waited for"
        );
        merge.push(a, at(3), 1, 4, now + WINDOW);
        assert_eq!(merge.pop(now + WINDOW), Some((b, 3)));
    }

    #[test]
    fn what_has_no_end_is_held_for_the_window_each_time() {
        let now = Instant::now();
        let mut merge = Merge::new(WINDOW, true);
        let (a, b) = (merge.open(), merge.open());
        merge.push(a, at(1), 1, 1, now);
        assert_eq!(merge.pop(now + WINDOW), Some((a, 1)));
        merge.push(a, at(3), 1, 3, now + WINDOW);
        assert_eq!(merge.pop(now + WINDOW), None);
        merge.push(b, at(2), 1, 2, now + WINDOW);
        assert_eq!(merge.pop(now + WINDOW), Some((b, 2)));
    }

    #[test]
    fn more_than_may_wait_does_not() {
        let now = Instant::now();
        let mut merge = Merge::new(WINDOW, false);
        let (a, _) = (merge.open(), merge.open());
        merge.push(a, at(1), MOST, 1, now);
        assert_eq!(merge.pop(now), None);
        merge.push(a, at(2), 1, 2, now);
        assert_eq!(merge.pop(now), Some((a, 1)));
        assert_eq!(merge.pop(now), None);
    }

    proptest! {
        #[test]
        fn sources_in_order_come_out_in_order(mut times in prop::collection::vec((0usize..4, 0i64..50), 0..60)) {
            let now = Instant::now();
            times.sort_by_key(|(_, time)| *time);
            let mut merge = Merge::new(WINDOW, false);
            for _ in 0..4 {
                merge.open();
            }
            for &(source, time) in &times {
                merge.push(source, at(time), 1, time, now);
            }
            (0..4).for_each(|source| merge.close(source));
            let out: Vec<_> = std::iter::from_fn(|| merge.pop(now)).map(|(_, time)| time).collect();
            let expected: Vec<_> = times.iter().map(|(_, time)| *time).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
