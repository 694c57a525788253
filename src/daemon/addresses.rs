//! This host's part of the address space: blocks claimed from the registry, addresses out of them.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context;
use ipnetwork::Ipv4Network;
use nuncio_overlay::{AddressBook, AllocateError, MacAddr, host_routes};
use nuncio_registry::NetworkRecord;

use super::config::EndpointRequest;
use super::container::locked;
use super::networks::{LocalNetwork, Network};
use super::record::Endpoint;
use super::refusal::Refusal;
use super::sealing::require_tun;
use super::{Daemon, state_file};

/// The book of who has which address. A power cut may take back what it was told last; then those who hold an address it
/// does not know of take theirs anew as they are started, and what nobody holds is freed as the daemon starts.
pub(super) fn open_book(data_root: &Path) -> anyhow::Result<AddressBook> {
    let path = data_root.join("addresses.json");
    let found =
        state_file::read_bytes(&path).with_context(|| format!("read {}", path.display()))?;
    let keep = {
        let path = path.clone();
        move |bytes: &[u8]| state_file::write_bytes_soon(&path, bytes)
    };
    Ok(AddressBook::kept_by(
        &path,
        found.as_deref(),
        Box::new(keep),
    )?)
}

impl Daemon {
    /// This host's blocks of a network.
    pub(super) fn own_blocks(&self, network: &str) -> Vec<Ipv4Network> {
        locked(&self.blocks)
            .get(network)
            .cloned()
            .unwrap_or_default()
    }

    pub(super) async fn claim_block(&self, network: &NetworkRecord) -> anyhow::Result<()> {
        let held = self.own_blocks(&network.id);
        let known = self.registry.blocks_of(&network.id, &self.node.id).await?;
        let block = match known.into_iter().find(|block| !held.contains(&block.cidr)) {
            Some(block) => block,
            None => {
                let avoid = host_routes().await?;
                self.registry
                    .claim_block(network, &self.node.id, self.node.incarnation, &avoid)
                    .await?
            }
        };
        let blocks = {
            let mut blocks = locked(&self.blocks);
            blocks
                .entry(network.id.clone())
                .or_default()
                .push(block.cidr);
            blocks.clone()
        };
        state_file::write(&self.options.data_root.join("blocks.json"), &blocks)
    }

    /// Forgets blocks of a network that is no more.
    pub(super) fn forget_network(&self, network: &str) -> anyhow::Result<()> {
        let blocks = {
            let mut blocks = locked(&self.blocks);
            blocks.remove(network);
            blocks.clone()
        };
        state_file::write(&self.options.data_root.join("blocks.json"), &blocks)?;
        Ok(locked(&self.addresses).forget(network)?)
    }

    /// Gives `owner` an address in a network of this host: within its range unless it asks for one, and never one that
    /// is reserved, or `held` by others.
    fn allocate_local(
        &self,
        network: &LocalNetwork,
        held: &[(String, Ipv4Addr)],
        owner: &str,
        wanted: Option<Ipv4Addr>,
    ) -> anyhow::Result<(Ipv4Addr, Ipv4Network)> {
        let mut addresses = locked(&self.addresses);
        let all = [network.subnet];
        let refused = |error| match error {
            error @ AllocateError::Write(_) => anyhow::Error::from(error),
            error => Refusal::conflict(error.to_string()).into(),
        };
        for (holder, address) in held {
            let noted = addresses.allocate(&network.id, &all, holder, Some(*address));
            if let Err(error @ AllocateError::Write(_)) = noted {
                return Err(error.into()); // else a container has had it before, or it is nobody's to get
            }
        }
        for (what, address) in &network.reserved {
            let holder = format!("reserved:{what}");
            addresses
                .allocate(&network.id, &all, &holder, Some(*address))
                .map_err(refused)?;
        }
        let blocks = match wanted {
            Some(_) => all,
            None => [network.range.unwrap_or(network.subnet)],
        };
        let address = addresses
            .allocate(&network.id, &blocks, owner, wanted)
            .map_err(refused)?;
        Ok((address, network.subnet))
    }

    /// Gives `owner` an address in a network, and with it the host a further block when the last is full.
    pub(super) async fn allocate(
        &self,
        network: &Network,
        owner: &str,
        wanted: Option<Ipv4Addr>,
    ) -> anyhow::Result<(Ipv4Addr, Ipv4Network)> {
        let network = match network {
            Network::Local(network) => {
                let held = self.held_by_bridge(network).await?;
                return self.allocate_local(network, &held, owner, wanted);
            }
            Network::Mesh(network) => network,
        };
        loop {
            let blocks = self.own_blocks(&network.id);
            let id = &network.id;
            let allocated = if blocks.is_empty() {
                Err(AllocateError::Full {
                    network: id.to_owned(),
                    held: 0,
                })
            } else {
                locked(&self.addresses).allocate(id, &blocks, owner, wanted)
            };
            match allocated {
                Ok(address) => {
                    let block = blocks.into_iter().find(|block| block.contains(address));
                    return Ok((
                        address,
                        block.context("an address outside the host's blocks")?,
                    ));
                }
                Err(AllocateError::Full { .. }) => {
                    self.claim_block(network).await?;
                }
                Err(error @ AllocateError::Write(_)) => return Err(error.into()),
                Err(error) => return Err(Refusal::conflict(error.to_string()).into()),
            }
        }
    }

    /// A container's place in `network`.
    pub(super) async fn make_endpoint(
        &self,
        network: &Network,
        container: &str,
        request: &EndpointRequest,
    ) -> anyhow::Result<Endpoint> {
        if network.is_sealed() {
            require_tun(network.name())?;
        }
        let (address, block) = self.allocate(network, container, request.address).await?;
        Ok(Endpoint {
            network_id: network.id().to_owned(),
            address,
            block,
            gateway: (!network.internal()).then(|| network.gateway(block)),
            mac: request
                .mac
                .unwrap_or_else(|| MacAddr::of_address(address).0),
            aliases: request.aliases.clone(),
            index: 0,
            gateway_priority: request.gateway_priority,
        })
    }
}
