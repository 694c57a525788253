//! The networks this host knows: the mesh's, from the registry, and bridges of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nuncio_overlay::{bridge_name, gateway, gateway_of, host_routes};
use nuncio_registry::{NetworkRecord, NetworkRequest};
use serde::{Deserialize, Serialize};

use super::adopted::DefaultBridge;
use super::container::locked;
use super::network_options::{BRIDGE, NetworkOptions};
use super::refusal::Refusal;
use super::sealing::is_sealed;
use super::{DEFAULT_BRIDGE, Daemon, state_file};

/// Name of the network that containers are in unless told otherwise.
pub(crate) const DEFAULT_NETWORK: &str = "bridge";

/// Where the default network's subnet comes from; the first is Docker's own.
const DEFAULT_POOLS: [(Ipv4Addr, u8, u8); 3] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 18, 0, 0), 15, 16),
    (Ipv4Addr::new(10, 96, 0, 0), 11, 16),
];
/// A bridge network of this host alone, as it lies on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LocalNetwork {
    pub(super) v: u32,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Network,
    /// Where containers get addresses that ask for none; `None`: all of it.
    #[serde(default)]
    pub(crate) range: Option<Ipv4Network>,
    /// Addresses that no container gets, and what for.
    #[serde(default)]
    pub(crate) reserved: BTreeMap<String, Ipv4Addr>,
    /// What it carries of IPv6.
    #[serde(default)]
    pub(crate) v6: Option<LocalV6>,
    pub(crate) internal: bool,
    /// Its bridge was there before, and is not ours.
    #[serde(default)]
    pub(crate) adopted: bool,
    /// Where the way out is on such a bridge; one of our own has the subnet's first address.
    #[serde(default)]
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: String,
}

/// The IPv6 of a bridge network.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LocalV6 {
    pub(crate) subnet: Ipv6Network,
    #[serde(default)]
    pub(crate) range: Option<Ipv6Network>,
    #[serde(default)]
    pub(crate) reserved: BTreeMap<String, Ipv6Addr>,
}

impl LocalNetwork {
    /// What is said of its addresses, those of IPv4 first.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        let v4 = Pool {
            subnet: self.subnet.into(),
            gateway: Some(self.gateway.unwrap_or(gateway_of(self.subnet)).into()),
            range: self.range.map(IpNetwork::V4),
            reserved: of_either(&self.reserved),
        };
        let v6 = self.v6.as_ref().map(|v6| Pool {
            subnet: v6.subnet.into(),
            gateway: Some(gateway(v6.subnet.into())),
            range: v6.range.map(IpNetwork::V6),
            reserved: of_either(&v6.reserved),
        });
        std::iter::once(v4).chain(v6).collect()
    }
}

/// The addresses as those of either family.
pub(super) fn of_either<A: Copy + Into<IpAddr>>(
    reserved: &BTreeMap<String, A>,
) -> BTreeMap<String, IpAddr> {
    let each = reserved.iter();
    each.map(|(what, address)| (what.clone(), (*address).into()))
        .collect()
}

/// A network's addresses of one family.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) subnet: IpNetwork,
    /// This host's; an overlay in which it has no block has none here.
    pub(crate) gateway: Option<IpAddr>,
    /// Where containers get addresses that ask for none; `None`: all of it.
    pub(crate) range: Option<IpNetwork>,
    /// Addresses that no container gets, and what for.
    pub(crate) reserved: BTreeMap<String, IpAddr>,
}

/// A network, wherever it is written down.
#[derive(Clone, Debug)]
pub(crate) enum Network {
    /// Out of the registry: an overlay, or the default network.
    Mesh(Arc<NetworkRecord>),
    Local(Box<LocalNetwork>),
}

impl Network {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Mesh(network) => &network.id,
            Self::Local(network) => &network.id,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Mesh(network) => &network.name,
            Self::Local(network) => &network.name,
        }
    }

    pub(crate) fn subnet(&self) -> Ipv4Network {
        match self {
            Self::Mesh(network) => network.subnet,
            Self::Local(network) => network.subnet,
        }
    }

    /// Its subnets, that of IPv4 first.
    pub(crate) fn subnets(&self) -> Vec<IpNetwork> {
        match self {
            Self::Mesh(network) => network.subnets().collect(),
            Self::Local(network) => network.pools().iter().map(|pool| pool.subnet).collect(),
        }
    }

    pub(crate) fn subnet_v6(&self) -> Option<Ipv6Network> {
        match self {
            Self::Mesh(network) => network.subnet_v6,
            Self::Local(network) => network.v6.as_ref().map(|v6| v6.subnet),
        }
    }

    pub(crate) fn internal(&self) -> bool {
        match self {
            Self::Mesh(network) => network.internal,
            Self::Local(network) => network.internal,
        }
    }

    /// The bridge that this host's containers in it are on.
    pub(super) fn bridge(&self) -> String {
        let options = match self {
            Self::Mesh(_) if self.is_default() => return DEFAULT_BRIDGE.to_owned(),
            Self::Mesh(_) => None,
            Self::Local(network) => network.options.get(BRIDGE),
        };
        options.cloned().unwrap_or_else(|| bridge_name(self.id()))
    }

    /// Whether that bridge is not ours.
    pub(super) fn is_adopted(&self) -> bool {
        matches!(self, Self::Local(network) if network.adopted)
    }

    /// Where containers with an address of `block` find the way out.
    pub(super) fn gateway(&self, block: Ipv4Network) -> Ipv4Addr {
        match self {
            Self::Local(network) => network.gateway.unwrap_or(gateway_of(block)),
            Self::Mesh(_) => gateway_of(block),
        }
    }

    pub(super) fn options(&self) -> NetworkOptions {
        NetworkOptions::of(match self {
            Self::Mesh(network) => &network.options,
            Self::Local(network) => &network.options,
        })
    }

    /// Greatest IP packet in it, on a host whose tunnels have room for `tunnelled` bytes.
    pub(super) fn mtu(&self, tunnelled: u16) -> u16 {
        let asked = self.options().mtu;
        match self {
            Self::Mesh(network) => asked.or(network.mtu).unwrap_or(u16::MAX).min(tunnelled),
            Self::Local(_) => asked.unwrap_or(tunnelled),
        }
    }

    pub(crate) fn driver(&self) -> &'static str {
        match self {
            Self::Mesh(_) if !self.is_default() => "overlay",
            Self::Mesh(_) | Self::Local(_) => "bridge",
        }
    }

    /// Packets of it leave this host encrypted only.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self, Self::Mesh(network) if is_sealed(network))
    }

    pub(crate) fn is_default(&self) -> bool {
        self.name() == DEFAULT_NETWORK
    }
}

