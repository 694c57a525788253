//! What a tunnel is told: the one form in which it crosses from the daemon to the process that carries.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{IdentityKey, PublicKey};

/// All that a tunnel is to carry. It says everything: what is not in it any more is dropped.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelDocument {
    /// The other hosts.
    pub peers: Vec<PeerDocument>,
    /// The TUN devices of this host's networks.
    pub links: Vec<LinkDocument>,
}

/// Another host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerDocument {
    /// Tells it from the others.
    pub id: String,
    /// Where it listens. Nothing is sent to, or taken from, any other address.
    pub endpoint: SocketAddr,
    /// The keys it is known by, the newest first.
    pub keys: Vec<PublicKey>,
    /// Addresses that live there: what it may send from, and is sent.
    pub blocks: Vec<IpNetwork>,
    /// The way there by TLS; absent if it takes none.
    pub fallback: Option<FallbackDocument>,
}

/// The way to another host by TLS over TCP, where UDP does not get through.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackDocument {
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// What it must prove to be.
    pub key: IdentityKey,
    /// Whether what is not sealed is sent there this way. What is sealed is, whenever UDP does not get there.
    pub wanted: bool,
}

/// A network's TUN device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LinkDocument {
    /// Its name; it is attached to, and not made.
    pub name: String,
    /// Addresses of the network, all hosts together. Packets between them are this device's.
    pub subnets: Vec<IpNetwork>,
    /// Greatest IP packet on it.
    pub mtu: u16,
    /// Its packets are sealed as WireGuard does. Those of others go by TLS alone, and are dropped where there is none.
    pub sealed: bool,
}
