//! Creating and removing networks, each in one transaction over all it claims.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, TxnOp};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::backoff::Backoff;
use crate::claim::ClaimRecord;
use crate::client::{CallError, Entry, Registry, prefix_end, readable};
use crate::era::Seen;
use crate::keys::{
    BLOCKS, BadName, ENDPOINTS, Key, NETWORK_NAMES, NETWORKS, SUBNETS, VNIS, check_name,
};
use crate::model::{AddressingV6, NetworkRecord};
use crate::nodes::ATTEMPTS;
use crate::subnets::SubnetTooSmall;
use crate::wire::Record;

mod choice;

use choice::{Choice, Claims, LAST_VNI, choose};

/// A network to be created.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    /// Name, unique in the mesh.
    pub name: String,
    /// `bridge` or `overlay`.
    pub driver: String,
    /// The subnet, or `None` to take the first free one of `pools`.
    pub subnet: Option<Ipv4Network>,
    /// Whether it carries IPv6, too.
    pub v6: bool,
    /// The subnet of IPv6, or `None` to take the first free one of `pools`.
    pub subnet_v6: Option<Ipv6Network>,
    /// Pools of either family in order of preference, each with the prefix length to take of it.
    pub pools: Vec<(IpNetwork, u8)>,
    /// The part of the subnet that hosts take blocks of; `None`: all of it.
    pub range: Option<Ipv4Network>,
    /// The gateway asked for.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that no container gets, and what for.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// The same of IPv6.
    pub addressing_v6: AddressingV6,
    /// Subnets to keep clear of, such as the host's routes.
    pub avoid: Vec<IpNetwork>,
    /// The VNI, or `None` to take the first free one from 4096 up.
    pub vni: Option<u32>,
    /// Without a way out of the mesh.
    pub internal: bool,
    /// Open to containers that are not part of a service.
    pub attachable: bool,
    /// MTU asked for.
    pub mtu: Option<u16>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Why a network could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateNetworkError {
    /// A network of this name exists.
    #[error("network with name {name} already exists")]
    NameTaken {
        /// The name.
        name: String,
        /// Identifier of the network that has it.
        id: String,
    },
    /// The subnet asked for has addresses of another network.
    #[error("subnet {subnet} overlaps {with} of network {network}")]
    SubnetOverlaps {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The one it overlaps.
        with: IpNetwork,
        /// Name of the network that has it.
        network: String,
    },
    /// The subnet asked for has addresses the host routes elsewhere.
    #[error("subnet {subnet} overlaps {with}, to which this host has a route")]
    SubnetRouted {
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The route it overlaps.
        with: IpNetwork,
    },
    /// No subnet is left in any pool.
    #[error("no free subnet is left in the address pools, give one with --subnet")]
    PoolsExhausted,
    /// The VNI asked for belongs to another network.
    #[error("VNI {vni} is taken by network {network}")]
    VniTaken {
        /// The VNI.
        vni: u32,
        /// Name of the network that has it.
        network: String,
    },
    /// The VNI asked for does not fit in 24 bits, or is 0.
    #[error("VNI {0} is not between 1 and 16777215")]
    VniOutOfRange(u32),
    /// All VNIs are taken.
    #[error("no free VNI is left")]
    VnisExhausted,
    /// The subnet cannot be shared among hosts.
    #[error(transparent)]
    SubnetTooSmall(#[from] SubnetTooSmall),
    /// The name cannot be part of a key.
    #[error(transparent)]
    InvalidName(#[from] BadName),
    /// Others kept creating networks in between.
    #[error("create network {0}: too many others create networks at once")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a network could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNetworkError {
    /// There is none.
    #[error("network {0} not found")]
    NotFound(String),
    /// Containers run on it.
    #[error("network {network} has active endpoints: {}", endpoints.join(", "))]
    InUse {
        /// Name of the network.
        network: String,
        /// Identifiers of the containers.
        endpoints: Vec<String>,
    },
    /// Endpoints kept changing in between.
    #[error("remove network {0}: its endpoints keep changing")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl Registry {
    /// Creates a network: its record, name, VNI and subnets in one transaction, or none of them.
    ///
    /// # Errors
    ///
    /// [`CreateNetworkError`] says what is taken, and by whom.
    pub async fn create_network(
        &self,
        request: NetworkRequest,
    ) -> Result<NetworkRecord, CreateNetworkError> {
        check_name(&request.name)?;
        if let Some(vni) = request.vni.filter(|vni| !(1..=LAST_VNI).contains(vni)) {
            return Err(CreateNetworkError::VniOutOfRange(vni));
        }
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let seen = self.place().seen();
            let claims = self.claims(&request.name).await?;
            let network = record(&request, choose(&request, &claims)?);
            if self.claim_network(&network, claims.revision, &seen).await? {
                return Ok(network);
            }
            backoff.wait().await;
        }
        Err(CreateNetworkError::Contended(request.name))
    }

    /// The network of the request's name, created if there is none.
    ///
    /// # Errors
    ///
    /// [`CreateNetworkError`] if it has to be created and cannot be.
    pub async fn ensure_network(
        &self,
        request: NetworkRequest,
    ) -> Result<NetworkRecord, CreateNetworkError> {
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            if let Some(network) = self.network_named(&request.name).await? {
                return Ok(network);
            }
            match self.create_network(request.clone()).await {
                Err(CreateNetworkError::NameTaken { .. }) => backoff.wait().await,
                done => return done,
            }
        }
        Err(CreateNetworkError::Contended(request.name))
    }

    /// The network of this name, if there is one.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn network_named(&self, name: &str) -> Result<Option<NetworkRecord>, CallError> {
        const OPERATION: &str = "look up network";
        let claim = self
            .entry(OPERATION, format!("{NETWORK_NAMES}{name}"))
            .await?;
        let Some(claim) = claim.as_ref().and_then(readable::<ClaimRecord>) else {
            return Ok(None);
        };
        let entry = self
            .entry(OPERATION, Key::Network(claim.network).to_string())
            .await?;
        Ok(entry.as_ref().and_then(readable))
    }

    /// All networks.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn networks(&self) -> Result<Vec<NetworkRecord>, CallError> {
        self.records("list networks", NETWORKS).await
    }

    /// Removes a network without endpoints, with its name, VNI, subnet and blocks.
    ///
    /// # Errors
    ///
    /// [`RemoveNetworkError::InUse`] names the endpoints that are in the way.
    pub async fn remove_network(&self, id: &str) -> Result<(), RemoveNetworkError> {
        const OPERATION: &str = "remove network";
        let key = Key::Network(id.to_owned()).to_string();
        let endpoints = format!("{ENDPOINTS}{id}/");
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let seen = self.place().seen();
            let entry = self.entry(OPERATION, key.clone()).await?;
            let Some(entry) = entry else {
                return Err(RemoveNetworkError::NotFound(id.to_owned()));
            };
            let Some(network) = readable::<NetworkRecord>(&entry) else {
                return Err(RemoveNetworkError::NotFound(id.to_owned()));
            };
            let found = self.list(OPERATION, &endpoints).await?.entries;
            if !found.is_empty() {
                let id = |entry: &Entry| entry.key.strip_prefix(&endpoints).map(str::to_owned);
                let endpoints = found.iter().filter_map(id).collect();
                return Err(RemoveNetworkError::InUse {
                    network: network.name,
                    endpoints,
                });
            }
            let when = vec![
                Compare::mod_revision(key.clone(), CompareOp::Equal, entry.modified),
                Compare::create_revision(endpoints.clone(), CompareOp::Equal, 0)
                    .with_range(prefix_end(&endpoints)),
            ];
            if self
                .txn_as_of(&seen, OPERATION, when, deletions(&network))
                .await?
                .succeeded
            {
                return Ok(());
            }
            backoff.wait().await;
        }
        Err(RemoveNetworkError::Contended(id.to_owned()))
    }

    async fn claims(&self, name: &str) -> Result<Claims, CallError> {
        let all = || Some(GetOptions::new().with_prefix());
        let gets = vec![
            TxnOp::get(format!("{NETWORK_NAMES}{name}"), None),
            TxnOp::get(VNIS, all()),
            TxnOp::get(SUBNETS, all()),
        ];
        let outcome = self.read("read claims of networks", gets).await?;
        let [name, vnis, subnets] = outcome.found.as_slice() else {
            unreachable!("three gets have three answers")
        };
        // A claim that cannot be read still keeps its key.
        let claim = |entry: &Entry| readable::<ClaimRecord>(entry).unwrap_or_default();
        let vni = |entry: &Entry| {
            let vni = entry.key.strip_prefix(VNIS)?.parse().ok()?;
            Some((vni, claim(entry)))
        };
        let subnet = |entry: &Entry| {
            let subnet = entry.key.strip_prefix(SUBNETS)?.parse().ok()?;
            Some((subnet, claim(entry)))
        };
        Ok(Claims {
            revision: outcome.revision,
            name: name.first().map(claim),
            vnis: vnis.iter().filter_map(vni).collect(),
            subnets: subnets.iter().filter_map(subnet).collect(),
        })
    }

    /// Writes `network` if no subnet was claimed since `revision`, and nobody has its name or VNI.
    async fn claim_network(
        &self,
        network: &NetworkRecord,
        revision: i64,
        seen: &Seen,
    ) -> Result<bool, CallError> {
        let claim = ClaimRecord {
            network: network.id.clone(),
            name: network.name.clone(),
        };
        let claim = claim.encode(None);
        let key = Key::Network(network.id.clone()).to_string();
        let mut when = vec![
            Compare::mod_revision(SUBNETS, CompareOp::Less, revision + 1)
                .with_range(prefix_end(SUBNETS)),
            Compare::create_revision(key.clone(), CompareOp::Equal, 0),
        ];
        let mut then = vec![TxnOp::put(key, network.encode(None), None)];
        for key in claimed_keys(network) {
            when.push(Compare::create_revision(key.clone(), CompareOp::Equal, 0));
            then.push(TxnOp::put(key, claim.clone(), None));
        }
        let done = self.txn_as_of(seen, "create network", when, then);
        Ok(done.await?.succeeded)
    }
}

