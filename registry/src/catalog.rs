//! What is known of the mesh at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::SystemTime;

use ipnetwork::IpNetwork;
use tracing::warn;

use crate::desired::{
    AckRecord, Desired, DesiredRecord, LeaderRecord, TaskRecord, TaskStatusRecord,
};
use crate::keys::Key;
use crate::model::{
    BlockRecord, EndpointHealth, EndpointRecord, ImportRecord, NetworkRecord, NodeRecord,
    PortRecord, Protocol, ServiceHealthRecord, ServiceRecord, Upstream,
};
use crate::wire::{DecodeError, Record};

/// The label of a container that says how many newcomers it gets, against others of its name.
const WEIGHT: &str = "nuncio.weight";

/// Everything the registry tells, as of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// Revision of the registry this reflects; 0 before anything was learned.
    pub revision: i64,
    /// Since when this may be out of date: the registry does not answer, or endpoints are held back
    /// because most nodes vanished at once.
    pub stale: Option<SystemTime>,
    /// Hosts by identifier, alive or not.
    pub nodes: BTreeMap<String, Arc<NodeRecord>>,
    /// Identifiers of the hosts whose lease lives.
    pub alive: BTreeSet<String>,
    /// Networks by identifier.
    pub networks: BTreeMap<String, Arc<NetworkRecord>>,
    /// Blocks by network and address range.
    pub blocks: BTreeMap<(String, IpNetwork), Arc<BlockRecord>>,
    /// Running containers by network and container.
    pub endpoints: BTreeMap<(String, String), Arc<EndpointRecord>>,
    /// Services outside of the mesh by name.
    pub services: BTreeMap<String, Arc<ServiceRecord>>,
    /// How those are that are checked, by name.
    pub service_health: BTreeMap<String, Arc<ServiceHealthRecord>>,
    /// Services of other meshes by name and the host that brings them in.
    pub imports: BTreeMap<(String, String), Arc<ImportRecord>>,
    /// What is wanted of the mesh as a whole, and what is done for it.
    pub desired: Desired,
    /// Keys whose values could not be read, and why; the rest goes on without them.
    pub quarantined: BTreeMap<String, String>,
}

impl Catalog {
    /// The network of this name or identifier.
    pub fn network_named(&self, name: &str) -> Option<&Arc<NetworkRecord>> {
        self.networks
            .values()
            .find(|network| network.name == name)
            .or_else(|| self.networks.get(name))
    }

    /// The blocks of a network, lowest first.
    pub fn blocks_of(&self, network: &str) -> impl Iterator<Item = &Arc<BlockRecord>> {
        self.blocks
            .values()
            .filter(move |block| block.network == network)
    }

    /// The endpoints of a network.
    pub fn endpoints_in(&self, network: &str) -> impl Iterator<Item = &Arc<EndpointRecord>> {
        self.endpoints
            .values()
            .filter(move |endpoint| endpoint.network == network)
    }

    /// The endpoints that answer to a name or alias, on whatever network.
    pub fn endpoints_named(&self, name: &str) -> impl Iterator<Item = &Arc<EndpointRecord>> {
        self.endpoints.values().filter(move |endpoint| {
            endpoint.name == name || endpoint.aliases.iter().any(|alias| alias == name)
        })
    }

    /// The service of this name outside of the mesh.
    pub fn service(&self, name: &str) -> Option<&Arc<ServiceRecord>> {
        self.services.get(name)
    }

