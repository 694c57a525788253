//! Endpoints as they are written.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DecodeError, Record, fields_of, parse};
use crate::model::{EndpointHealth, EndpointRecord, PortRecord, Protocol, ServiceOffer};

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ProtocolWire {
    #[default]
    Tcp,
    Udp,
}

#[derive(Deserialize, Serialize)]
struct PortWire {
    port: u16,
    protocol: ProtocolWire,
}

#[derive(Deserialize, Serialize)]
struct OfferWire {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    ports: Vec<PortWire>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum HealthWire {
    Starting,
    Healthy,
    Unhealthy,
    /// What a later version may say.
    #[serde(other)]
    None,
}

impl From<ProtocolWire> for Protocol {
    fn from(wire: ProtocolWire) -> Self {
        match wire {
            ProtocolWire::Tcp => Self::Tcp,
            ProtocolWire::Udp => Self::Udp,
        }
    }
}

impl From<Protocol> for ProtocolWire {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

impl From<&PortWire> for PortRecord {
    fn from(wire: &PortWire) -> Self {
        Self {
            port: wire.port,
            protocol: wire.protocol.into(),
        }
    }
}

impl From<&PortRecord> for PortWire {
    fn from(record: &PortRecord) -> Self {
        Self {
            port: record.port,
            protocol: record.protocol.into(),
        }
    }
}

impl From<Option<HealthWire>> for EndpointHealth {
    fn from(wire: Option<HealthWire>) -> Self {
        match wire {
            None | Some(HealthWire::None) => Self::Unchecked,
            Some(HealthWire::Starting) => Self::Starting,
            Some(HealthWire::Healthy) => Self::Healthy,
            Some(HealthWire::Unhealthy) => Self::Unhealthy,
        }
    }
}

fn health_wire(health: EndpointHealth) -> Option<HealthWire> {
    match health {
        EndpointHealth::Unchecked => None,
        EndpointHealth::Starting => Some(HealthWire::Starting),
        EndpointHealth::Healthy => Some(HealthWire::Healthy),
        EndpointHealth::Unhealthy => Some(HealthWire::Unhealthy),
    }
}

#[derive(Deserialize, Serialize)]
struct EndpointWire {
    network: String,
    id: String,
    name: String,
    node: String,
    #[serde(default)]
    node_name: String,
    address: Ipv4Addr,
    #[serde(default)]
    address_v6: Option<Ipv6Addr>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    ports: Vec<PortWire>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    services: Vec<OfferWire>,
    #[serde(default)]
    health: Option<HealthWire>,
}

impl Record for EndpointRecord {
    fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let wire: EndpointWire = parse(value)?;
        let offer = |wire: OfferWire| ServiceOffer {
            name: wire.name,
            tags: wire.tags,
            ports: wire.ports.iter().map(PortRecord::from).collect(),
        };
        Ok(Self {
            ports: wire.ports.iter().map(PortRecord::from).collect(),
            services: wire.services.into_iter().map(offer).collect(),
            health: wire.health.into(),
            network: wire.network,
            id: wire.id,
            name: wire.name,
            node: wire.node,
            node_name: wire.node_name,
            address: wire.address,
            address_v6: wire.address_v6,
            aliases: wire.aliases,
            labels: wire.labels,
        })
    }

    fn fields(&self) -> Map<String, Value> {
        let offer = |offer: &ServiceOffer| OfferWire {
            name: offer.name.clone(),
            tags: offer.tags.clone(),
            ports: offer.ports.iter().map(PortWire::from).collect(),
        };
        fields_of(&EndpointWire {
            network: self.network.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            node: self.node.clone(),
            node_name: self.node_name.clone(),
            address: self.address,
            address_v6: self.address_v6,
            aliases: self.aliases.clone(),
            ports: self.ports.iter().map(PortWire::from).collect(),
            labels: self.labels.clone(),
            services: self.services.iter().map(offer).collect(),
            health: health_wire(self.health),
        })
    }
}