/// A network as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct NetworkView {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
    pub(crate) scope: &'static str,
    pub(crate) pools: Vec<Pool>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) vni: Option<u32>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: String,
    pub(crate) endpoints: Vec<NetworkEndpoint>,
    pub(crate) peers: Vec<(String, IpAddr)>,
}

/// A container in a network, on whatever host.
#[derive(Clone, Debug)]
pub(crate) struct NetworkEndpoint {
    pub(crate) container_id: String,
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    /// Its IPv6 address, with the prefix length.
    pub(crate) v6: Option<(Ipv6Addr, u8)>,
}

/// Reads this host's own networks.
pub(crate) fn load_local(directory: &Path) -> anyhow::Result<BTreeMap<String, LocalNetwork>> {
    let mut networks = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
            && let Some(network) = state_file::read::<LocalNetwork>(&path)?
        {
            networks.insert(network.id.clone(), network);
        }
    }
    Ok(networks)
}

pub(super) fn pools(pools: &[(Ipv4Addr, u8, u8)]) -> Vec<(IpNetwork, u8)> {
    pools
        .iter()
        .filter_map(|(base, prefix, size)| {
            Some((IpNetwork::new((*base).into(), *prefix).ok()?, *size))
        })
        .collect()
}

impl Daemon {
    /// Makes sure that the mesh has the default network, and this host a part of it; or one of its own, or none, as
    /// `--bridge` says.
    pub(super) async fn ensure_default_network(&self) -> anyhow::Result<()> {
        self.ensure_local_default().await?;
        if self.default_bridge() != DefaultBridge::Ours {
            return Ok(());
        }
        if self.mesh_default().is_none() {
            let request = NetworkRequest {
                name: DEFAULT_NETWORK.into(),
                driver: "bridge".into(),
                pools: pools(&DEFAULT_POOLS),
                avoid: host_routes().await?,
                ..NetworkRequest::default()
            };
            let record = self
                .registry
                .ensure_network(request)
                .await
                .context("default network")?;
            self.default_record.set(Arc::new(record)).ok();
        }
        let network = self
            .mesh_default()
            .context("the default network is missing")?;
        if self.own_blocks(&network.id).is_empty() {
            self.claim_block(&network, network.subnet.into()).await?;
        }
        Ok(())
    }

    /// The network that containers are in unless told otherwise.
    pub(super) fn default_network(&self) -> Option<Network> {
        if self.default_bridge() == DefaultBridge::Ours {
            return self.mesh_default().map(Network::Mesh);
        }
        let networks = locked(&self.local_networks);
        let mut local = networks.values();
        let found = local.find(|network| network.name == DEFAULT_NETWORK);
        found.cloned().map(Box::new).map(Network::Local)
    }

    /// The default network, if this host has a part of the mesh's.
    pub(super) fn mesh_default(&self) -> Option<Arc<NetworkRecord>> {
        if self.default_bridge() != DefaultBridge::Ours {
            return None;
        }
        let catalog = self.catalog();
        catalog
            .network_named(DEFAULT_NETWORK)
            .cloned()
            .or_else(|| self.default_record.get().cloned())
    }

    /// All networks but `host` and `none`.
    pub(crate) fn all_networks(&self) -> Vec<Network> {
        let catalog = self.catalog();
        let mut networks: Vec<Network> = catalog
            .networks
            .values()
            .filter(|network| network.name != DEFAULT_NETWORK)
            .cloned()
            .map(Network::Mesh)
            .collect();
        networks.extend(self.mesh_default().map(Network::Mesh));
        networks.extend(
            locked(&self.local_networks)
                .values()
                .cloned()
                .map(Box::new)
                .map(Network::Local),
        );
        networks
    }

    /// The network of that name, id or beginning of an id; asks the registry itself for one not heard of yet.
    pub(super) async fn find_network(&self, wanted: &str) -> anyhow::Result<Network> {
        let not_found = || Refusal::not_found(format!("network {wanted} not found"));
        let networks = self.all_networks();
        let exact = |network: &&Network| network.id() == wanted || network.name() == wanted;
        if let Some(found) = networks.iter().find(exact) {
            return Ok(found.clone());
        }
        let mut begin = networks
            .iter()
            .filter(|network| network.id().starts_with(wanted));
        if let (false, Some(found), None) = (wanted.is_empty(), begin.next(), begin.next()) {
            return Ok(found.clone());
        }
        if wanted == DEFAULT_NETWORK {
            return Err(not_found().into());
        }
        match self.registry.network_named(wanted).await {
            Ok(Some(record)) => Ok(Network::Mesh(Arc::new(record))),
            Ok(None) => Err(not_found().into()),
            Err(error) => Err(error).context(format!("network {wanted} is not known here")),
        }
    }
}
