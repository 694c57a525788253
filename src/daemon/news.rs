//! What the registry told that is worth an event: hosts and containers that came, went and moved, and networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use nuncio_registry::{Catalog, EndpointRecord, LeaderRecord};

use super::container::locked;
use super::events::Kind;
use super::{Daemon, orchestrator};

/// Something that is otherwise in the registry than it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) about: Vec<(&'static str, String)>,
}

impl Daemon {
    /// Tells what has changed in the registry since the last call; the first that knows anything tells nothing.
    pub(super) fn tell_news(&self) {
        let now = self.catalog();
        if now.revision == 0 {
            return;
        }
        let Some(before) = locked(&self.news_told).replace(Arc::clone(&now)) else {
            return;
        };
        for change in changes(&before, &now, &self.node.id) {
            let about = change.about.into_iter();
            let about = about.map(|(name, value)| (name.to_owned(), value));
            self.events
                .tell(change.kind, change.action, change.id, about);
        }
    }
}

/// What is of this host itself is told where it is done.
fn changes(before: &Catalog, now: &Catalog, own: &str) -> Vec<Change> {
    let mut found = Vec::new();
    registry(before, now, own, &mut found);
    hosts(before, now, own, &mut found);
    found.extend(leader(before, now));
    networks(before, now, &mut found);
    endpoints(before, now, own, &mut found);
    orchestrator::news::changes(before, now, &mut found);
    found
}

fn registry(before: &Catalog, now: &Catalog, own: &str, found: &mut Vec<Change>) {
    let action = match (before.stale.is_some(), now.stale.is_some()) {
        (false, true) => "registry_lost",
        (true, false) => "registry_back",
        _ => return,
    };
    let revision = |catalog: &Catalog| catalog.revision.to_string();
    found.push(Change {
        kind: Kind::Daemon,
        action,
        id: own.to_owned(),
        about: vec![
            (
                "cause",
                "the registry's answers, or their absence".to_owned(),
            ),
            ("before", format!("revision {}", revision(before))),
            ("after", format!("revision {}", revision(now))),
        ],
    });
}

fn hosts(before: &Catalog, now: &Catalog, own: &str, found: &mut Vec<Change>) {
    let mut tell = |id: &String, action, cause: &str, states: [String; 2]| {
        let node = now.nodes.get(id).or_else(|| before.nodes.get(id));
        let name = node.map_or_else(|| id.clone(), |node| node.name.clone());
        let [was, is] = states;
        found.push(Change {
            kind: Kind::Daemon,
            action,
            id: id.clone(),
            about: vec![
                ("name", name),
                ("cause", cause.to_owned()),
                ("before", was),
                ("after", is),
            ],
        });
    };
    let said = |said: &str| said.to_owned();
    for (id, node) in now.nodes.iter().filter(|(id, _)| *id != own) {
        match before.nodes.get(id) {
            None => tell(
                id,
                "peer_join",
                "its record",
                [said("unknown"), node.address.to_string()],
            ),
            Some(was) if was.address != node.address => {
                let addresses = [was, node].map(|node| node.address.to_string());
                tell(id, "peer_move", "its record", addresses);
            }
            Some(_) => {}
        }
    }
    for (id, node) in &before.nodes {
        if !now.nodes.contains_key(id) {
            let cause = "its record was removed";
            tell(
                id,
                "peer_leave",
                cause,
                [node.address.to_string(), said("unknown")],
            );
        }
    }
    for id in now.alive.difference(&before.alive) {
        let action = if id == own {
            "lease_held"
        } else {
            "peer_alive"
        };
        tell(
            id,
            action,
            "its lease was granted",
            [said("no lease"), said("lease")],
        );
    }
    for id in before.alive.difference(&now.alive) {
        let action = if id == own { "lease_lost" } else { "peer_dead" };
        tell(
            id,
            action,
            "its lease has expired or was given back",
            [said("lease"), said("no lease")],
        );
    }
}

