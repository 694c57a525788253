//! Whether UDP gets to a peer and back: a probe each second between the two tunnels, and what comes of it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes of a probe, and of its answer.
pub(crate) const PROBE: usize = 12;
/// What they begin with, where messages of WireGuard have one to four.
const ASKS: [u8; 4] = [5, 0, 0, 0];
const ANSWERS: [u8; 4] = [6, 0, 0, 0];

/// Between two probes, and how long an answer may take.
const PULSE: Duration = Duration::from_secs(1);
/// As many lost in a row mean that UDP does not get through.
const LOST: u32 = 3;
/// As many answered in a row mean that it does again.
const HELD: u32 = 5;
/// The same for a way that has come and gone, and how soon after it came that must be to count.
const HELD_AT_MOST: u32 = 300;
const FLAPS: Duration = Duration::from_secs(600);

/// One peer's.
pub(crate) struct Reach {
    blocked: AtomicBool,
    state: Mutex<State>,
}

struct State {
    next: Instant,
    /// The probe that is under way.
    asked: Option<u64>,
    lost: u32,
    answered: u32,
    needed: u32,
    restored: Option<Instant>,
}

/// What a datagram is, if it is of probing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Probe {
    Asks(u64),
    Answers(u64),
}

impl Probe {
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let message: &[u8; PROBE] = message.try_into().ok()?;
        let (kind, nonce) = message.split_first_chunk::<4>()?;
        let nonce = u64::from_be_bytes(nonce.try_into().ok()?);
        match *kind {
            ASKS => Some(Self::Asks(nonce)),
            ANSWERS => Some(Self::Answers(nonce)),
            _ => None,
        }
    }

    pub(crate) fn write(self, out: &mut [u8]) -> usize {
        let (kind, nonce) = match self {
            Self::Asks(nonce) => (ASKS, nonce),
            Self::Answers(nonce) => (ANSWERS, nonce),
        };
        out[..4].copy_from_slice(&kind);
        out[4..PROBE].copy_from_slice(&nonce.to_be_bytes());
        PROBE
    }
}

impl Reach {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            blocked: AtomicBool::new(false),
            state: Mutex::new(State {
                next: now,
                asked: None,
                lost: 0,
                answered: 0,
                needed: HELD,
                restored: None,
            }),
        }
    }

    /// UDP does not get through, or has not for long enough since it does again.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Notes what is lost by now, and returns what is to be sent.
    pub(crate) fn tick(&self, now: Instant) -> Option<Probe> {
        let mut state = self.state();
        if now < state.next {
            return None;
        }
        if state.asked.take().is_some() {
            state.lost += 1;
            state.answered = 0;
            if state.lost >= LOST && !self.blocked.swap(true, Ordering::Relaxed) {
                let flaps = state.restored.is_some_and(|then| now < then + FLAPS);
                state.needed = match flaps {
                    true => (state.needed * 2).min(HELD_AT_MOST),
                    false => HELD,
                };
            }
        }
        state.next = now + PULSE;
        // Nobody who does not see them can say what would be answered.
        let nonce = RandomState::new().hash_one(());
        state.asked = Some(nonce);
        Some(Probe::Asks(nonce))
    }

    /// An answer came.
    pub(crate) fn answered(&self, nonce: u64, now: Instant) {
        let mut state = self.state();
        if state.asked != Some(nonce) {
            return;
        }
        (state.asked, state.lost) = (None, 0);
        state.answered += 1;
        if state.answered >= state.needed && self.blocked.swap(false, Ordering::Relaxed) {
            state.restored = Some(now);
        }
    }

    /// No panic leaves it half written.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Path {
        reach: Reach,
        now: Instant,
    }

    impl Path {
        fn new() -> Self {
            let now = Instant::now();
            let reach = Reach::new(now);
            Self { reach, now }
        }

        /// Sends so many probes, which are answered or not, and says whether the path then counts as blocked.
        fn run(&mut self, probes: u32, is_open: bool) -> bool {
            for _ in 0..probes {
                let Some(Probe::Asks(nonce)) = self.reach.tick(self.now) else {
                    panic!("a probe is due");
                };
                assert_eq!(self.reach.tick(self.now), None, "one at a time");
                if is_open {
                    self.reach.answered(nonce, self.now);
                    self.reach.answered(nonce, self.now); // a copy counts once
                }
                self.now += PULSE;
            }
            self.reach.is_blocked()
        }
    }

    #[test]
    fn three_lost_in_a_row_are_needed_and_five_answered() {
        let mut path = Path::new();
        assert!(!path.run(10, true));
        for _ in 0..10 {
            assert!(!path.run(2, false) && !path.run(1, true));
        }
        assert!(!path.run(3, false));
        assert!(
            path.run(1, false),
            "the third is known lost when the next is due"
        );
        assert!(path.run(4, true) && path.run(1, false) && path.run(4, true));
        assert!(!path.run(1, true));
    }

    #[test]
    fn a_way_that_comes_and_goes_must_hold_for_longer_each_time() {
        let mut path = Path::new();
        for held in [5, 10, 20, 40] {
            assert!(path.run(4, false));
            assert!(path.run(held - 1, true), "{held}");
            assert!(!path.run(1, true), "{held}");
        }
        assert!(!path.run(700, true));
        assert!(path.run(4, false));
        assert!(!path.run(5, true), "all that is long ago");
    }

    #[test]
    fn what_nobody_asked_for_is_no_answer() {
        let mut path = Path::new();
        assert!(path.run(5, false));
        for nonce in 0..100 {
            path.reach.answered(nonce, path.now);
        }
        assert!(path.reach.is_blocked());
        let mut bytes = [0; PROBE];
        for probe in [Probe::Asks(7), Probe::Answers(u64::MAX)] {
            assert_eq!(probe.write(&mut bytes), PROBE);
            assert_eq!(Probe::read(&bytes), Some(probe));
            assert_eq!(Probe::read(&bytes[1..]), None);
        }
        assert_eq!(Probe::read(&[1; PROBE]), None);
    }
}