    /// Where `service://NAME` or `service://NAME:PORT` leads: to the endpoints of that name or service, to what was
    /// entered by hand for it, and to the gateways that bring it in. What is not well is left out.
    ///
    /// Without `port`, each endpoint is used at its first exposed one (TCP before UDP, then the lowest), and
    /// one that exposes none is left out. A service entered by hand has its own ports; `port` selects among them.
    ///
    /// An endpoint has the weight that its label `nuncio.weight` gives it, if that is one.
    pub fn upstreams(&self, name: &str, port: Option<u16>) -> Vec<Upstream> {
        let endpoints = self.endpoints.values().filter_map(|endpoint| {
            let ports = ports_as(endpoint, name)?;
            let port = port.or_else(|| first(ports))?;
            let upstream = Upstream {
                host: endpoint.address.to_string(),
                port,
                weight: weight_of(&endpoint.labels),
            };
            Some((endpoint.health, upstream))
        });
        let wanted = |(_, upstream): &(_, Upstream)| port.is_none_or(|port| upstream.port == port);
        let mut found: Vec<(EndpointHealth, Upstream)> = endpoints.collect();
        found.extend(self.places(name).into_iter().filter(wanted));
        let fittest = EndpointHealth::fittest(found.iter().map(|(health, _)| *health));
        let fit = found
            .into_iter()
            .filter(|(health, _)| fittest.includes(*health));
        let mut upstreams: Vec<Upstream> = fit.map(|(_, upstream)| upstream).collect();
        upstreams.sort();
        // of two who say something else of one place, the one that asks less of it
        upstreams.dedup_by(|next, first| (&next.host, next.port) == (&first.host, first.port));
        upstreams
    }

    /// Where a service outside of the mesh answers, be it entered by hand or of another mesh, and how each place is.
    pub fn places(&self, name: &str) -> Vec<(EndpointHealth, Upstream)> {
        let known = self.service_health.get(name);
        let health = |upstream: &Upstream| match known?.places.get(&upstream.to_string())?.as_str()
        {
            "" => Some(EndpointHealth::Healthy),
            _ => Some(EndpointHealth::Unhealthy),
        };
        let own = self.service(name).into_iter().flat_map(|service| {
            let checked = service.check.is_some();
            service.upstreams.iter().map(move |upstream| {
                let found = health(upstream).filter(|_| checked);
                (found.unwrap_or_default(), upstream.clone())
            })
        });
        let imported = self
            .imports_of(name)
            .flat_map(|import| &import.service.upstreams);
        let imported = imported.map(|upstream| (EndpointHealth::Unchecked, upstream.clone()));
        own.chain(imported).collect()
    }

    /// By whom a service of another mesh is brought in.
    pub fn imports_of(&self, name: &str) -> impl Iterator<Item = &Arc<ImportRecord>> {
        let from = (name.to_owned(), String::new());
        let imports = self.imports.range(from..);
        let imports = imports.take_while(move |((service, _), _)| service == name);
        imports.map(|(_, import)| import)
    }

    /// Takes over one key's new value, or its absence.
    pub(crate) fn apply(&mut self, key: &str, value: Option<&[u8]>) {
        let Some(parsed) = Key::parse(key) else {
            return;
        };
        self.quarantined.remove(key);
        let Some(value) = value else {
            self.forget(&parsed);
            return;
        };
        if let Err(error) = self.take(&parsed, value) {
            self.forget(&parsed);
            let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
            let reason = format!("{error}{}", cause.unwrap_or_default());
            warn!(key, reason, "value set aside");
            self.quarantined.insert(key.to_owned(), reason);
        }
    }

