//! This host's part of the address space: blocks claimed from the registry, addresses out of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, bail};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nuncio_overlay::{
    AddressBook, AllocateError, LEAST_MTU_V6, MacAddr, WriteBookError, gateway6_of, has_ipv6,
    host_routes,
};
use nuncio_registry::NetworkRecord;

use super::config::EndpointRequest;
use super::container::locked;
use super::networks::{LocalNetwork, Network};
use super::record::{Endpoint, EndpointV6};
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

/// Keeps from containers what of a mesh network's addresses is reserved, as far as it is this host's to give.
fn keep_back(
    addresses: &mut AddressBook,
    network: &NetworkRecord,
    blocks: &[IpNetwork],
) -> Result<(), WriteBookError> {
    let gateways = network.gateways().map(|it| ("the gateway".to_owned(), it));
    let reserved = network.reserved();
    let reserved = reserved.map(|(what, address)| (format!("reserved:{what}"), address));
    for (holder, address) in reserved.chain(gateways) {
        if !blocks.iter().any(|block| block.contains(address)) {
            continue;
        }
        let kept = addresses.allocate(&network.id, blocks, &holder, Some(address));
        if let Err(AllocateError::Write(error)) = kept {
            return Err(error); // else it is a block's own address, which no container gets anyway
        }
    }
    Ok(())
}

impl Daemon {
    /// This host's blocks of a network, of either family.
    pub(super) fn own_blocks(&self, network: &str) -> Vec<IpNetwork> {
        locked(&self.blocks)
            .get(network)
            .cloned()
            .unwrap_or_default()
    }

    /// Those out of one of the network's subnets.
    pub(super) fn blocks_in(&self, network: &str, subnet: IpNetwork) -> Vec<IpNetwork> {
        let mut blocks = self.own_blocks(network);
        blocks.retain(|block| block.is_ipv6() == subnet.is_ipv6());
        blocks
    }

