//! Chooses an upstream for each newcomer.

mod ejection;
mod endpoint;
mod leaving;
mod list;
mod peak;
mod pick;
mod settings;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::time::timeout;

pub(crate) use endpoint::{Choice, Endpoint, Health};
use leaving::Leaving;
pub(crate) use list::Rules;
use list::{List, Mood};
pub use settings::{Balance, Eject, OnRemove, Policy};
pub use view::{EndpointState, EndpointView, Failure};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The endpoints of one forward, and what is known of each. Choosing takes no lock.
#[derive(Debug)]
pub(crate) struct Balancer {
    list: ArcSwap<List>,
    /// Endpoints that have left while flows to them were open. Locked by all who change the list,
    /// or eject.
    leaving: Mutex<Leaving>,
    epoch: Instant,
    /// Grows with each change of the set or the rules.
    revision: AtomicU64,
    /// Wakes one of those who wait for an endpoint that is not full.
    freed: Arc<Notify>,
}

/// Why there is no choice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NoChoice {
    /// Those that could be chosen have as many flows as they may.
    Full,
    /// Nothing is left to try.
    Exhausted,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            list: ArcSwap::default(),
            leaving: Mutex::default(),
            epoch: Instant::now(),
            revision: AtomicU64::new(0),
            freed: Arc::default(),
        }
    }
}

impl Balancer {
    pub(crate) fn configure(&self, rules: Rules) {
        let _leaving = self.lock();
        let endpoints = self.list.load().endpoints.clone();
        self.list.store(Arc::new(List { rules, endpoints }));
        self.revision.fetch_add(1, Ordering::Release);
        self.freed.notify_one();
    }

    /// How it chooses.
    pub(crate) fn policy(&self) -> Policy {
        self.list.load().rules.policy
    }

    /// Takes over a new set. Endpoints that stay keep what is known of them, and an empty set is
    /// no news: discovery that fails must not stop a service that works.
    ///
    /// Returns the endpoints that have left.
    pub(crate) fn update(
        &self,
        members: &[(SocketAddr, NonZeroU16)],
        now: Instant,
    ) -> Vec<SocketAddr> {
        if members.is_empty() {
            return Vec::new();
        }
        let mut leaving = self.lock();
        let list = self.list.load();
        let known = list.endpoints.iter().map(|e| (e.address, e.clone()));
        let mut known: HashMap<_, _> = known.collect();
        // Sorted, and each once.
        let members: BTreeMap<_, _> = members.iter().copied().collect();
        let member = |(address, weight)| {
            let back = || leaving.take_back(address);
            let endpoint = known.remove(&address).or_else(back).unwrap_or_else(|| {
                let freed = self.freed.clone();
                Arc::new(Endpoint::new(address, self.epoch, freed))
            });
            endpoint.named(weight);
            endpoint
        };
        let endpoints = members.into_iter().map(member).collect();
        let rules = list.rules;
        self.list.store(Arc::new(List { rules, endpoints }));
        self.revision.fetch_add(1, Ordering::Release);
        let left = known.keys().copied().collect();
        for endpoint in known.into_values() {
            leaving.add(endpoint, rules.on_remove, now);
        }
        self.freed.notify_one();
        left
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.load().endpoints.is_empty()
    }

