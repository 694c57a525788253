//! What to send to one peer and when, and what to make of its answers: a function of time, without I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::PathState;

/// Between two small probes.
const PULSE: Duration = Duration::from_secs(1);
/// A probe that is not answered by then is lost.
const LOST: Duration = Duration::from_secs(1);
/// As many probes lost in a row make a peer unreachable, or a size too great.
const IN_A_ROW: u32 = 3;
/// As many small probes answered in a row make a path that was blocked one to be relied on,
const HELD: u32 = 5;
/// and of one that comes and goes at most so many, if it went within so long of having come.
const HELD_AT_MOST: u32 = 300;
const FLAPS: Duration = Duration::from_secs(600);
/// Small probes that loss is told of.
const WINDOW: usize = 32;
/// How often the greatest size that got through is tried again.
const CONFIRM: Duration = Duration::from_secs(5);
/// How often it is tried whether more gets through than did.
const GROW: Duration = Duration::from_secs(20);

/// A probe to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Send {
    pub(super) sequence: u16,
    /// Bytes of the IP packet on the underlay.
    pub(super) size: u16,
}

/// What is under way to find the greatest size that gets through.
#[derive(Debug)]
struct Trial {
    /// The size that is tried now.
    size: u16,
    lost: u32,
    aim: Aim,
}

#[derive(Debug)]
enum Aim {
    /// `low` gets through, `high` does not: the answer is between.
    Search { low: u16, high: u16 },
    /// Whether what got through still does.
    Confirm,
    /// Whether one byte more does.
    Grow,
}

#[derive(Debug)]
struct Flight {
    sent: Instant,
    trial: bool,
}

/// One peer's.
#[derive(Debug)]
pub(super) struct Judge {
    least: u16,
    most: u16,
    state: PathState,
    recent: VecDeque<bool>,
    lost_in_a_row: u32,
    answered_in_a_row: u32,
    /// How many of them end the path's being blocked, and when that last did.
    needed: u32,
    restored: Option<Instant>,
    sequence: u16,
    flights: BTreeMap<u16, Flight>,
    trial: Option<Trial>,
    pulse: Instant,
    confirm: Instant,
    grow: Instant,
}

impl Judge {
    /// Sizes are of IP packets on the underlay: `least` that of a small probe, `most` what the link takes.
    pub(super) fn new(least: u16, most: u16, known: Option<u16>, now: Instant) -> Self {
        Self {
            least,
            most,
            state: PathState {
                mtu: known.map(|mtu| mtu.clamp(least, most)),
                ..PathState::default()
            },
            recent: VecDeque::with_capacity(WINDOW),
            lost_in_a_row: 0,
            answered_in_a_row: 0,
            needed: HELD,
            restored: None,
            sequence: 0,
            flights: BTreeMap::new(),
            trial: None,
            pulse: now,
            confirm: now,
            grow: now,
        }
    }

    pub(super) fn state(&self) -> PathState {
        self.state
    }

    /// Begins with what was so before.
    pub(super) fn set_blocked(&mut self, blocked: bool) {
        self.state.blocked = blocked;
    }

    /// The link takes packets of another size now.
    pub(super) fn set_most(&mut self, most: u16, now: Instant) {
        if self.most == most {
            return;
        }
        self.most = most;
        self.trial = None;
        self.state.mtu = self.state.mtu.map(|mtu| mtu.min(most));
        self.grow = now;
    }

    /// When [`Self::tick`] has something to do again.
    pub(super) fn wake(&self) -> Instant {
        let lost = self
            .flights
            .values()
            .map(|flight| flight.sent + self.wait(flight.trial));
        let next = lost.chain([self.pulse]).min().unwrap_or(self.pulse);
        let idle = self.trial.is_none() && self.state.reachable == Some(true);
        match (idle, self.state.mtu) {
            (true, Some(mtu)) if mtu < self.most => next.min(self.confirm).min(self.grow),
            (true, _) => next.min(self.confirm),
            (false, _) => next,
        }
    }

