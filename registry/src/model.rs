//! What the registry holds, as values that are known to be well formed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

/// A host of the mesh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeRecord {
    /// Stable identifier, chosen once per data root.
    pub id: String,
    /// Name people use; unique among live nodes.
    pub name: String,
    /// Underlay address of the node's VTEP.
    pub address: IpAddr,
    /// MAC address of the node's VTEP.
    pub mac: [u8; 6],
    /// UDP port of the node's VTEP.
    pub port: u16,
    /// Grows with each start of the node's daemon; an older one can no longer write.
    pub incarnation: u64,
    /// How encrypted networks reach the node; absent, if they do not.
    pub wireguard: Option<WireguardRecord>,
    /// How the node is reached where UDP does not get there; absent, if it is not.
    pub fallback: Option<FallbackRecord>,
    /// How links between hosts are encrypted; absent, if they are not.
    pub links: Option<LinksRecord>,
    /// What it is made of; `None`: a daemon that does not say.
    pub machine: Option<MachineRecord>,
    /// Where other hosts are told what happens there; absent, if they are not.
    pub peek: Option<PeekRecord>,
}

/// Where a node tells other nodes what happens there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeekRecord {
    /// TCP port.
    pub port: u16,
    /// Whether it is told without TLS, to everybody who asks.
    pub plain: bool,
}

/// How a node takes part in links that are encrypted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinksRecord {
    /// TCP port, at the node's gateway of the default network, where it takes those of others.
    pub port: u16,
    /// Whether containers there have links that are not encrypted.
    pub plain: bool,
}

/// What a node is made of, for who decides what runs on it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct MachineRecord {
    /// CPUs, in billionths of one.
    pub nano_cpus: u64,
    /// Memory, in bytes.
    pub memory: u64,
    /// Operating system, as `linux`.
    pub os: String,
    /// Processor, as `x86_64`.
    pub arch: String,
    /// Version of its daemon.
    pub version: String,
    /// Labels of its daemon.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Public key to which is sealed what only it may read: X25519, in base64; empty: it has none.
    #[serde(default)]
    pub seal_key: String,
}

/// Where and by which keys a node takes packets of encrypted networks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WireguardRecord {
    /// UDP port.
    pub port: u16,
    /// Public keys as WireGuard's tools write them, the newest first. All are accepted.
    pub keys: Vec<String>,
}

/// Where, and as whom, a node takes by TLS what does not get there by UDP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FallbackRecord {
    /// TCP port.
    pub port: u16,
    /// The public key that the node proves to have: Ed25519, in base64.
    pub key: String,
    /// The one before it, which is still accepted.
    pub former: Option<String>,
}

/// A network, known on all hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique in the mesh.
    pub name: String,
    /// `bridge` or `overlay`.
    pub driver: String,
    /// VXLAN network identifier, unique in the mesh.
    pub vni: u32,
    /// All addresses of the network; each host takes blocks of it.
    pub subnet: Ipv4Network,
    /// Those of IPv6, if it carries that.
    pub subnet_v6: Option<Ipv6Network>,
    /// The part of `subnet` that hosts take blocks of; `None`: all of it.
    pub range: Option<Ipv4Network>,
    /// The gateway asked for. Containers use their own host's; this address is nobody's.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that no container gets, and what for.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// The same of IPv6, if it carries that.
    pub addressing_v6: AddressingV6,
    /// Without a way out of the mesh.
    pub internal: bool,
    /// Open to containers that are not part of a service.
    pub attachable: bool,
    /// MTU asked for; `None` leaves it to each host's underlay.
    pub mtu: Option<u16>,
    /// Driver options as given.
    pub options: BTreeMap<String, String>,
    /// Labels as given.
    pub labels: BTreeMap<String, String>,
    /// When it was created, RFC 3339.
    pub created: String,
}

/// What is asked of a network's addresses of IPv6.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AddressingV6 {
    /// The part of the subnet that hosts take blocks of; `None`: all of it.
    #[serde(default)]
    pub range: Option<Ipv6Network>,
    /// The gateway asked for. Containers use their own host's; this address is nobody's.
    #[serde(default)]
    pub gateway: Option<Ipv6Addr>,
    /// Addresses that no container gets, and what for.
    #[serde(default)]
    pub reserved: BTreeMap<String, Ipv6Addr>,
}

impl NetworkRecord {
    /// The gateways asked for, that of IPv4 first.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.addressing_v6.gateway.map(IpAddr::V6);
        self.gateway.map(IpAddr::V4).into_iter().chain(v6)
    }

    /// The addresses of either family that no container gets, and what for.
    pub fn reserved(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        let v4 = self.reserved.iter();
        let v6 = self.addressing_v6.reserved.iter();
        v4.map(|(what, address)| (what.as_str(), IpAddr::V4(*address)))
            .chain(v6.map(|(what, address)| (what.as_str(), IpAddr::V6(*address))))
    }

    /// The part that hosts take blocks of, of the one of its subnets that is of the family.
    #[must_use]
    pub fn range(&self, ipv6: bool) -> Option<IpNetwork> {
        match ipv6 {
            true => self.addressing_v6.range.map(IpNetwork::V6),
            false => self.range.map(IpNetwork::V4),
        }
    }

    /// Its subnets, that of IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        let v6 = self.subnet_v6.map(IpNetwork::V6);
        std::iter::once(IpNetwork::V4(self.subnet)).chain(v6)
    }
}

