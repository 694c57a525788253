//! How a forward chooses among its endpoints, as it is told.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::Check;

/// How newcomers are spread over the endpoints of a forward, and what becomes of endpoints that
/// fail, or leave.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Balance {
    /// Which endpoint a newcomer gets.
    pub policy: Policy,
    /// When an endpoint that cannot be reached is left alone for a while.
    pub eject: Eject,
    /// What becomes of open flows whose endpoint leaves the set.
    pub on_remove: OnRemove,
    /// How endpoints are asked whether they are well; `None` asks nobody.
    pub check: Option<Check>,
}

/// Which endpoint a newcomer gets. Weights count in each of them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Policy {
    /// The better of two at random: by open flows for their weight, times a peak-sensitive moving
    /// average of the time that connecting took. UDP, which does not connect, goes by the client's
    /// address and port instead, alike in every ambassador (Maglev).
    #[default]
    P2c,
    /// One after the other, the heavier ones more often, and those turns evenly apart. Exact for
    /// one who chooses at a time; newcomers at the same instant may get the same endpoint, which
    /// later turns make good.
    RoundRobin,
    /// The one with the fewest open flows for its weight; at random among equals.
    LeastConnections,
    /// By the client's IP address. A client keeps its endpoint while that one is usable, whatever
    /// happens to others, and every ambassador chooses alike (weighted rendezvous hashing).
    SourceHash,
    /// At random.
    Random,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::P2c,
        Self::RoundRobin,
        Self::LeastConnections,
        Self::SourceHash,
        Self::Random,
    ];

    /// Its name in configurations and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::SourceHash => "source_hash",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When an endpoint that cannot be reached is left alone for a while.
///
/// The while doubles each time until a newcomer is connected again. When it is over, one newcomer
/// at a time tries the endpoint, and the first who is connected brings it back. The last endpoint
/// is never ejected.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Eject {
    /// Failures in a row that eject.
    pub after: NonZeroU32,
    /// The first while.
    pub first: Duration,
    /// The longest while.
    pub longest: Duration,
    /// Per cent of the endpoints. If more than these are ejected, the fault is likely elsewhere:
    /// then ejection is ignored, and all are used. With 100 that never happens.
    pub panic: u8,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            after: NonZeroU32::MIN,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
            panic: 50,
        }
    }
}

/// What becomes of open flows whose endpoint leaves the set. An endpoint that comes back in time
/// keeps its flows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OnRemove {
    /// TCP flows go on as long as their peers want. A UDP session, which has no end that one could
    /// wait for, gets another endpoint with its next datagram.
    #[default]
    Keep,
    /// Flows go on for at most that long. Then both peers of a TCP flow see a reset, and a UDP
    /// session gets another endpoint.
    Drain(Duration),
    /// At once both peers of a TCP flow see a reset, and a UDP session gets another endpoint.
    Reset,
}
