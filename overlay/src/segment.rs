use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

use crate::{MacAddr, Vni};

/// Everything the overlay shall make of this network namespace.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostState {
    /// Networks that have containers, or peers, on this host.
    pub segments: Vec<Segment>,
    /// Ports of this host that lead to containers of this host.
    pub published: Vec<Published>,
    /// Where this host takes what comes by the way around, and from whom.
    pub fallback: Option<Gate>,
    /// Packets between containers of two hosts may pass by bridge, routing and all rules, those of others among them.
    pub shortcut: bool,
}

/// A TCP port of this host that is for other hosts alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gate {
    /// The port.
    pub port: u16,
    /// Underlay addresses of those who may connect.
    pub peers: BTreeSet<IpAddr>,
}

/// This host's part of one network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Id of the network; only named in messages.
    pub id: String,
    /// Bridge that holds this host's containers.
    pub bridge: String,
    /// The bridge is somebody else's, with other machines on it: it is neither made nor changed nor removed. It has
    /// addresses and a way out of its own, and is given none of `blocks`. Nobody else on it is cut off from this host.
    pub adopted: bool,
    /// Addresses of the whole network, all hosts together: one subnet of IPv4, and one of IPv6 if it carries that.
    pub subnets: Vec<IpNetwork>,
    /// Parts of `subnets` that are this host's. [`gateway`] of each stands on the bridge.
    pub blocks: Vec<IpNetwork>,
    /// The tunnel to other hosts; `None` for a network of this host alone.
    pub vxlan: Option<Vxlan>,
    /// The other hosts' blocks. A host with two blocks, be it one of each family, is listed twice.
    pub peers: Vec<Peer>,
    /// Greatest IP packet on bridge and tunnel, see [`inner_mtu`](crate::inner_mtu).
    pub mtu: u16,
    /// Nothing leaves the network, nothing is forwarded into it.
    pub internal: bool,
    /// Outside, its containers are seen as this host.
    pub masquerade: bool,
    /// Containers of this network may open connections to each other.
    pub icc: bool,
    /// Connections that containers of this host may open although `icc` is off. Between its own the host routes
    /// them: it answers ARP in the other's place (RFC 3069), since bridge ports without `icc` exchange no frames, and to IPv6
    /// it is the router anyway (see [`attach`](crate::attach)).
    pub linked: Vec<Linked>,
    /// What crosses the tunnel.
    pub reach: Reach,
    /// Further addresses of the bridge, for listeners of this host that stand in for remote containers.
    pub local_addresses: Vec<Ipv4Addr>,
    /// This host's containers in the network. Nothing but their own addresses comes in by their links.
    pub members: Vec<Member>,
    /// Whether containers may connect to this host itself, besides its `local_addresses`.
    pub host_access: HostAccess,
}

impl Segment {
    /// Whether its containers' bridge ports exchange no frames. On somebody else's bridge rules keep them apart.
    pub(crate) fn isolates_ports(&self) -> bool {
        !self.icc && !self.adopted
    }
}

/// A container's place on a bridge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// The host's end of its link, see [`veth_name`].
    pub link: String,
    /// Its hardware address.
    pub mac: MacAddr,
    /// All of its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Who may connect to what listens on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostAccess {
    /// All containers.
    All,
    /// Those of these addresses. The others may send pings.
    Only(Vec<IpAddr>),
}

/// A port of one container that another one may reach.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Linked {
    /// Who connects.
    pub client: IpAddr,
    /// Who is connected to, by an address of the same family.
    pub server: IpAddr,
    /// The transport.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
}

/// The device that leads to other hosts: routed, not a port of the bridge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vxlan {
    /// What the device is.
    pub carrier: Carrier,
    /// Name of the device.
    pub link: String,
    /// Network identifier, the same on all hosts.
    pub vni: Vni,
    /// Underlay address of this host.
    pub local: IpAddr,
    /// UDP port, the same on all hosts.
    pub port: u16,
    /// Address of this host's end, see [`MacAddr::of_node`].
    pub mac: MacAddr,
    /// The way around it, while it does not get through to a peer.
    pub fallback: Option<Fallback>,
    /// Whether the checksums of what it carries are left to the underlay's device; `None` to leave that as it is.
    pub offload: Option<bool>,
}

/// A TUN device that leads to the same hosts, by whoever serves it. What comes by it is taken as what comes by VXLAN.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fallback {
    /// Name of the device.
    pub link: String,
    /// Underlay addresses of the peers to whom it leads in place of VXLAN. What others send may come by it nevertheless.
    pub to: BTreeSet<IpAddr>,
}

impl Vxlan {
    /// The devices that lead to other hosts.
    pub(crate) fn links(&self) -> impl Iterator<Item = &str> {
        let fallback = self.fallback.as_ref();
        std::iter::once(self.link.as_str()).chain(fallback.map(|fallback| fallback.link.as_str()))
    }

    /// The one that leads to the peer at `vtep`, and whether it is the way around.
    pub(crate) fn link_to(&self, vtep: IpAddr) -> (&str, bool) {
        let fallback = self.fallback.as_ref();
        match fallback.filter(|fallback| fallback.to.contains(&vtep)) {
            Some(fallback) => (&fallback.link, true),
            None => (&self.link, false),
        }
    }
}