/// One host's share of a network's subnet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlockRecord {
    /// Identifier of the network.
    pub network: String,
    /// The share.
    pub cidr: IpNetwork,
    /// Identifier of the owning node.
    pub node: String,
    /// Incarnation of the owner when it claimed the block.
    pub incarnation: u64,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP, which sorts first.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port an endpoint exposes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortRecord {
    /// Port number, never 0.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// A running container on a network. It lives as long as its node's lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointRecord {
    /// Identifier of the network.
    pub network: String,
    /// Identifier of the container.
    pub id: String,
    /// Name of the container.
    pub name: String,
    /// Identifier of the node it runs on.
    pub node: String,
    /// Name of the node it runs on.
    pub node_name: String,
    /// Its address on the network.
    pub address: Ipv4Addr,
    /// Its IPv6 address there, if the network carries that.
    pub address_v6: Option<Ipv6Addr>,
    /// Other names it answers to on the network.
    pub aliases: Vec<String>,
    /// Ports it exposes.
    pub ports: Vec<PortRecord>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// The services that it is one of.
    pub services: Vec<ServiceOffer>,
    /// How it is, as its host finds.
    pub health: EndpointHealth,
}

/// What a container is to a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceOffer {
    /// Name of the service, in lower case.
    pub name: String,
    /// What tells some of the service from others.
    pub tags: Vec<String>,
    /// Which of its ports are the service's.
    pub ports: Vec<PortRecord>,
}

/// What is known of whether something that is to answer does.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum EndpointHealth {
    /// Nobody looks.
    #[default]
    Unchecked,
    /// The last checks went well.
    Healthy,
    /// No check has gone well yet.
    Starting,
    /// The last checks failed.
    Unhealthy,
}

impl EndpointHealth {
    /// The word for it in the registry and the API; none where nobody looks.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unchecked => "none",
            Self::Healthy => "healthy",
            Self::Starting => "starting",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Of things of these healths, which are to be used: those that are well or not looked at; if there are none, those
    /// that start.
    pub fn fittest(all: impl IntoIterator<Item = Self>) -> Fittest {
        Fittest(all.into_iter().map(Self::rank).min().unwrap_or_default())
    }

    fn rank(self) -> u8 {
        match self {
            Self::Unchecked | Self::Healthy => 0,
            Self::Starting => 1,
            Self::Unhealthy => 2,
        }
    }
}

/// Which of several are to be used.
#[derive(Clone, Copy, Debug)]
pub struct Fittest(u8);

impl Fittest {
    /// Whether one of this health is.
    #[must_use]
    pub fn includes(self, health: EndpointHealth) -> bool {
        health != EndpointHealth::Unhealthy && health.rank() == self.0
    }
}

impl EndpointRecord {
    /// Its addresses on the network, that of IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.address_v6.map(IpAddr::V6);
        std::iter::once(IpAddr::V4(self.address)).chain(v6)
    }
}

/// A place that answers for a service: an address or host name, and a port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Upstream {
    /// IP address or host name, without brackets.
    pub host: String,
    /// Port number, never 0.
    pub port: u16,
    /// Its share of newcomers, against the others' weights: from 1, which is usual, to [`Self::MOST_WEIGHT`].
    pub weight: NonZeroU16,
}

impl Upstream {
    /// What a weight is at most.
    pub const MOST_WEIGHT: u16 = 256;
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A service outside of the mesh, entered by hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceRecord {
    /// Name it is found under.
    pub name: String,
    /// Where it answers.
    pub upstreams: Vec<Upstream>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// What tells it from others of its kind.
    pub tags: Vec<String>,
    /// How it is looked at, if it is.
    pub check: Option<CheckRecord>,
}

impl ServiceRecord {
    /// One that answers by TCP at `upstreams`, and that nobody checks.
    pub fn new(name: impl Into<String>, upstreams: Vec<Upstream>) -> Self {
        Self {
            name: name.into(),
            upstreams,
            protocol: Protocol::Tcp,
            tags: Vec::new(),
            check: None,
        }
    }
}

/// How a place that is to answer is looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckRecord {
    /// The path that is got by HTTP; `None`: whether it takes a connection.
    pub http: Option<String>,
    /// Between the beginnings of two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

/// Which places of a service outside of the mesh do not answer, as one host finds who looks for all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceHealthRecord {
    /// Name of the service.
    pub name: String,
    /// The host that looks.
    pub node: String,
    /// By `HOST:PORT` why it does not answer; empty: it does.
    pub places: BTreeMap<String, String>,
}

/// A service of another mesh, as a gateway of this one brings it in. It lives as long as that host's lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImportRecord {
    /// The gateway's host.
    pub node: String,
    /// What the other mesh is called here.
    pub peer: String,
    /// The service, with the gateway for its upstream.
    pub service: ServiceRecord,
}