/// The keys that keep a network's name, VNI and subnets for it.
fn claimed_keys(network: &NetworkRecord) -> impl Iterator<Item = String> {
    let subnets = network.subnets();
    [
        format!("{NETWORK_NAMES}{}", network.name),
        format!("{VNIS}{}", network.vni),
    ]
    .into_iter()
    .chain(subnets.map(|subnet| format!("{SUBNETS}{subnet}")))
}

fn deletions(network: &NetworkRecord) -> Vec<TxnOp> {
    let blocks = format!("{BLOCKS}{}/", network.id);
    let range = DeleteOptions::new().with_range(prefix_end(&blocks));
    let mut ops = vec![
        TxnOp::delete(Key::Network(network.id.clone()).to_string(), None),
        TxnOp::delete(blocks, Some(range)),
    ];
    ops.extend(claimed_keys(network).map(|key| TxnOp::delete(key, None)));
    ops
}

fn record(request: &NetworkRequest, choice: Choice) -> NetworkRecord {
    let id: [u8; 32] = rand::random();
    NetworkRecord {
        id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
        name: request.name.clone(),
        driver: request.driver.clone(),
        vni: choice.vni,
        subnet: choice.subnet,
        subnet_v6: choice.subnet_v6,
        range: request.range,
        gateway: request.gateway,
        reserved: request.reserved.clone(),
        addressing_v6: request.addressing_v6.clone(),
        internal: request.internal,
        attachable: request.attachable,
        mtu: request.mtu,
        options: request.options.clone(),
        labels: request.labels.clone(),
        created: jiff::Timestamp::now().to_string(),
    }
}