/// Who leads what is wanted of the mesh, once that is another host or none.
fn leader(before: &Catalog, now: &Catalog) -> Option<Change> {
    let (was, is) = (&before.desired.leader, &now.desired.leader);
    if was == is {
        return None;
    }
    let named = |catalog: &Catalog, leader: &Option<LeaderRecord>| {
        let id = leader.as_ref().map(|leader| &leader.node)?;
        let node = catalog.nodes.get(id);
        Some(node.map_or_else(|| id.clone(), |node| node.name.clone()))
    };
    let (former, latter) = (named(before, was), named(now, is));
    let lives = |leader: &LeaderRecord| now.alive.contains(&leader.node);
    let cause = match (was, is) {
        (None, _) => "nobody led",
        (Some(was), _) if !lives(was) => "the former leader's lease has expired",
        (Some(was), Some(is)) if was.node == is.node => "it was elected again",
        (Some(_), _) => "the former leader gave it up",
    };
    let either = is.as_ref().or(was.as_ref())?;
    let nobody = || "nobody".to_owned();
    let name = latter.clone().or_else(|| former.clone());
    Some(Change {
        kind: Kind::Daemon,
        action: "leader",
        id: either.node.clone(),
        about: vec![
            ("name", name.unwrap_or_else(nobody)),
            ("cause", cause.to_owned()),
            ("before", former.unwrap_or_else(nobody)),
            ("after", latter.unwrap_or_else(nobody)),
        ],
    })
}

/// Those that others made and removed; what is done here is told as it is done.
fn networks(before: &Catalog, now: &Catalog, found: &mut Vec<Change>) {
    let mut tell = |id: &String, name: &str, action, states: [&str; 2]| {
        found.push(Change {
            kind: Kind::Daemon,
            action,
            id: id.clone(),
            about: vec![
                ("name", name.to_owned()),
                ("network", name.to_owned()),
                ("cause", "its record in the registry".to_owned()),
                ("before", states[0].to_owned()),
                ("after", states[1].to_owned()),
            ],
        });
    };
    for (id, network) in &now.networks {
        if !before.networks.contains_key(id) {
            tell(id, &network.name, "network_known", ["unknown", "known"]);
        }
    }
    for (id, network) in &before.networks {
        if !now.networks.contains_key(id) {
            tell(id, &network.name, "network_gone", ["known", "unknown"]);
        }
    }
}

