//! What is known of an endpoint, to be shown.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant, SystemTime};

use super::ejection::Standing;
use super::endpoint::{Endpoint, Fate, Health};

/// What an ambassador knows of an endpoint at one moment.
///
/// Endpoints that have left the set are told of as long as flows to them are open.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share of newcomers, against the other endpoints' weights.
    pub weight: NonZeroU16,
    /// Whether it takes newcomers, and if not, why.
    pub state: EndpointState,
    /// Whether newcomers may get it now. Not quite the same as being up: in panic, when too many
    /// endpoints are ejected or all are down, those in such a state are used too.
    pub usable: bool,
    /// Flows that are open or being connected.
    pub active: usize,
    /// Peak-sensitive moving average of the time that connecting took, faded to this moment (for
    /// UDP: the time to the first reply); none before the first success.
    pub connect_time: Option<Duration>,
    /// Failures to connect since the last success.
    pub failures: u32,
    /// The end of the while it is left alone for, also if that is not heeded; none if it is over.
    pub ejected_until: Option<SystemTime>,
    /// The last failure to connect; it stays when connecting succeeds again.
    pub last_failure: Option<Failure>,
    /// The last check that failed; it stays when checks succeed again.
    pub last_check_failure: Option<Failure>,
    /// When the forward's set first named it, since it was last absent with no flow open.
    pub first_seen: SystemTime,
    /// When the forward learnt the last set that names it. A set that stays the same is learnt
    /// once.
    pub last_seen: SystemTime,
}

/// Whether an endpoint takes newcomers, and if not, why. Of several reasons the first in the order
/// of [`Self::Leaving`], [`Self::Down`], [`Self::Ejected`], [`Self::Probing`], [`Self::Full`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointState {
    /// It takes newcomers.
    Up,
    /// It has as many flows as it may have.
    Full,
    /// It failed, and is left alone until then.
    Ejected {
        /// When one newcomer tries it again.
        until: SystemTime,
    },
    /// It was ejected, and now takes one newcomer at a time until one is connected.
    Probing,
    /// Checks have failed.
    Down,
    /// It has left the set, with flows still open.
    Leaving {
        /// When they are ended; none if they may go on as long as they want.
        until: Option<SystemTime>,
    },
}

impl EndpointState {
    /// Its name in metrics and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Full => "full",
            Self::Ejected { .. } => "ejected",
            Self::Probing => "probing",
            Self::Down => "down",
            Self::Leaving { .. } => "leaving",
        }
    }
}

/// Something that went wrong with an endpoint.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: SystemTime,
    /// What, with its causes.
    pub error: String,
}

impl Failure {
    pub(super) fn now(error: String) -> Self {
        let at = SystemTime::now();
        Self { at, error }
    }
}

/// `usable` and `full` are the balancer's to say.
pub(super) fn view(
    endpoint: &Endpoint,
    now: Instant,
    (usable, full): (bool, bool),
    ends: Option<Instant>,
) -> EndpointView {
    let wall = |at: Instant| SystemTime::now() + at.saturating_duration_since(now);
    let since = endpoint.since(now);
    let log = endpoint.log().clone();
    let standing = endpoint.standing(now);
    let ejected_until = match standing {
        Standing::Ejected(until) => Some(wall(now + until.saturating_sub(since))),
        Standing::Fine | Standing::ProbeDue | Standing::Probing => None,
    };
    let state = match standing {
        _ if endpoint.fate() != Fate::Here => EndpointState::Leaving {
            until: ends.map(wall),
        },
        _ if endpoint.health() == Health::Down => EndpointState::Down,
        Standing::Ejected(_) => EndpointState::Ejected {
            until: ejected_until.unwrap_or_else(SystemTime::now),
        },
        Standing::ProbeDue | Standing::Probing => EndpointState::Probing,
        Standing::Fine if full => EndpointState::Full,
        Standing::Fine => EndpointState::Up,
    };
    EndpointView {
        address: endpoint.address,
        weight: NonZeroU16::new(endpoint.weight()).unwrap_or(NonZeroU16::MIN),
        state,
        usable,
        active: endpoint.active(),
        connect_time: endpoint.peak.faded(since).map(Duration::from_secs_f64),
        failures: endpoint.ejection.failures(),
        ejected_until,
        last_failure: log.failure,
        last_check_failure: log.check,
        first_seen: log.first_seen,
        last_seen: log.last_seen,
    }
}
