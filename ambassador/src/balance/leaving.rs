//! Endpoints that have left the set while flows to them are open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::{Endpoint, Fate};
use super::settings::OnRemove;

/// One who was about to choose the endpoint when it left has entered by then.
const SETTLED: Duration = Duration::from_secs(10);

/// Bounded by the flows that are open, and by what has left within [`SETTLED`].
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<Departed>);

#[derive(Debug)]
struct Departed {
    endpoint: Arc<Endpoint>,
    left: Instant,
    /// When its flows must end.
    ends: Option<Instant>,
}

impl Leaving {
    pub(super) fn add(&mut self, endpoint: Arc<Endpoint>, on_remove: OnRemove, now: Instant) {
        self.0
            .retain(|departed| departed.endpoint.active() > 0 || departed.left + SETTLED > now);
        endpoint.set_fate(Fate::Left);
        let ends = match on_remove {
            OnRemove::Keep => None,
            OnRemove::Drain(most) => Some(now + most),
            OnRemove::Reset => Some(now),
        };
        self.0.push(Departed {
            endpoint,
            left: now,
            ends,
        });
    }

    /// An endpoint that has come back.
    pub(super) fn take_back(&mut self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let is_it = |departed: &Departed| departed.endpoint.address == address;
        let place = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(place).endpoint)
    }

    pub(super) fn is_draining(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|departed| {
            let endpoint = &departed.endpoint;
            endpoint.address == address && departed.ends.is_some() && endpoint.fate() == Fate::Left
        })
    }

    /// The endpoints whose flows must end by now, and do not know yet. Now they do.
    pub(super) fn over(&mut self, now: Instant) -> Vec<SocketAddr> {
        let due = (self.0.iter_mut()).filter(|departed| departed.ends.is_some_and(|at| at <= now));
        let unknown = due.filter(|departed| departed.endpoint.fate() == Fate::Left);
        unknown
            .map(|departed| {
                departed.endpoint.set_fate(Fate::Over);
                departed.endpoint.address
            })
            .collect()
    }

    /// When [`Self::over`] has something to tell.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = (self.0.iter()).filter(|departed| departed.endpoint.fate() == Fate::Left);
        waiting.filter_map(|departed| departed.ends).min()
    }

    /// Those with open flows, and when these must end.
    pub(super) fn open(&self) -> impl Iterator<Item = (&Endpoint, Option<Instant>)> {
        let open = (self.0.iter()).filter(|departed| departed.endpoint.active() > 0);
        open.map(|departed| (&*departed.endpoint, departed.ends))
    }
}

#[cfg(test)]
impl Leaving {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
