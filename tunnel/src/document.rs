//! What a tunnel is told: the one form in which it crosses from the daemon to the process that carries.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::PublicKey;

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
}
