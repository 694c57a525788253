//! The graph of hosts, containers, services and the links between them, with what passes, and what has passed in the last hour.
//!
//! A link's counters are the ambassador's; each ten seconds those that have changed are noted, so an idle link costs nothing.

mod others;
mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nuncio_overlay::peer_traffic;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub(crate) use self::others::Elsewhere;
pub(super) use self::others::Parts;
pub(super) use self::ring::Rings;
use self::ring::{Carried, Sample};
use super::Daemon;
use super::container::locked;
use super::record::Record;

/// Between two samples that are kept.
const EVERY: Duration = Duration::from_secs(10);
/// Where what comes from outside of the mesh begins.
const OUTSIDE: &str = "outside";

/// The graph, as this host knows it.
#[derive(Debug, Serialize)]
pub(crate) struct Map {
    time: Timestamp,
    /// The id of the host that tells.
    host: String,
    hosts: Vec<MapHost>,
    containers: Vec<MapContainer>,
    services: Vec<MapService>,
    links: Vec<MapLink>,
    paths: Vec<MapPath>,
}

#[derive(Debug, Serialize)]
struct MapHost {
    id: String,
    name: String,
    address: String,
    alive: bool,
}

#[derive(Debug, Default, Serialize)]
struct MapContainer {
    id: String,
    name: String,
    /// Id of its host.
    host: String,
    /// Of containers of other hosts only those that run are known.
    state: &'static str,
    /// Addresses by network.
    networks: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct MapService {
    id: String,
    name: String,
    network: String,
    /// Ids of containers.
    members: Vec<String>,
}

/// An edge: from containers of this host, or `outside`, to a container or a service.
#[derive(Debug, Serialize)]
struct MapLink {
    id: String,
    /// Id of the host that tells of it, whose containers use it.
    host: String,
    /// `link`, `service` or `publish`.
    kind: &'static str,
    alias: Option<String>,
    /// Ids of those that have the link; empty for a service, which all on its network may use.
    from: Vec<String>,
    /// Names of containers or ids of services.
    to: Vec<String>,
    /// `ambassador` counts what passes; of what goes `straight` to a container of this host nothing is known but that it may.
    way: &'static str,
    /// Absent where nobody counts.
    carried: Option<Carried>,
    rate: Option<Rate>,
    /// When, in milliseconds since 1970, and what was carried until then; only where that had changed. Oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<Sample>,
}

/// Per second, over the last seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Rate {
    bytes_in: f64,
    bytes_out: f64,
    flows: f64,
}

/// From this host to another.
#[derive(Debug, Serialize)]
struct MapPath {
    to: String,
    reachable: Option<bool>,
    round_trip: Option<f64>,
    loss: f64,
    mtu: Option<u16>,
    /// What goes there goes around by TLS.
    around: bool,
    sent_bytes: Option<u64>,
    received_bytes: Option<u64>,
}

/// What the ambassador says of one endpoint of a forward.
#[derive(Debug, Deserialize)]
struct Totals {
    forward: String,
    #[serde(flatten)]
    carried: Carried,
}

impl Daemon {
    /// The graph at this moment; with `history` what passed in the last hour.
    pub(crate) async fn map(&self, history: bool) -> anyhow::Result<Map> {
        let (_, traffic) = tokio::join!(self.sample_links(false), peer_traffic());
        let catalog = self.catalog();
        let traffic = traffic.unwrap_or_default();
        let paths = self.path_states();
        let others = catalog
            .nodes
            .values()
            .filter(|node| node.id != self.node.id);
        let path = |node: &Arc<nuncio_registry::NodeRecord>| {
            let state = paths.get(&node.address)?;
            let traffic = traffic.get(&node.address);
            Some(MapPath {
                to: node.id.clone(),
                reachable: state.reachable,
                round_trip: state.round_trip.map(|took| took.as_secs_f64()),
                loss: f64::from(state.lost) / f64::from(state.sent.max(1)),
                mtu: state.mtu,
                around: self.goes_around(node.address, false).is_some(),
                sent_bytes: traffic.map(|traffic| traffic.sent_bytes),
                received_bytes: traffic.map(|traffic| traffic.received_bytes),
            })
        };
        let paths = others.filter_map(path).collect();
        let host = |node: &Arc<nuncio_registry::NodeRecord>| MapHost {
            id: node.id.clone(),
            name: node.name.clone(),
            address: node.address.to_string(),
            alive: catalog.alive.contains(&node.id),
        };
        let sight = self.sight().await?;
        let service = |service: &super::services::Service| MapService {
            id: service_id(&service.network_name, &service.name),
            name: service.name.clone(),
            network: service.network_name.clone(),
            members: service
                .members
                .iter()
                .map(|member| member.id.clone())
                .collect(),
        };
        Ok(Map {
            time: Timestamp::now(),
            host: self.node.id.clone(),
            hosts: catalog.nodes.values().map(host).collect(),
            containers: self.mapped_containers(),
            services: sight.services.iter().map(service).collect(),
            links: self.mapped_links(&sight.active, history),
            paths,
        })
    }