    /// Takes a further block of one of the network's subnets for this host.
    pub(super) async fn claim_block(
        &self,
        network: &NetworkRecord,
        subnet: IpNetwork,
    ) -> anyhow::Result<()> {
        let held = self.own_blocks(&network.id);
        let known = self.registry.blocks_of(&network.id, &self.node.id).await?;
        let mut known = known.into_iter();
        let is_left = |cidr: &IpNetwork| cidr.is_ipv6() == subnet.is_ipv6() && !held.contains(cidr);
        let block = match known.find(|block| is_left(&block.cidr)) {
            Some(block) => block,
            None => {
                let avoid = host_routes().await?;
                self.registry
                    .claim_block(
                        network,
                        subnet,
                        &self.node.id,
                        self.node.incarnation,
                        &avoid,
                    )
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
        subnet: IpNetwork,
        held: &[(String, Ipv4Addr)],
        owner: &str,
        wanted: Option<IpAddr>,
    ) -> anyhow::Result<(IpAddr, IpNetwork)> {
        let pools = network.pools();
        let mut pools = pools.iter();
        let pool = pools.find(|pool| pool.subnet == subnet);
        let pool = pool.context("a subnet that is not the network's")?;
        let mut addresses = locked(&self.addresses);
        let all = [subnet];
        let refused = |error| match error {
            error @ AllocateError::Write(_) => anyhow::Error::from(error),
            error => Refusal::conflict(error.to_string()).into(),
        };
        for (holder, address) in held.iter().filter(|_| subnet.is_ipv4()) {
            let noted = addresses.allocate(&network.id, &all, holder, Some((*address).into()));
            if let Err(error @ AllocateError::Write(_)) = noted {
                return Err(error.into()); // else a container has had it before, or it is nobody's to get
            }
        }
        for (what, address) in &pool.reserved {
            let holder = format!("reserved:{what}");
            addresses
                .allocate(&network.id, &all, &holder, Some(*address))
                .map_err(refused)?;
        }
        let blocks = match wanted {
            Some(_) => all,
            None => [pool.range.unwrap_or(subnet)],
        };
        let address = addresses
            .allocate(&network.id, &blocks, owner, wanted)
            .map_err(refused)?;
        Ok((address, subnet))
    }

    /// Gives `owner` an IPv4 address in a network, and tells the block that it is out of.
    pub(super) async fn allocate(
        &self,
        network: &Network,
        owner: &str,
        wanted: Option<Ipv4Addr>,
    ) -> anyhow::Result<(Ipv4Addr, Ipv4Network)> {
        let (subnet, wanted) = (network.subnet().into(), wanted.map(IpAddr::V4));
        match self.allocate_in(network, subnet, owner, wanted).await? {
            (IpAddr::V4(address), IpNetwork::V4(block)) => Ok((address, block)),
            (address, block) => bail!("{address} of {block} is not IPv4"),
        }
    }

    /// Gives `owner` its place in the IPv6 of a network, of which `subnet` is.
    async fn allocate_v6(
        &self,
        network: &Network,
        subnet: Ipv6Network,
        owner: &str,
        request: &EndpointRequest,
    ) -> anyhow::Result<EndpointV6> {
        self.require_v6(network.name(), network.is_sealed()).await?;
        let (subnet, wanted) = (subnet.into(), request.address_v6.map(IpAddr::V6));
        match self.allocate_in(network, subnet, owner, wanted).await? {
            (IpAddr::V6(address), IpNetwork::V6(block)) => Ok(EndpointV6 {
                address,
                block,
                gateway: (!network.internal()).then(|| gateway6_of(block)),
            }),
            (address, block) => bail!("{address} of {block} is not IPv6"),
        }
    }

    /// Refuses IPv6 where this host cannot carry it.
    pub(super) async fn require_v6(&self, network: &str, sealed: bool) -> anyhow::Result<()> {
        if !has_ipv6() {
            bail!(Refusal::invalid(format!(
                "network {network} carries IPv6, which this host's kernel has not, or has turned off at boot (ipv6.disable=1)"
            )));
        }
        let mtu = self.mtu(sealed).await?;
        if mtu < LEAST_MTU_V6 {
            bail!(Refusal::invalid(format!(
                "network {network} carries IPv6, which needs an MTU of {LEAST_MTU_V6}: the underlay leaves {mtu}"
            )));
        }
        Ok(())
    }

    /// Gives `owner` an address in one of a network's subnets, and with it the host a further block when the last is
    /// full.
    async fn allocate_in(
        &self,
        network: &Network,
        subnet: IpNetwork,
        owner: &str,
        wanted: Option<IpAddr>,
    ) -> anyhow::Result<(IpAddr, IpNetwork)> {
        let network = match network {
            Network::Local(network) => {
                let held = self.held_by_bridge(network).await?;
                return self.allocate_local(network, subnet, &held, owner, wanted);
            }
            Network::Mesh(network) => network,
        };
        loop {
            let blocks = self.blocks_in(&network.id, subnet);
            let id = &network.id;
            let allocated = if blocks.is_empty() {
                Err(AllocateError::Full {
                    network: id.to_owned(),
                    held: 0,
                })
            } else {
                let mut addresses = locked(&self.addresses);
                keep_back(&mut addresses, network, &blocks)?;
                addresses.allocate(id, &blocks, owner, wanted)
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
                    // The network's links carry IPv6 from the start, or they would be changed in a moment.
                    if let Some(v6) = network.subnet_v6.map(IpNetwork::V6)
                        && subnet.is_ipv4()
                        && self.blocks_in(id, v6).is_empty()
                    {
                        self.claim_block(network, v6).await?;
                    }
                    self.claim_block(network, subnet).await?;
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
        let subnet_v6 = network.subnet_v6();
        if let (None, Some(address)) = (subnet_v6, request.address_v6) {
            bail!(Refusal::invalid(format!(
                "invalid endpoint settings: no configured subnet contains IP address {address}: network {} carries no IPv6",
                network.name()
            )));
        }
        let (address, block) = self.allocate(network, container, request.address).await?;
        let v6 = match subnet_v6 {
            Some(subnet) => Some(
                self.allocate_v6(network, subnet, container, request)
                    .await?,
            ),
            None => None,
        };
        Ok(Endpoint {
            network_id: network.id().to_owned(),
            address,
            block,
            gateway: (!network.internal()).then(|| network.gateway(block)),
            v6,
            mac: request
                .mac
                .unwrap_or_else(|| MacAddr::of_address(address).0),
            aliases: request.aliases.clone(),
            index: 0,
            gateway_priority: request.gateway_priority,
        })
    }
}
