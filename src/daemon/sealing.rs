//! Encrypted networks: this host's keys, and what its tunnel is to carry.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nuncio_overlay::{MacAddr, can_make_tun, vxlan_name};
use nuncio_registry::{NetworkRecord, NodeRecord, WireguardRecord};
use nuncio_tunnel::{KeyRing, LinkDocument, PeerDocument, PublicKey, TunnelDocument, TunnelStatus};

use super::container::locked;
use super::networks::Network;
use super::plane::Sight;
use super::record::Record;
use super::refusal::Refusal;
use super::{Daemon, state_file};

/// The option of `network create` that asks for it, whatever its value; Docker's word.
pub(crate) const ENCRYPTED: &str = "encrypted";
/// How long this host uses a key. The one before is accepted as long again, by those too who have not heard of the new
/// one.
const KEY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether packets of the network may leave a host encrypted only.
pub(super) fn is_sealed(network: &NetworkRecord) -> bool {
    network.options.contains_key(ENCRYPTED)
}

/// Where this host's private keys are kept, for root alone.
pub(super) fn ring_path(data_root: &Path) -> PathBuf {
    data_root.join("wireguard.json")
}

/// Reads this host's keys, making one at the first start.
pub(super) fn open_ring(data_root: &Path) -> anyhow::Result<KeyRing> {
    let path = ring_path(data_root);
    let there: Option<KeyRing> = state_file::read(&path).context("keys of encrypted networks")?;
    let (ring, is_new) = there.map_or_else(|| (KeyRing::generate(), true), KeyRing::identified);
    if is_new {
        state_file::write(&path, &ring)?;
    }
    Ok(ring)
}

impl Daemon {
    /// What other hosts are told of this one.
    pub(super) fn node_record(&self, ring: &KeyRing) -> NodeRecord {
        NodeRecord {
            id: self.node.id.clone(),
            name: self.node.name.clone(),
            address: self.node.address,
            mac: MacAddr::of_node(&self.node.id).0,
            port: self.options.vxlan_port,
            incarnation: self.node.incarnation,
            wireguard: Some(WireguardRecord {
                port: self.options.tunnel_port,
                keys: ring.public().iter().map(ToString::to_string).collect(),
            }),
            fallback: self.fallback_record(ring),
            links: self.links_record(),
            peek: self.peek_record(),
            machine: Some(self.machine()),
        }
    }

    /// Has the tunnel carry this host's encrypted networks, and what goes around VXLAN, or ends it if there is neither.
    ///
    /// What cannot be is told, and holds up those only who are in such a network.
    pub(super) async fn seal(&self, sight: &Sight) {
        let document = self.tunnel_document(sight);
        let done = if document.links.is_empty() {
            self.tunnel.end()
        } else {
            self.tunnel.configure(document).await
        };
        let error = done.err().map(|error| format!("{error:#}"));
        let mut known = locked(&self.unsealed);
        if let Some(error) = error
            .as_ref()
            .filter(|error| known.as_ref() != Some(*error))
        {
            tracing::error!(error, "what the host's tunnel carries");
        }
        *known = error;
    }

    /// Whether this host has encrypted networks to carry.
    pub(super) fn is_sealing(&self) -> bool {
        self.all_networks()
            .iter()
            .any(|network| network.is_sealed() && !self.own_blocks(network.id()).is_empty())
    }

    fn tunnel_document(&self, sight: &Sight) -> TunnelDocument {
        let networks = sight.networks.iter();
        let networks = networks.filter(|network| !self.own_blocks(network.id()).is_empty());
        let mut document = TunnelDocument::default();
        let mut peers = BTreeMap::<&str, PeerDocument>::new();
        for network in networks {
            let sealed = network.is_sealed();
            let link = if sealed {
                sealed_link(network, sight.sealed_mtu)
            } else {
                self.fallback_link(network, sight)
            };
            let Some(link) = link else { continue };
            document.links.push(link);
            let blocks = sight.catalog.blocks_of(network.id());
            for block in blocks.filter(|block| block.node != self.node.id) {
                let Some(node) = sight.catalog.nodes.get(&block.node) else {
                    continue;
                };
                let Some(wireguard) = &node.wireguard else {
                    continue;
                };
                let peer = peers.entry(&node.id).or_insert_with(|| PeerDocument {
                    id: node.id.clone(),
                    endpoint: SocketAddr::new(node.address, wireguard.port),
                    keys: Vec::new(),
                    blocks: Vec::new(),
                    fallback: self.fallback_to(node),
                });
                peer.blocks.push(block.cidr);
                if sealed && peer.keys.is_empty() {
                    peer.keys = keys(node, wireguard);
                }
            }
        }
        document.peers = peers.into_values().collect();
        document
    }