    fn take(&mut self, key: &Key, value: &[u8]) -> Result<(), DecodeError> {
        match key.clone() {
            Key::Alive(id) => {
                self.alive.insert(id);
            }
            Key::Node(id) => {
                let node = NodeRecord::decode(value)?;
                agree("id", &node.id, &id)?;
                self.nodes.insert(id, Arc::new(node));
            }
            Key::Network(id) => {
                let network = NetworkRecord::decode(value)?;
                agree("id", &network.id, &id)?;
                self.networks.insert(id, Arc::new(network));
            }
            Key::Block { network, cidr } => {
                let block = BlockRecord::decode(value)?;
                agree("network", &block.network, &network)?;
                agree("cidr", &block.cidr.to_string(), &cidr.to_string())?;
                self.blocks.insert((network, cidr), Arc::new(block));
            }
            Key::Endpoint { network, id } => {
                let endpoint = EndpointRecord::decode(value)?;
                agree("network", &endpoint.network, &network)?;
                agree("id", &endpoint.id, &id)?;
                self.endpoints.insert((network, id), Arc::new(endpoint));
            }
            Key::Service(name) => {
                let service = ServiceRecord::decode(value)?;
                agree("name", &service.name, &name)?;
                self.services.insert(name, Arc::new(service));
            }
            Key::ServiceHealth(name) => {
                let health = ServiceHealthRecord::decode(value)?;
                agree("name", &health.name, &name)?;
                self.service_health.insert(name, Arc::new(health));
            }
            Key::Import { service, node } => {
                let import = ImportRecord::decode(value)?;
                agree("name", &import.service.name, &service)?;
                agree("node", &import.node, &node)?;
                self.imports.insert((service, node), Arc::new(import));
            }
            Key::Leader => self.desired.leader = Some(LeaderRecord::decode(value)?),
            Key::Desired(kind, id) => {
                let record = DesiredRecord::decode(value)?;
                agree("id", &record.id, &id)?;
                self.desired.records.insert((kind, id), Arc::new(record));
            }
            Key::Task(id) => {
                let task = TaskRecord::decode(value)?;
                agree("id", &task.id, &id)?;
                self.desired.tasks.insert(id, Arc::new(task));
            }
            Key::TaskStatus { node, task } => {
                let status = TaskStatusRecord::decode(value)?;
                agree("node", &status.node, &node)?;
                agree("task", &status.task, &task)?;
                self.desired.statuses.insert((task, node), Arc::new(status));
            }
            Key::Ack(node) => {
                let ack = AckRecord::decode(value)?;
                agree("node", &ack.node, &node)?;
                self.desired.acks.insert(node, Arc::new(ack));
            }
        }
        Ok(())
    }

    fn forget(&mut self, key: &Key) {
        match key.clone() {
            Key::Alive(id) => drop(self.alive.remove(&id)),
            Key::Node(id) => drop(self.nodes.remove(&id)),
            Key::Network(id) => drop(self.networks.remove(&id)),
            Key::Block { network, cidr } => drop(self.blocks.remove(&(network, cidr))),
            Key::Endpoint { network, id } => drop(self.endpoints.remove(&(network, id))),
            Key::Service(name) => drop(self.services.remove(&name)),
            Key::ServiceHealth(name) => drop(self.service_health.remove(&name)),
            Key::Import { service, node } => drop(self.imports.remove(&(service, node))),
            Key::Leader => self.desired.leader = None,
            Key::Desired(kind, id) => drop(self.desired.records.remove(&(kind, id))),
            Key::Task(id) => drop(self.desired.tasks.remove(&id)),
            Key::TaskStatus { node, task } => drop(self.desired.statuses.remove(&(task, node))),
            Key::Ack(node) => drop(self.desired.acks.remove(&node)),
        }
    }
}

/// The ports by which an endpoint is what `name` says; `None` if it is not.
fn ports_as<'a>(endpoint: &'a EndpointRecord, name: &str) -> Option<&'a [PortRecord]> {
    let offer = endpoint.services.iter().find(|offer| offer.name == name);
    let is_named = || endpoint.name == name || endpoint.aliases.iter().any(|alias| alias == name);
    match offer {
        Some(offer) => Some(&offer.ports),
        None => is_named().then_some(&endpoint.ports),
    }
}

fn first(ports: &[PortRecord]) -> Option<u16> {
    let order = |port: &&PortRecord| (port.protocol != Protocol::Tcp, port.port);
    ports.iter().min_by_key(order).map(|record| record.port)
}

/// A record must be what its key says it is, or two keys would fight over one place.
fn agree(field: &'static str, value: &str, key: &str) -> Result<(), DecodeError> {
    if value == key {
        Ok(())
    } else {
        let value = value.to_owned();
        Err(DecodeError::Field { field, value })
    }
}

/// The share of newcomers that a container's label `nuncio.weight` gives it; 1 if that is none.
#[must_use]
pub fn weight_of(labels: &BTreeMap<String, String>) -> NonZeroU16 {
    let label = labels.get(WEIGHT);
    let weight = label.and_then(|label| label.parse().ok());
    let weight = weight.filter(|weight: &NonZeroU16| weight.get() <= Upstream::MOST_WEIGHT);
    weight.unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
pub(crate) mod tests;
