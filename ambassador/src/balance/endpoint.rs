//! One endpoint of a forward: what is known of it, readable without a lock.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::ejection::{Ejection, Probe, Standing};
use super::peak::Peak;
use super::view::Failure;

/// An endpoint. It outlives its place in the set while flows to it are open.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// All durations below are since then.
    epoch: Instant,
    /// A hash of the address that every ambassador agrees on.
    pub(super) seed: u64,
    weight: AtomicU16,
    active: AtomicUsize,
    /// What round robin owes it.
    pub(super) turn: AtomicI64,
    pub(super) peak: Peak,
    pub(super) ejection: Ejection,
    health: AtomicU8,
    fate: AtomicU8,
    /// Told when a flow has ended, or checks have found something else.
    freed: Arc<Notify>,
    log: Mutex<Log>,
}

/// What is only shown.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) first_seen: SystemTime,
    pub(super) last_seen: SystemTime,
    pub(super) failure: Option<Failure>,
    pub(super) check: Option<Failure>,
}

/// What checks say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Health {
    Unknown,
    Up,
    Down,
}

/// Whether flows may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Fate {
    /// It is in the set.
    Here,
    /// It has left the set.
    Left,
    /// It has left the set, and the time of its flows is over.
    Over,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, epoch: Instant, freed: Arc<Notify>) -> Self {
        let now = SystemTime::now();
        Self {
            address,
            epoch,
            seed: seed(address),
            weight: AtomicU16::new(1),
            active: AtomicUsize::new(0),
            turn: AtomicI64::new(0),
            peak: Peak::default(),
            ejection: Ejection::default(),
            health: AtomicU8::new(Health::Unknown as u8),
            fate: AtomicU8::new(Fate::Here as u8),
            freed,
            log: Mutex::new(Log {
                first_seen: now,
                last_seen: now,
                failure: None,
                check: None,
            }),
        }
    }

    pub(super) fn weight(&self) -> u16 {
        self.weight.load(Ordering::Relaxed)
    }

    /// The set has named it.
    pub(super) fn named(&self, weight: NonZeroU16) {
        self.weight.store(weight.get(), Ordering::Relaxed);
        self.set_fate(Fate::Here);
        self.log().last_seen = SystemTime::now();
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    pub(crate) fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// What the checks have found, and why, if they have found fault.
    pub(crate) fn checked(&self, health: Health, fault: Option<String>) {
        let before = self.health.swap(health as u8, Ordering::Relaxed);
        if before != health as u8 {
            self.freed.notify_one();
        }
        if let Some(error) = fault {
            self.log().check = Some(Failure::now(error));
        }
    }

    pub(super) fn fate(&self) -> Fate {
        // Ordered with the flow table's lock: who enters a flow after the table was swept sees it.
        match self.fate.load(Ordering::SeqCst) {
            0 => Fate::Here,
            1 => Fate::Left,
            _ => Fate::Over,
        }
    }

    pub(super) fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::SeqCst);
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        self.ejection.standing(self.since(now))
    }

    /// Lower is better.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        // A microsecond, so that open flows count among endpoints that were never measured.
        let average = self.peak.faded(self.since(now)).unwrap_or(0.0) + 1e-6;
        average * (self.active() as f64 / f64::from(self.weight()) + 1.0)
    }

    pub(super) fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more flow, unless there are `most`.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<Choice> {
        let one_more = |active| (active < most).then(|| active + 1);
        (self.active)
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Choice {
            endpoint: self.clone(),
            probe: None,
        })
    }
}

/// An endpoint that was chosen, which counts it as active until this is dropped.
#[derive(Debug)]
pub(crate) struct Choice {
    endpoint: Arc<Endpoint>,
    pub(super) probe: Option<Probe>,
}

impl Choice {
    /// Whether the endpoint has left the set and its flows must end. Asked after the flow was
    /// entered into the flow table, it cannot be missed: either this tells, or the flow is ended
    /// with the others.
    pub(crate) fn is_over(&self) -> bool {
        self.endpoint.fate() == Fate::Over
    }
}

impl Deref for Choice {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Ordering::Relaxed);
        if let Some(probe) = &self.probe {
            self.endpoint.ejection.end_probe(probe);
        }
        self.endpoint.freed.notify_one();
    }
}

fn seed(address: SocketAddr) -> u64 {
    mix(hash(address.ip()) ^ u64::from(address.port()))
}

/// The same on every host and in every version, for ambassadors must agree.
pub(super) fn hash(address: IpAddr) -> u64 {
    let bits = match address.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators): each bit of the result depends on each bit of the argument.
pub(super) fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
