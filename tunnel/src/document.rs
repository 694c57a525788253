//! What a tunnel is told: the one form in which it crosses from the daemon to the process that carries.
//!
//! That process goes on while the daemon is replaced by a newer one, so it passes over what it does not know.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{IdentityKey, PublicKey};

/// All that a tunnel is to carry. It says everything: what is not in it any more is dropped.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TunnelDocument {
    /// The other hosts.
    pub peers: Vec<PeerDocument>,
    /// The TUN devices of this host's networks.
    pub links: Vec<LinkDocument>,
}

/// Another host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
pub struct FallbackDocument {
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// What it must prove to be.
    pub key: IdentityKey,
    /// What it was known by before, and may still say it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<IdentityKey>,
    /// Whether what is not sealed is sent there this way. What is sealed is, whenever UDP does not get there.
    pub wanted: bool,
}

impl FallbackDocument {
    /// Whether the host is known by `key`.
    pub(crate) fn has(&self, key: IdentityKey) -> bool {
        self.key == key || self.former == Some(key)
    }
}

/// A network's TUN device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use serde_json::{Value, json};

    use super::*;
    use crate::Identity;

    /// Adds something unknown to each object in it.
    fn extend(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(extend);
                fields.insert("later".to_owned(), json!({ "than": ["this"] }));
            }
            Value::Array(values) => values.iter_mut().for_each(extend),
            _ => {}
        }
    }

    #[test]
    fn what_a_newer_daemon_adds_is_passed_over() {
        let document = TunnelDocument {
            peers: vec![PeerDocument {
                id: "b".to_owned(),
                endpoint: "192.0.2.2:51820".parse().unwrap(),
                keys: vec![crate::PrivateKey::generate().public()],
                blocks: vec!["10.1.2.0/24".parse().unwrap()],
                fallback: Some(FallbackDocument {
                    endpoint: "192.0.2.2:51820".parse().unwrap(),
                    key: Identity::generate().public(),
                    former: None,
                    wanted: true,
                }),
            }],
            links: vec![LinkDocument {
                name: "nx-1".to_owned(),
                subnets: vec!["10.1.0.0/16".parse().unwrap()],
                mtu: 1440,
                sealed: true,
            }],
        };
        let mut newer = serde_json::to_value(&document).unwrap();
        extend(&mut newer);
        assert!(newer.to_string().matches("later").count() == 4);
        let read: TunnelDocument = serde_json::from_value(newer).unwrap();
        assert_eq!(read, document);
    }
}
