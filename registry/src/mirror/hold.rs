//! Holding endpoints back when most of the mesh seems to die at once.
//!
//! A few hosts do die. Most of them at the same moment is rather a registry that lost touch with them, and
//! taking their endpoints out of names and endpoint sets would turn its trouble into everybody's outage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::warn;

use crate::catalog::Catalog;
use crate::model::EndpointRecord;

/// Expiries this close together count as one: leases end within one TTL of their last beat.
const WINDOW: Duration = Duration::from_secs(15);
/// How long endpoints are held back at most.
const LONGEST: Duration = Duration::from_secs(600);
/// Below this many nodes, half of them is no majority to speak of.
const FEWEST: usize = 3;

type Endpoints = BTreeMap<(String, String), Arc<EndpointRecord>>;

/// Nodes that vanished lately, and those whose endpoints are held back for it.
#[derive(Debug, Default)]
pub(super) struct Hold {
    departed: BTreeMap<String, Departure>,
    /// When endpoints began to be held back.
    since: Option<(Instant, SystemTime)>,
}

#[derive(Debug)]
struct Departure {
    at: Instant,
    endpoints: Endpoints,
}

impl Hold {
    /// Notes who came and went between two catalogs.
    pub(super) fn observe(&mut self, now: Instant, before: &Catalog, after: &Catalog) {
        self.departed.retain(|node, _| !after.alive.contains(node));
        for node in before.alive.difference(&after.alive) {
            let lost = |(id, endpoint): (&(String, String), &Arc<EndpointRecord>)| {
                let gone = endpoint.node == *node && !after.endpoints.contains_key(id);
                gone.then(|| (id.clone(), Arc::clone(endpoint)))
            };
            let endpoints = before.endpoints.iter().filter_map(lost).collect();
            self.departed
                .insert(node.clone(), Departure { at: now, endpoints });
        }
        self.expire(now);
        let known = self.departed.len() + after.alive.len();
        if self.since.is_none() && known >= FEWEST && self.departed.len() * 2 > known {
            warn!(
                departed = self.departed.len(),
                known, "most nodes vanished at once, holding their endpoints"
            );
            self.since = Some((now, SystemTime::now()));
        }
    }

    /// `truth` with the endpoints that are held back.
    pub(super) fn overlay(&mut self, now: Instant, truth: &Catalog) -> Catalog {
        self.expire(now);
        let mut shown = truth.clone();
        if let Some((_, since)) = self.since {
            shown.stale = Some(truth.stale.map_or(since, |stale| stale.min(since)));
            for departure in self.departed.values() {
                for (id, endpoint) in &departure.endpoints {
                    shown
                        .endpoints
                        .entry(id.clone())
                        .or_insert_with(|| Arc::clone(endpoint));
                }
            }
        }
        shown
    }

    /// When what is held back must be let go, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|(since, _)| since + LONGEST)
    }

    fn expire(&mut self, now: Instant) {
        match self.since {
            None => self
                .departed
                .retain(|_, departure| now < departure.at + WINDOW),
            Some((since, _)) if self.departed.is_empty() || now >= since + LONGEST => {
                self.departed.clear();
                self.since = None;
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::catalog::tests::endpoint;

    /// A mesh of the nodes 1 to `n` with one endpoint each, of which `alive` live.
    fn mesh(alive: impl IntoIterator<Item = u8>) -> Catalog {
        let mut catalog = Catalog::default();
        for i in alive {
            let (node, id) = (format!("n{i}"), format!("c{i}"));
            let record = endpoint(&id, &node, i);
            catalog.alive.insert(node);
            catalog
                .endpoints
                .insert(("net".to_owned(), id), Arc::new(record));
        }
        catalog
    }

    #[test]
    fn a_minority_goes_at_once() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let after = mesh(3..=5);
        hold.observe(now, &mesh(1..=5), &after);
        assert_eq!(hold.overlay(now, &after), after);
        assert_eq!(hold.deadline(), None);
    }

    #[tokio::test]
    async fn a_majority_is_held_one_expiry_after_the_other_and_marked() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        for i in 1..=3 {
            hold.observe(now, &mesh(i..=4), &mesh(i + 1..=4));
        }
        let shown = hold.overlay(now, &mesh(4..=4));
        assert_eq!(shown.endpoints.len(), 4);
        assert!(shown.stale.is_some());

        let back = mesh(2..=4);
        hold.observe(now, &mesh(4..=4), &back);
        assert_eq!(
            hold.overlay(now, &back).endpoints.len(),
            4,
            "n1 is still away"
        );
        hold.observe(now, &back, &mesh(1..=4));
        let shown = hold.overlay(now, &mesh(1..=4));
        assert_eq!(shown, mesh(1..=4));
        assert_eq!(hold.deadline(), None);
    }

    #[test]
    fn it_does_not_last_for_ever() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        hold.observe(now, &mesh(1..=3), &mesh(0..0));
        let later = hold.deadline().unwrap();
        assert_eq!(
            hold.overlay(later - Duration::from_secs(1), &mesh(0..0))
                .endpoints
                .len(),
            3
        );
        assert_eq!(hold.overlay(later, &mesh(0..0)), mesh(0..0));
    }

    #[test]
    fn two_nodes_are_no_majority_and_slow_departures_no_mass() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        hold.observe(now, &mesh(1..=2), &mesh(0..0));
        assert_eq!(hold.overlay(now, &mesh(0..0)), mesh(0..0));

        let mut hold = Hold::default();
        for i in 1..=3_u8 {
            let at = now + WINDOW * u32::from(i);
            hold.observe(at, &mesh(i..=4), &mesh(i + 1..=4));
        }
        assert_eq!(hold.deadline(), None);
    }

    #[test]
    fn what_a_node_withdrew_before_it_vanished_stays_withdrawn() {
        let (mut hold, now) = (Hold::default(), Instant::now());
        let mut before = mesh(1..=3);
        before.endpoints.clear();
        hold.observe(now, &before, &mesh(0..0));
        assert!(hold.overlay(now, &mesh(0..0)).endpoints.is_empty());
    }
}