    /// Refuses to have a container in an encrypted network that this host cannot encrypt for.
    pub(super) fn require_sealed(&self, record: &Record) -> Result<(), Refusal> {
        let Some(error) = locked(&self.unsealed).clone() else {
            return Ok(());
        };
        let catalog = self.catalog();
        let mut networks = record.endpoints.values();
        let is_sealed = networks.any(|endpoint| {
            let network = catalog.networks.get(&endpoint.network_id);
            network.is_some_and(|network| is_sealed(network))
        });
        match is_sealed {
            true => Err(Refusal::conflict(error)),
            false => Ok(()),
        }
    }

    /// Makes a key, tells the others of it, and uses it with each as soon as it has heard.
    pub(crate) async fn rotate_keys(&self) -> anyhow::Result<PublicKey> {
        let _turn = self.key_turn.lock().await;
        let ring = locked(&self.ring).rotated();
        let newest = ring.public()[0];
        // First the registry: a key that nobody has heard of is of no use, one that nobody has does no harm.
        self.registry
            .register_node(&self.node_record(&ring))
            .await
            .context("tell other hosts of a new key")?;
        state_file::write(&ring_path(&self.options.data_root), &ring)?;
        *locked(&self.ring) = ring;
        self.sync().await?;
        tracing::info!(key = %newest, "a new key for encrypted networks");
        Ok(newest)
    }

    /// Rotates keys that are in use for long.
    pub(super) async fn rotate_old_keys(&self) -> anyhow::Result<()> {
        let file = std::fs::metadata(ring_path(&self.options.data_root))?;
        match file.modified()?.elapsed() {
            Ok(age) if age >= KEY_LIFE => self.rotate_keys().await.map(drop),
            _ => Ok(()), // or made in what the clock now calls the future
        }
    }

    /// What the tunnel is doing; `None` while there is none.
    pub(crate) async fn tunnel_status(&self) -> anyhow::Result<Option<TunnelStatus>> {
        self.tunnel.status().await
    }
}

/// Refuses an encrypted network where there can be none.
pub(super) fn require_tun(network: &str) -> Result<(), Refusal> {
    can_make_tun().map_err(|error| {
        let error = anyhow::Error::from(error);
        Refusal::conflict(format!(
            "network {network} is encrypted, which this host cannot do: {error:#}"
        ))
    })
}

/// The device of an encrypted network, on a host whose tunnel has room for `tunnelled` bytes.
fn sealed_link(network: &Network, tunnelled: u16) -> Option<LinkDocument> {
    let Network::Mesh(record) = network else {
        return None;
    };
    Some(LinkDocument {
        name: vxlan_name(&record.id),
        subnets: record.subnets().collect(),
        mtu: network.mtu(tunnelled),
        sealed: true,
    })
}

fn keys(node: &NodeRecord, wireguard: &WireguardRecord) -> Vec<PublicKey> {
    let keys = wireguard.keys.iter().filter_map(|key| match key.parse() {
        Ok(key) => Some(key),
        Err(error) => {
            tracing::warn!(node = node.name, key, %error, "a key of another host");
            None
        }
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use nuncio_registry::AddressingV6;

    use super::*;

    #[test]
    fn a_device_takes_packets_as_long_as_its_network_has() {
        let network = |mtu: Option<&str>| {
            let option = |mtu: &str| ("mtu".to_owned(), mtu.to_owned());
            let sealed = std::iter::once((ENCRYPTED.to_owned(), String::new()));
            Network::Mesh(Arc::new(NetworkRecord {
                id: "0123456789abcdef".to_owned(),
                name: "hidden".to_owned(),
                driver: "overlay".to_owned(),
                vni: 4096,
                subnet: "10.1.0.0/16".parse().expect("a subnet"),
                subnet_v6: None,
                range: None,
                gateway: Some(Ipv4Addr::new(10, 1, 0, 1)),
                reserved: BTreeMap::new(),
                addressing_v6: AddressingV6::default(),
                internal: false,
                attachable: true,
                mtu: None,
                options: sealed.chain(mtu.map(option)).collect(),
                labels: BTreeMap::new(),
                created: String::new(),
            }))
        };
        for (asked, tunnelled, mtu) in [
            (None, 1440, 1440),
            (Some("1300"), 1440, 1300),
            (Some("1440"), 1400, 1400),
        ] {
            let link = sealed_link(&network(asked), tunnelled).expect("a device");
            assert_eq!(link.mtu, mtu, "{asked:?} of {tunnelled}");
        }
    }
}
