//! All that is registered and can be found: containers here and elsewhere, what was entered by hand, and what other meshes
//! lend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nuncio_registry::{Catalog, EndpointHealth, PortRecord, ServiceOffer, Upstream};

use super::Daemon;
use super::config::{ContainerConfig, Port};
use super::networks::Network;
use super::offering::{IGNORED, is_ignored, services_of};
use super::plane::port_of;
use super::record::{Phase, Record};
use super::services::{health_of, offers_of};

/// A place that answers for a service.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    /// Name of the service, in lower case.
    pub(crate) service: String,
    pub(crate) tags: Vec<String>,
    /// An address, or the name of a host outside.
    pub(crate) host: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) health: EndpointHealth,
    /// Why it does not answer, if that is known.
    pub(crate) fault: Option<String>,
    pub(crate) kind: Kind,
}

/// What is at a place.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Container {
        id: String,
        name: String,
        node: String,
        node_name: String,
        network: String,
    },
    /// Entered by hand.
    External,
    /// Of another mesh, by the gateway that runs on a host of this one.
    Imported { peer: String, node: String },
}

impl Kind {
    /// Who keeps others from registering a service under the same name.
    pub(super) fn holder(&self) -> Option<String> {
        match self {
            Self::Container {
                name, node_name, ..
            } => Some(format!("container {name} on {node_name}")),
            Self::Imported { peer, .. } => Some(format!("a service of the mesh {peer}")),
            Self::External => None,
        }
    }
}

impl Registered {
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The network it is in, if it is a container.
    pub(super) fn network(&self) -> Option<&str> {
        match &self.kind {
            Kind::Container { network, .. } => Some(network),
            Kind::External | Kind::Imported { .. } => None,
        }
    }
}

impl Daemon {
    /// All that is registered, as far as it is known here.
    pub(crate) fn registered(&self, catalog: &Catalog) -> Vec<Registered> {
        let mut all = Vec::new();
        for container in self.containers() {
            let record = container.view();
            let runs = matches!(record.phase, Phase::Running { .. });
            if runs && container.is_active() && !container.is_leaving() {
                let health = health_of(container.health().map(|health| health.status));
                all.extend(self.registered_here(&record, health));
            }
        }
        for endpoint in catalog.endpoints.values() {
            if endpoint.node == self.node.id {
                continue;
            }
            let mut offers = offers_of(endpoint);
            if offers.is_empty() && !endpoint.labels.contains_key(IGNORED) {
                offers.extend(by_name(&endpoint.name, &endpoint.ports));
            }
            all.extend(offers.into_iter().map(|offer| Registered {
                host: endpoint.address.to_string(),
                health: endpoint.health,
                kind: Kind::Container {
                    id: endpoint.id.clone(),
                    name: endpoint.name.clone(),
                    node: endpoint.node.clone(),
                    node_name: endpoint.node_name.clone(),
                    network: endpoint.network.clone(),
                },
                ..of_offer(offer)
            }));
        }
        all.extend(outside(catalog));
        all
    }

    fn registered_here(&self, record: &Record, health: EndpointHealth) -> Vec<Registered> {
        let mut all = Vec::new();
        for endpoint in record.endpoints.values() {
            all.extend(
                found_by(&record.config, &record.name)
                    .into_iter()
                    .map(|offer| Registered {
                        host: endpoint.address.to_string(),
                        health,
                        kind: Kind::Container {
                            id: record.id.clone(),
                            name: record.name.clone(),
                            node: self.node.id.clone(),
                            node_name: self.node.name.clone(),
                            network: endpoint.network_id.clone(),
                        },
                        ..of_offer(offer)
                    }),
            );
        }
        all
    }