    /// Notes what is lost by now, and returns what is to be sent.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Send> {
        let overdue = |(sequence, flight): (&u16, &Flight)| {
            (flight.sent + self.wait(flight.trial) <= now).then_some(*sequence)
        };
        let overdue: Vec<_> = self.flights.iter().filter_map(overdue).collect();
        for sequence in overdue {
            self.lost(sequence, now);
        }
        let mut sends = Vec::new();
        if self.pulse <= now {
            self.pulse = now + PULSE;
            sends.push(self.send(self.least, false, now));
        }
        if self.state.reachable == Some(true) {
            self.begin_trial(now);
            let flies = self.flights.values().any(|flight| flight.trial);
            if let (Some(trial), false) = (&self.trial, flies) {
                sends.push(self.send(trial.size, true, now));
            }
        }
        sends
    }

    /// The probe could not even be sent, mostly since it is longer than the link takes.
    pub(super) fn unsent(&mut self, sequence: u16, now: Instant) {
        self.lost(sequence, now);
    }

    /// The peer answered. Whether that was waited for.
    pub(super) fn answered(&mut self, sequence: u16, now: Instant) -> bool {
        let Some(flight) = self.flights.remove(&sequence) else {
            return false;
        };
        self.state.reachable = Some(true);
        self.lost_in_a_row = 0;
        if flight.trial {
            self.fits(now);
        } else {
            let took = now.saturating_duration_since(flight.sent);
            // As TCP smooths it (RFC 6298).
            let smooth = |before: Duration| before * 7 / 8 + took / 8;
            self.state.round_trip = Some(self.state.round_trip.map_or(took, smooth));
            self.note(true);
            self.holds(now);
        }
        true
    }

    /// One more in a row was answered.
    fn holds(&mut self, now: Instant) {
        self.answered_in_a_row += 1;
        if self.state.blocked && self.answered_in_a_row >= self.needed {
            self.state.blocked = false;
            self.restored = Some(now);
        }
    }

    /// Too many in a row were lost.
    fn breaks(&mut self, now: Instant) {
        if self.state.blocked {
            return;
        }
        self.state.blocked = true;
        let flaps = self.restored.is_some_and(|then| now < then + FLAPS);
        self.needed = match flaps {
            true => (self.needed * 2).min(HELD_AT_MOST),
            false => HELD,
        };
    }

    fn send(&mut self, size: u16, trial: bool, now: Instant) -> Send {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.flights.insert(sequence, Flight { sent: now, trial });
        Send { sequence, size }
    }

    /// A size is decided by several probes, and one by one: these need not be waited for as long.
    fn wait(&self, trial: bool) -> Duration {
        match self.state.round_trip {
            Some(usual) if trial => (usual * 8).clamp(Duration::from_millis(300), LOST),
            _ => LOST,
        }
    }

    fn note(&mut self, answered: bool) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(answered);
        let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        self.state.sent = count(self.recent.len());
        self.state.lost = count(self.recent.iter().filter(|answered| !**answered).count());
    }

    fn lost(&mut self, sequence: u16, now: Instant) {
        let Some(flight) = self.flights.remove(&sequence) else {
            return;
        };
        if flight.trial {
            if let Some(trial) = &mut self.trial {
                trial.lost += 1;
                if trial.lost >= IN_A_ROW {
                    self.does_not_fit(now);
                }
            }
            return;
        }
        self.note(false);
        self.lost_in_a_row += 1;
        self.answered_in_a_row = 0;
        if self.lost_in_a_row >= IN_A_ROW {
            self.state.reachable = Some(false);
            self.breaks(now);
            self.trial = None; // that nothing gets through tells nothing of sizes
        }
    }

    fn begin_trial(&mut self, now: Instant) {
        if self.trial.is_some() {
            return;
        }
        let (size, aim) = match self.state.mtu {
            None => {
                let high = self.most.saturating_add(1);
                (
                    self.most,
                    Aim::Search {
                        low: self.least,
                        high,
                    },
                )
            }
            Some(mtu) if self.grow <= now && mtu < self.most => (mtu + 1, Aim::Grow),
            Some(mtu) if self.confirm <= now => (mtu, Aim::Confirm),
            Some(_) => return,
        };
        self.trial = Some(Trial { size, lost: 0, aim });
    }

    /// The size that was tried gets through.
    fn fits(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        match trial.aim {
            Aim::Search { high, .. } => self.narrow(trial.size, high, now),
            Aim::Confirm => self.confirm = now + CONFIRM,
            Aim::Grow => {
                self.state.mtu = Some(trial.size);
                let (low, high) = (trial.size, self.most.saturating_add(1));
                if low >= self.most {
                    return self.narrow(low, high, now);
                }
                // Mostly all is as it was before.
                self.trial = Some(Trial {
                    size: self.most,
                    lost: 0,
                    aim: Aim::Search { low, high },
                });
            }
        }
    }

    fn does_not_fit(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        match trial.aim {
            Aim::Search { low, .. } => self.narrow(low, trial.size, now),
            Aim::Confirm => self.narrow(self.least, trial.size, now),
            Aim::Grow => self.grow = now + GROW,
        }
    }

    /// Goes on between what gets through and what does not, or is done.
    fn narrow(&mut self, low: u16, high: u16, now: Instant) {
        if high - low <= 1 {
            self.state.mtu = Some(low);
            (self.confirm, self.grow) = (now + CONFIRM, now + GROW);
            return;
        }
        let size = low + (high - low) / 2;
        self.trial = Some(Trial {
            size,
            lost: 0,
            aim: Aim::Search { low, high },
        });
    }
}

#[cfg(test)]
mod tests;
