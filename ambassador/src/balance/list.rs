//! The set of endpoints at one moment, and who of it may be chosen.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::ejection::Standing;
use super::endpoint::{Choice, Endpoint, Health};
use super::pick;
use super::settings::{Eject, OnRemove, Policy};

/// The set, never changed but replaced.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) rules: Rules,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
}

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) eject: Eject,
    pub(crate) on_remove: OnRemove,
    /// Flows per endpoint.
    pub(crate) most: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            eject: Eject::default(),
            on_remove: OnRemove::default(),
            most: usize::MAX,
        }
    }
}

/// How much of what is known against endpoints is heeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mood {
    pub(super) all_down: bool,
    pub(super) panic: bool,
}

impl List {
    /// By address, which they are sorted by.
    pub(super) fn find(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let place = (self.endpoints).binary_search_by_key(&address, |endpoint| endpoint.address);
        Some(&self.endpoints[place.ok()?])
    }

    pub(super) fn mood(&self, now: Instant) -> Mood {
        let up = (self.endpoints.iter()).filter(|endpoint| endpoint.health() != Health::Down);
        let up = up.count();
        let mood = Mood {
            all_down: up == 0,
            panic: false,
        };
        let pool = if up == 0 { self.endpoints.len() } else { up };
        let usable =
            (self.endpoints.iter()).filter(|endpoint| self.may_be_had(endpoint, now, mood));
        let ejected = pool.saturating_sub(usable.count());
        Mood {
            panic: ejected * 100 > pool * usize::from(self.rules.eject.panic),
            ..mood
        }
    }

    pub(super) fn untried<'a>(
        &'a self,
        tried: &'a [SocketAddr],
    ) -> impl Iterator<Item = &'a Arc<Endpoint>> + Clone {
        let untried = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.address);
        self.endpoints.iter().filter(untried)
    }

    pub(super) fn is_in_pool(&self, endpoint: &Endpoint, mood: Mood) -> bool {
        mood.all_down || endpoint.health() != Health::Down
    }

    pub(super) fn is_full(&self, endpoint: &Endpoint) -> bool {
        endpoint.active() >= self.rules.most
    }

    /// But for its being full.
    pub(super) fn may_be_had(&self, endpoint: &Endpoint, now: Instant, mood: Mood) -> bool {
        let is_well = || match endpoint.standing(now) {
            Standing::Fine | Standing::ProbeDue => true,
            Standing::Ejected(_) | Standing::Probing => false,
        };
        self.is_in_pool(endpoint, mood) && (mood.panic || is_well())
    }

    pub(super) fn choose(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
        now: Instant,
        mood: Mood,
    ) -> Option<Choice> {
        let candidates =
            (self.untried(tried)).filter(|e| self.may_be_had(e, now, mood) && !self.is_full(e));
        // Others choose at the same time, and may be faster; each time that leaves one less.
        for _ in 0..=self.endpoints.len() {
            let endpoint = pick::pick(self.rules.policy, candidates.clone(), client, now)?;
            if let Some(choice) = self.enter(endpoint, now, mood) {
                return Some(choice);
            }
        }
        None
    }

    /// None if it has become full, or another has begun to probe it.
    pub(super) fn enter(
        &self,
        endpoint: &Arc<Endpoint>,
        now: Instant,
        mood: Mood,
    ) -> Option<Choice> {
        let mut choice = endpoint.enter(self.rules.most)?;
        if mood.panic || endpoint.standing(now) == Standing::Fine {
            return Some(choice);
        }
        choice.probe = endpoint.ejection.begin_probe(endpoint.since(now));
        choice.probe.is_some().then_some(choice)
    }
}