    /// Of what is registered, what can be reached from this host itself: of each service what is outside or in a network
    /// that has a way from here; if that is nothing, all.
    pub(super) fn reachable(&self, networks: &[Network], all: Vec<Registered>) -> Vec<Registered> {
        let has_way = |network: &Network| match network {
            Network::Local(_) => true,
            Network::Mesh(network) => !self
                .blocks_in(&network.id, network.subnet.into())
                .is_empty(),
        };
        let ways = networks.iter().filter(|network| has_way(network));
        let ways: BTreeSet<&str> = ways.map(Network::id).collect();
        let is_near = |one: &Registered| one.network().is_none_or(|network| ways.contains(network));
        let near = all.iter().filter(|one| is_near(one));
        let near: BTreeSet<String> = near.map(|one| one.service.clone()).collect();
        let is_wanted = |one: &Registered| is_near(one) || !near.contains(&one.service);
        all.into_iter().filter(is_wanted).collect()
    }
}

/// Of those of each service the ones to be used: who is well, else who starts.
pub(super) fn fit<'a>(
    all: impl IntoIterator<Item = &'a Registered>,
) -> BTreeMap<&'a str, Vec<&'a Registered>> {
    let mut services = BTreeMap::<&str, Vec<&Registered>>::new();
    for one in all {
        services.entry(&one.service).or_default().push(one);
    }
    for places in services.values_mut() {
        let fittest = EndpointHealth::fittest(places.iter().map(|one| one.health));
        places.retain(|one| fittest.includes(one.health));
    }
    services
}

/// The services of a container; who says nothing of any is found by its own name, if it exposes something.
fn found_by(config: &ContainerConfig, name: &str) -> Vec<ServiceOffer> {
    if is_ignored(config) {
        return Vec::new();
    }
    let mut offers = services_of(config);
    if offers.is_empty() {
        let ports: Vec<PortRecord> = config.exposed.iter().map(super::plane::record_of).collect();
        offers.extend(by_name(name, &ports));
    }
    offers
}

fn by_name(name: &str, ports: &[PortRecord]) -> Option<ServiceOffer> {
    let offer = ServiceOffer {
        name: name.to_ascii_lowercase(),
        tags: Vec::new(),
        ports: ports.to_vec(),
    };
    (!ports.is_empty()).then_some(offer)
}

fn of_offer(offer: ServiceOffer) -> Registered {
    Registered {
        service: offer.name,
        tags: offer.tags,
        host: Ipv4Addr::UNSPECIFIED.to_string(),
        ports: offer.ports.iter().map(port_of).collect(),
        health: EndpointHealth::Unchecked,
        fault: None,
        kind: Kind::External,
    }
}

fn outside(catalog: &Catalog) -> Vec<Registered> {
    let place = |service: &nuncio_registry::ServiceRecord, upstream: &Upstream, kind| {
        let port = PortRecord {
            port: upstream.port,
            protocol: service.protocol,
        };
        Registered {
            service: service.name.clone(),
            tags: service.tags.clone(),
            host: upstream.host.clone(),
            ports: vec![port_of(&port)],
            health: EndpointHealth::Unchecked,
            fault: None,
            kind,
        }
    };
    let mut all = Vec::new();
    for service in catalog.services.values() {
        let known = catalog
            .service_health
            .get(&service.name)
            .filter(|_| service.check.is_some());
        for upstream in &service.upstreams {
            let mut one = place(service, upstream, Kind::External);
            let found = known.and_then(|known| known.places.get(&upstream.to_string()));
            if let Some(fault) = found {
                one.fault = (!fault.is_empty()).then(|| fault.clone());
                one.health = match one.fault {
                    None => EndpointHealth::Healthy,
                    Some(_) => EndpointHealth::Unhealthy,
                };
            }
            all.push(one);
        }
    }
    for import in catalog.imports.values() {
        let kind = || Kind::Imported {
            peer: import.peer.clone(),
            node: import.node.clone(),
        };
        let upstreams = import.service.upstreams.iter();
        all.extend(upstreams.map(|upstream| place(&import.service, upstream, kind())));
    }
    all
}