    fn mapped_containers(&self) -> Vec<MapContainer> {
        let catalog = self.catalog();
        let mut found = BTreeMap::<String, MapContainer>::new();
        for record in self.containers().iter().map(|container| container.view()) {
            let networks = record.endpoints.iter();
            let networks =
                networks.map(|(name, endpoint)| (name.clone(), endpoint.address.to_string()));
            let container = MapContainer {
                id: record.id.clone(),
                host: self.node.id.clone(),
                state: record.phase.name(),
                networks: networks.collect(),
                name: record.name,
            };
            found.insert(record.id, container);
        }
        let others = catalog.endpoints.values();
        for endpoint in others.filter(|endpoint| endpoint.node != self.node.id) {
            let network = catalog.networks.get(&endpoint.network);
            let network = network.map_or(&endpoint.network, |network| &network.name);
            let container = found
                .entry(endpoint.id.clone())
                .or_insert_with(|| MapContainer {
                    id: endpoint.id.clone(),
                    name: endpoint.name.clone(),
                    host: endpoint.node.clone(),
                    state: "running",
                    networks: BTreeMap::new(),
                });
            container
                .networks
                .insert(network.clone(), endpoint.address.to_string());
        }
        found.into_values().collect()
    }

    fn mapped_links(&self, active: &[Record], history: bool) -> Vec<MapLink> {
        let rings = locked(&self.rings);
        let mut links = straight_links(active, &self.node.id);
        for id in rings.links() {
            let mut words = id.split('/');
            let (kind, to) = match words.next() {
                Some("link") => ("link", words.next().unwrap_or_default().to_owned()),
                Some("service") => {
                    let (network, name) = (
                        words.next().unwrap_or_default(),
                        words.next().unwrap_or_default(),
                    );
                    ("service", service_id(network, name))
                }
                _ => ("publish", published_by(active, id)),
            };
            let users = active
                .iter()
                .flat_map(|record| record.links.iter().map(move |link| (record, link)));
            let users: Vec<_> = users
                .filter(|(_, link)| kind == "link" && link.remote && link.target == to)
                .collect();
            let from: BTreeSet<String> = match kind {
                "publish" => [OUTSIDE.to_owned()].into(),
                _ => users.iter().map(|(record, _)| record.id.clone()).collect(),
            };
            links.push(MapLink {
                host: self.node.id.clone(),
                kind,
                alias: users.first().map(|(_, link)| link.alias.clone()),
                from: from.into_iter().collect(),
                to: vec![to],
                way: "ambassador",
                carried: rings.carried(id),
                rate: rings.rate(id),
                samples: if history {
                    rings.samples(id)
                } else {
                    Vec::new()
                },
                id: id.clone(),
            });
        }
        links
    }

    /// What the ambassador carries now, in its own JSON.
    pub(crate) async fn flows(&self) -> anyhow::Result<bytes::Bytes> {
        self.ambassador.ask("/flows").await
    }

    /// Asks the ambassador what it has carried; `keep`: for the last hour.
    async fn sample_links(&self, keep: bool) -> bool {
        let Ok(body) = self.ambassador.ask("/totals").await else {
            return false; // it is not there, or older than this daemon
        };
        let Ok(totals) = serde_json::from_slice::<Vec<Totals>>(&body) else {
            return false;
        };
        let mut links = BTreeMap::<String, Carried>::new();
        for one in totals {
            links.entry(one.forward).or_default().add(&one.carried);
        }
        locked(&self.rings).note(links, Timestamp::now(), keep);
        true
    }
}

/// Takes samples until `stop`.
pub(super) async fn sample(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        daemon.sample_links(true).await;
    }
}

fn service_id(network: &str, name: &str) -> String {
    format!("service/{network}/{name}")
}

/// Links between containers of this host, which the bridge carries.
fn straight_links(active: &[Record], host: &str) -> Vec<MapLink> {
    let links = active
        .iter()
        .flat_map(|record| record.links.iter().map(move |link| (record, link)));
    let straight = links.filter(|(_, link)| !link.remote);
    let links = straight.map(|(record, link)| MapLink {
        id: format!("straight/{}/{}", record.name, link.alias),
        host: host.to_owned(),
        kind: "link",
        alias: Some(link.alias.clone()),
        from: vec![record.id.clone()],
        to: vec![link.target.clone()],
        way: "straight",
        carried: None,
        rate: None,
        samples: Vec::new(),
    });
    links.collect()
}

/// The name of the container that has this published port.
fn published_by(active: &[Record], forward: &str) -> String {
    let has_it = |record: &&Record| {
        let names = record.published.iter().map(super::ports::forward_name);
        names.into_iter().any(|name| name == forward)
    };
    let found = active.iter().find(has_it);
    found.map_or_else(
        || "nothing any more".to_owned(),
        |record| record.name.clone(),
    )
}