fn endpoints(before: &Catalog, now: &Catalog, own: &str, found: &mut Vec<Change>) {
    let network = |endpoint: &EndpointRecord| {
        let record = [now, before]
            .into_iter()
            .find_map(|catalog| catalog.networks.get(&endpoint.network));
        record.map_or_else(|| endpoint.network.clone(), |network| network.name.clone())
    };
    let place =
        |endpoint: &EndpointRecord| format!("{} on {}", endpoint.address, endpoint.node_name);
    let none = || "nowhere".to_owned();
    // One that comes up elsewhere under the name of one that went has moved, as far as those are concerned who use it.
    let mut gone = BTreeMap::new();
    for (key, endpoint) in &before.endpoints {
        if endpoint.node != own && !now.endpoints.contains_key(key) {
            gone.insert((endpoint.network.clone(), endpoint.name.clone()), endpoint);
        }
    }
    let mut tell = |endpoint: &EndpointRecord, action, cause: &str, was: String, is: String| {
        found.push(Change {
            kind: Kind::Daemon,
            action,
            id: endpoint.id.clone(),
            about: vec![
                ("name", endpoint.name.clone()),
                ("container", endpoint.id.clone()),
                ("network", network(endpoint)),
                ("host", endpoint.node_name.clone()),
                ("cause", cause.to_owned()),
                ("before", was),
                ("after", is),
            ],
        });
    };
    for (key, endpoint) in now
        .endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.node != own)
    {
        match before.endpoints.get(key) {
            Some(was) if place(was) == place(endpoint) => {}
            Some(was) => tell(
                endpoint,
                "endpoint_move",
                "its host",
                place(was),
                place(endpoint),
            ),
            None => match gone.remove(&(endpoint.network.clone(), endpoint.name.clone())) {
                Some(was) => {
                    let cause = "another container of that name";
                    tell(
                        endpoint,
                        "endpoint_move",
                        cause,
                        place(was),
                        place(endpoint),
                    );
                }
                None => tell(endpoint, "endpoint_up", "its host", none(), place(endpoint)),
            },
        }
    }
    for endpoint in gone.into_values() {
        let cause = match now.alive.contains(&endpoint.node) {
            true => "its host",
            false => "its host's lease has expired",
        };
        tell(endpoint, "endpoint_down", cause, place(endpoint), none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(id: &str, node: &str, address: &str) -> EndpointRecord {
        EndpointRecord {
            network: "n".to_owned(),
            id: id.to_owned(),
            name: "db".to_owned(),
            node: node.to_owned(),
            node_name: format!("host-{node}"),
            address: address.parse().expect("an address"),
            address_v6: None,
            aliases: Vec::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            health: Default::default(),
            services: Default::default(),
        }
    }

    fn catalog(endpoints: &[EndpointRecord], alive: &[&str]) -> Catalog {
        let endpoints = endpoints.iter().cloned();
        let endpoints = endpoints.map(|one| ((one.network.clone(), one.id.clone()), Arc::new(one)));
        Catalog {
            endpoints: endpoints.collect(),
            alive: alive.iter().map(|&id| id.to_owned()).collect(),
            ..Catalog::default()
        }
    }

    /// Action, and what was before and after.
    fn told(before: &Catalog, now: &Catalog) -> Vec<(&'static str, String)> {
        let states = |change: &Change| {
            let of = |key| change.about.iter().find(|(name, _)| *name == key);
            let of = |key| of(key).map_or("", |(_, value)| value.as_str());
            format!("{} -> {}", of("before"), of("after"))
        };
        let changes = changes(before, now, "1");
        changes
            .iter()
            .map(|change| (change.action, states(change)))
            .collect()
    }

    #[test]
    fn a_container_that_comes_moves_and_goes_with_its_host() {
        let none = catalog(&[], &["1", "2"]);
        let up = catalog(&[endpoint("a", "2", "10.0.2.2")], &["1", "2"]);
        let at = |place: &str| place.to_owned();
        assert_eq!(
            told(&none, &up),
            [("endpoint_up", at("nowhere -> 10.0.2.2 on host-2"))]
        );
        let moved = catalog(&[endpoint("b", "3", "10.0.3.2")], &["1", "2"]);
        let expected = "10.0.2.2 on host-2 -> 10.0.3.2 on host-3";
        assert_eq!(told(&up, &moved), [("endpoint_move", at(expected))]);
        let dead = catalog(&[], &["1"]);
        let found = told(&up, &dead);
        assert_eq!(found[0], ("peer_dead", at("lease -> no lease")));
        assert_eq!(
            found[1],
            ("endpoint_down", at("10.0.2.2 on host-2 -> nowhere"))
        );
        assert!(told(&up, &up).is_empty());
    }

    #[test]
    fn who_leads_is_told_when_it_is_another_one() {
        let led = |by: Option<&str>, alive: &[&str]| {
            let mut catalog = catalog(&[], alive);
            catalog.desired.leader = by.map(|node| LeaderRecord {
                node: node.to_owned(),
                since: "2026-01-01T00:00:00Z".to_owned(),
            });
            catalog
        };
        let both = ["2", "3"];
        for (before, now, states, cause) in [
            (
                led(None, &both),
                led(Some("2"), &both),
                "nobody -> 2",
                "nobody led",
            ),
            (
                led(Some("2"), &both),
                led(Some("3"), &both),
                "2 -> 3",
                "gave it up",
            ),
            (
                led(Some("2"), &both),
                led(None, &["3"]),
                "2 -> nobody",
                "has expired",
            ),
        ] {
            let found = leader(&before, &now).expect("a change");
            let of = |key| found.about.iter().find(|(name, _)| *name == key);
            let of = |key| of(key).map_or("", |(_, value)| value.as_str());
            assert_eq!(format!("{} -> {}", of("before"), of("after")), states);
            assert!(of("cause").contains(cause), "{}", of("cause"));
        }
        assert_eq!(
            leader(&led(Some("2"), &both), &led(Some("2"), &["3"])),
            None
        );
    }

    #[test]
    fn what_is_done_on_this_host_is_not_told_a_second_time() {
        let none = catalog(&[], &["1"]);
        let up = catalog(&[endpoint("a", "1", "10.0.1.2")], &["1"]);
        assert!(told(&none, &up).is_empty());
    }
}