    /// Whether UDP sessions may stay with it: it is in the set, or being drained.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.list.load().find(address).is_some() || self.lock().is_draining(address)
    }

    /// The endpoints of the set.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.list.load().endpoints.clone()
    }

    /// Differs from an earlier one if policy, set or weights may have changed since.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The endpoints of the set, each with its weight.
    pub(crate) fn weights(&self) -> Vec<(SocketAddr, u32)> {
        let list = self.list.load();
        let weighed = |e: &Arc<Endpoint>| (e.address, e.weight().into());
        list.endpoints.iter().map(weighed).collect()
    }

    /// Chooses the endpoint at `address`, unless one should choose another, or it is full.
    pub(crate) fn take(&self, address: SocketAddr, now: Instant) -> Option<Choice> {
        let list = self.list.load();
        let mood = list.mood(now);
        let endpoint = list.find(address)?;
        (list.may_be_had(endpoint, now, mood)).then(|| list.enter(endpoint, now, mood))?
    }

    /// Chooses among the endpoints that are not in `tried`; an ejected one only if no other is
    /// left, one that is down only if all are.
    pub(crate) fn choose(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Result<Choice, NoChoice> {
        let list = self.list.load();
        let mood = list.mood(now);
        if let Some(choice) = list.choose(client, tried, now, mood) {
            return Ok(choice);
        }
        let untried = || list.untried(tried);
        if untried().any(|e| list.may_be_had(e, now, mood) && list.is_full(e)) {
            return Err(NoChoice::Full);
        }
        let last_resort = Mood {
            panic: true,
            ..mood
        };
        match list.choose(client, tried, now, last_resort) {
            Some(choice) => Ok(choice),
            None if untried().any(|e| list.is_full(e)) => Err(NoChoice::Full),
            None => Err(NoChoice::Exhausted),
        }
    }

    /// The endpoints that those may use who choose by themselves, each with its weight: as
    /// [`Self::choose`] has it, but for how many flows they have.
    pub(crate) fn usable(&self, now: Instant) -> Vec<(SocketAddr, u16)> {
        let list = self.list.load();
        let mood = list.mood(now);
        let last_resort = Mood {
            panic: true,
            ..mood
        };
        let in_mood = |mood| -> Vec<_> {
            let usable = (list.endpoints.iter()).filter(|e| list.may_be_had(e, now, mood));
            usable.map(|e| (e.address, e.weight())).collect()
        };
        let well = in_mood(mood);
        if well.is_empty() {
            in_mood(last_resort)
        } else {
            well
        }
    }

    /// As [`Self::choose`], but waits while all are full. None when nothing is left to try.
    pub(crate) async fn choose_when_free(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
    ) -> Option<Choice> {
        let mut waited = false;
        loop {
            match self.choose(client, tried, Instant::now()) {
                Ok(choice) => {
                    // Two who were freed at once may have woken only one.
                    if waited {
                        self.freed.notify_one();
                    }
                    return Some(choice);
                }
                Err(NoChoice::Exhausted) => return None,
                // Nobody tells when an ejection ends.
                Err(NoChoice::Full) => {
                    let _ = timeout(LOOK_AGAIN, self.freed.notified()).await;
                }
            }
            waited = true;
        }
    }

    /// Whether there are endpoints to try but `chosen` and those in `tried`.
    pub(crate) fn has_others(
        &self,
        chosen: SocketAddr,
        tried: &[SocketAddr],
        now: Instant,
    ) -> bool {
        let list = self.list.load();
        let mood = list.mood(now);
        (list.untried(tried))
            .any(|e| e.address != chosen && list.is_in_pool(e, mood) && !list.is_full(e))
    }

    /// Whether newcomers need not go to `address`: another endpoint may be had without its being
    /// the last resort, or this one is not in the set any more.
    pub(crate) fn has_alternative(&self, address: SocketAddr, now: Instant) -> bool {
        let list = self.list.load();
        let mood = Mood {
            panic: false,
            ..list.mood(now)
        };
        let mut others = list.untried(std::slice::from_ref(&address));
        list.find(address).is_none() || others.any(|e| list.may_be_had(e, now, mood))
    }

    pub(crate) fn succeeded(&self, address: SocketAddr, took: Duration, now: Instant) {
        if let Some(endpoint) = self.list.load().find(address) {
            endpoint.peak.measure(took, endpoint.since(now));
            endpoint.ejection.succeeded();
        }
    }

    /// Ejects the endpoint for a while that doubles each time, unless it is the last one or has not
    /// failed often enough. Returns for how long. `error` is shown as its last failure.
    pub(crate) fn failed(
        &self,
        address: SocketAddr,
        error: &dyn std::fmt::Display,
        now: Instant,
    ) -> Option<Duration> {
        let _leaving = self.lock();
        let list = self.list.load();
        let endpoint = list.find(address)?;
        endpoint.log().failure = Some(Failure::now(error.to_string()));
        let mood = Mood {
            panic: false,
            ..list.mood(now)
        };
        let mut others = list.untried(std::slice::from_ref(&address));
        let may_go = others.any(|e| list.may_be_had(e, now, mood));
        (endpoint.ejection).failed(endpoint.since(now), &list.rules.eject, may_go)
    }

    /// The endpoints whose flows must end now, and from now on.
    pub(crate) fn over(&self, now: Instant) -> Vec<SocketAddr> {
        self.lock().over(now)
    }

    /// When [`Self::over`] has something to tell.
    pub(crate) fn next_over(&self) -> Option<Instant> {
        self.lock().next()
    }

    /// What is known of each endpoint, by address.
    pub(crate) fn views(&self, now: Instant) -> Vec<EndpointView> {
        let leaving = self.lock();
        let list = self.list.load();
        let mood = list.mood(now);
        let present = list.endpoints.iter().map(|endpoint| {
            let full = list.is_full(endpoint);
            let usable = list.may_be_had(endpoint, now, mood) && !full;
            view::view(endpoint, now, (usable, full), None)
        });
        let gone = (leaving.open())
            .map(|(endpoint, ends)| view::view(endpoint, now, (false, false), ends));
        let mut views: Vec<_> = present.chain(gone).collect();
        views.sort_unstable_by_key(|view| view.address);
        views
    }

    fn lock(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