/// What carries a network between hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carrier {
    /// The kernel, as VXLAN (RFC 7348), which anybody on the way can read.
    Vxlan,
    /// Whoever serves the device, a TUN device, and encrypts what it reads there. No packet of the network may
    /// leave this host, or come into it, in any other way.
    Sealed,
}

/// A block that lives on another host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Addresses to be routed there.
    pub block: IpNetwork,
    /// Underlay address of that host.
    pub vtep: IpAddr,
    /// Address of that host's end of the tunnel.
    pub mac: MacAddr,
    /// Greatest IP packet inside the tunnel that gets there, if that is less than the segment's MTU.
    pub mtu: Option<u16>,
}

impl Peer {
    /// Where its block begins: at its gateway; over IPv6 at the link-local address of its end of the tunnel, since the
    /// kernel refuses there as next hop what it has another route to just then, as after somebody changed ours.
    pub(crate) fn next_hop(&self) -> IpAddr {
        match self.block {
            IpNetwork::V4(_) => gateway(self.block),
            IpNetwork::V6(_) => self.mac.link_local().into(),
        }
    }
}

/// What crosses the tunnel between hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reach {
    /// Containers of all hosts reach each other.
    Routed,
    /// Only hosts themselves, from their gateway addresses, reach exposed ports; containers do not.
    LinksOnly {
        /// Ports of this host's containers that peers may reach.
        exposed: Vec<(IpAddr, Protocol, u16)>,
        /// Where they are reached by TCP instead, if there is such a place.
        door: Option<LinkDoor>,
    },
    /// Containers that are linked, which their own hosts see to, reach exposed ports.
    Linked {
        /// Ports of this host's containers that peers, and containers there, may reach.
        exposed: Vec<(IpAddr, Protocol, u16)>,
    },
}

/// A listener of this host by which its peers reach what it exposes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinkDoor {
    /// TCP port, at this host's gateway addresses.
    pub port: u16,
    /// Gateway addresses of the peers that reach exposed ports of TCP without it, as all do those of UDP.
    pub plain: BTreeSet<Ipv4Addr>,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of this host that leads to a container of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Published {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// One address of this host, of the family of `target`, or `None` for all of that but loopback.
    pub host_address: Option<IpAddr>,
    /// The port on this host.
    pub host_port: u16,
    /// The container's address and port.
    pub target: SocketAddr,
}

impl Published {
    /// The address of this host that alone has the port.
    pub(crate) fn only_at(&self) -> Option<IpAddr> {
        self.host_address
            .filter(|address| !address.is_unspecified())
    }
}

impl Segment {
    /// Whether it carries IPv6.
    pub(crate) fn has_v6(&self) -> bool {
        self.blocks.iter().any(IpNetwork::is_ipv6)
    }
}

/// What the host asks from for the containers to which it passes packets of IPv6 on: the kernel asks from no other
/// address than a link-local one then.
pub(crate) const BRIDGE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The block, if it is of IPv4.
pub(crate) fn v4(block: IpNetwork) -> Option<Ipv4Network> {
    match block {
        IpNetwork::V4(block) => Some(block),
        IpNetwork::V6(_) => None,
    }
}

/// First usable address of a block, which the host itself has.
#[must_use]
pub fn gateway(block: IpNetwork) -> IpAddr {
    match block {
        IpNetwork::V4(block) => gateway_of(block).into(),
        IpNetwork::V6(block) => gateway6_of(block).into(),
    }
}

/// [`gateway`] of an IPv4 block.
#[must_use]
pub fn gateway_of(block: Ipv4Network) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block.network()).saturating_add(1))
}

/// [`gateway`] of an IPv6 block.
#[must_use]
pub fn gateway6_of(block: Ipv6Network) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(block.network()).saturating_add(1))
}

/// Name of the bridge of a network: `nb-` and the first eight digits of its id.
#[must_use]
pub fn bridge_name(network: &str) -> String {
    format!("nb-{}", head(network))
}

/// Name of the VXLAN device of a network: `nx-` and the first eight digits of its id.
#[must_use]
pub fn vxlan_name(network: &str) -> String {
    format!("nx-{}", head(network))
}

/// Name of the device that is the way around: `nf-` and the first eight digits of the network's id.
#[must_use]
pub fn fallback_name(network: &str) -> String {
    format!("nf-{}", head(network))
}

/// Name of the host's end of a container's `index`th link: `nv-`, eight digits of its id, the index.
#[must_use]
pub fn veth_name(container: &str, index: u8) -> String {
    format!("nv-{}{index}", head(container))
}

fn head(id: &str) -> String {
    id.chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        let id = "0123456789abcdef";
        let names = [bridge_name(id), vxlan_name(id), fallback_name(id)];
        for name in names.into_iter().chain([veth_name(id, u8::MAX)]) {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn gateway_is_the_first_usable_address() {
        assert_eq!(
            gateway_of("10.1.2.128/25".parse().unwrap()),
            Ipv4Addr::new(10, 1, 2, 129)
        );
        assert_eq!(
            gateway("fd00:1:2:3::/80".parse().unwrap()),
            "fd00:1:2:3::1".parse::<IpAddr>().unwrap()
        );
    }
}
