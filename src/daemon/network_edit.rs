//! Networks that come and go at the user's word.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use ipnetwork::Ipv4Network;
use nuncio_overlay::{gateway_of, host_routes};
use nuncio_registry::{CreateNetworkError, NetworkRequest, RemoveNetworkError};

use super::Daemon;
use super::adopted::adopt;
use super::container::locked;
use super::network_options::{BRIDGE, NetworkOptions};
use super::networks::{LocalNetwork, Network, pools};
use super::refusal::Refusal;
use super::sealing::{ENCRYPTED, require_tun};

/// Where overlay networks' subnets come from, a /16 each, of which every host takes /24 blocks.
const OVERLAY_POOLS: [(Ipv4Addr, u8, u8); 2] = [
    (Ipv4Addr::new(10, 128, 0, 0), 9, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
];
/// Where this host's own bridges get theirs.
const LOCAL_POOLS: [(Ipv4Addr, u8, u8); 2] = [
    (Ipv4Addr::new(172, 24, 0, 0), 13, 20),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];
/// The prefix of a subnet with two addresses besides its own and that of broadcasts.
const SMALLEST: u8 = 30;

/// What `network create` asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkCreate {
    pub(crate) name: String,
    /// `bridge`, `overlay`, or empty for `bridge`.
    pub(crate) driver: String,
    pub(crate) subnet: Option<Ipv4Network>,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Where containers get their addresses; within the subnet.
    pub(crate) range: Option<Ipv4Network>,
    /// Addresses of the subnet that no container is to have, and what for.
    pub(crate) reserved: BTreeMap<String, Ipv4Addr>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Daemon {
    /// Creates a network; an overlay is there for all hosts when this returns.
    pub(crate) async fn network_create(
        &self,
        mut request: NetworkCreate,
    ) -> anyhow::Result<String> {
        if matches!(request.name.as_str(), "bridge" | "host" | "none") {
            let message = format!(
                "operation is not permitted on predefined {} network",
                request.name
            );
            return Err(Refusal::forbidden(message).into());
        }
        if self
            .all_networks()
            .iter()
            .any(|network| network.name() == request.name)
        {
            return Err(taken(&request.name).into());
        }
        let bridge = match request.driver.as_str() {
            "overlay" => None,
            _ => self.named_bridge(&request).await?,
        };
        let mut routes = host_routes().await?;
        if let Some(bridge) = &bridge {
            adopt(&mut request, bridge)?;
            let own = |route: &Ipv4Network| {
                let mut own = bridge.addresses.iter();
                own.any(|address| {
                    (address.network(), address.prefix()) == (route.ip(), route.prefix())
                })
            };
            routes.retain(|route| !own(route));
        }
        if let Some(subnet) = request.subnet {
            if subnet.ip() != subnet.network() {
                let right = format!("{}/{}", subnet.network(), subnet.prefix());
                return Err(Refusal::invalid(format!(
                    "invalid subnet {subnet}: it should be {right}"
                ))
                .into());
            }
            if subnet.prefix() > SMALLEST {
                return Err(Refusal::invalid(format!(
                    "subnet {subnet} is too small for a gateway and a container: /{SMALLEST} is the smallest"
                ))
                .into());
            }
            if let Some(route) = routes
                .iter()
                .find(|route| route.prefix() > 0 && route.overlaps(subnet))
            {
                let message = format!(
                    "subnet {subnet} overlaps {route}, to which this host has a route: choose another with --subnet"
                );
                return Err(Refusal::conflict(message).into());
            }
        }
        let name = request.name.clone();
        let is_named = request.options.contains_key(BRIDGE);
        let (id, driver) = match request.driver.as_str() {
            "overlay" => (self.create_overlay(request, routes).await?, "overlay"),
            "bridge" | "" | "default" => (
                self.create_bridge(request, bridge.is_some(), &routes)?,
                "bridge",
            ),
            other => {
                let message = format!(
                    "could not find a network driver named {other}: bridge and overlay are there"
                );
                return Err(Refusal::not_found(message).into());
            }
        };
        if is_named {
            self.sync().await?; // who chooses the name has a use for the bridge by itself
        }
        self.tell_network(&id, "create", [("name", &name), ("type", driver)]);
        Ok(id)
    }

    async fn create_overlay(
        &self,
        request: NetworkCreate,
        mut avoid: Vec<Ipv4Network>,
    ) -> anyhow::Result<String> {
        refuse_addressing(&request)?;
        if request.options.contains_key(ENCRYPTED) {
            require_tun(&request.name)?;
        }
        self.fits_underlay(&request).await?;
        avoid.extend(
            locked(&self.local_networks)
                .values()
                .map(|network| network.subnet),
        );
        let configured = &self.options.pools;
        let created = self
            .registry
            .create_network(NetworkRequest {
                pools: if configured.is_empty() {
                    pools(&OVERLAY_POOLS)
                } else {
                    configured.clone()
                },
                name: request.name.clone(),
                driver: "overlay".into(),
                subnet: request.subnet,
                avoid,
                internal: request.internal,
                attachable: request.attachable,
                options: request.options,
                labels: request.labels,
                ..NetworkRequest::default()
            })
            .await;
        match created {
            Ok(record) => Ok(record.id),
            Err(CreateNetworkError::NameTaken { .. }) => Err(taken(&request.name).into()),
            Err(
                error @ (CreateNetworkError::SubnetOverlaps { .. }
                | CreateNetworkError::PoolsExhausted),
            ) => Err(Refusal::conflict(error.to_string()).into()),
            Err(
                error
                @ (CreateNetworkError::SubnetTooSmall(_) | CreateNetworkError::InvalidName(_)),
            ) => Err(Refusal::invalid(format!("{:#}", anyhow::Error::from(error))).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses packets longer than this host's tunnels carry, which would be lost.
    async fn fits_underlay(&self, request: &NetworkCreate) -> anyhow::Result<()> {
        let sealed = request.options.contains_key(ENCRYPTED);
        let most = self.mtu(sealed).await?;
        match NetworkOptions::parse(&request.options)?.mtu {
            Some(asked) if asked > most => bail!(Refusal::invalid(format!(
                "network {}: MTU {asked} is more than the {most} bytes that fit into packets between hosts",
                request.name
            ))),
            _ => Ok(()),
        }
    }

    fn create_bridge(
        &self,
        request: NetworkCreate,
        adopted: bool,
        routes: &[Ipv4Network],
    ) -> anyhow::Result<String> {
        if request.options.contains_key(ENCRYPTED) {
            bail!(Refusal::invalid(format!(
                "network {}: --opt {ENCRYPTED} is for networks across hosts: add -d overlay",
                request.name
            )));
        }
        let mut used: Vec<Ipv4Network> = routes
            .iter()
            .copied()
            .filter(|route| route.prefix() > 0)
            .collect();
        used.extend(self.all_networks().iter().map(Network::subnet));
        let subnet = match request.subnet {
            Some(subnet) => match used.iter().find(|other| other.overlaps(subnet)) {
                Some(other) => bail!(Refusal::conflict(format!(
                    "subnet {subnet} overlaps {other} of another network"
                ))),
                None => subnet,
            },
            None => free_subnet(&pools(&LOCAL_POOLS), &used)
                .context("no free subnet is left for bridge networks: give one with --subnet")?,
        };
        let gateway = request.gateway.unwrap_or(gateway_of(subnet));
        if !adopted && gateway != gateway_of(subnet) {
            bail!(Refusal::unsupported(format!(
                "network {}: not built: --gateway {gateway}; only the first address of {subnet}",
                request.name
            )));
        }
        let unusable = [subnet.network(), gateway, subnet.broadcast()];
        let mut reserved = request.reserved.iter();
        if let Some((what, address)) = reserved.find(|(_, address)| unusable.contains(address)) {
            bail!(Refusal::forbidden(format!(
                "failed to allocate secondary ip address ({what}:{address}): Address already in use"
            )));
        }
        let network = LocalNetwork {
            v: 1,
            id: super::new_id(),
            name: request.name,
            subnet,
            range: request.range,
            reserved: request.reserved,
            internal: request.internal,
            adopted,
            gateway: adopted.then_some(gateway),
            options: request.options,
            labels: request.labels,
            created: jiff::Timestamp::now().to_string(),
        };
        let id = network.id.clone();
        self.keep_local(network)?;
        Ok(id)
    }

    pub(super) fn local_network_path(&self, id: &str) -> PathBuf {
        self.options
            .data_root
            .join("networks")
            .join(format!("{id}.json"))
    }

    /// Removes a network that no container is in.
    pub(crate) async fn network_remove(&self, wanted: &str) -> anyhow::Result<()> {
        if matches!(wanted, "bridge" | "host" | "none") {
            let message = format!("{wanted} is a pre-defined network and cannot be removed");
            return Err(Refusal::forbidden(message).into());
        }
        let network = self.find_network(wanted).await?;
        let users: Vec<String> = self
            .containers()
            .iter()
            .filter(|container| container.is_active())
            .map(|container| container.view())
            .filter(|record| {
                record
                    .endpoints
                    .values()
                    .any(|endpoint| endpoint.network_id == network.id())
            })
            .map(|record| record.name)
            .collect();
        if !users.is_empty() {
            return Err(in_use(network.name(), &users).into());
        }
        match &network {
            Network::Local(local) => self.forget_local(&local.id)?,
            Network::Mesh(record) => match self.registry.remove_network(&record.id).await {
                Ok(()) => {}
                Err(RemoveNetworkError::InUse { network, endpoints }) => {
                    return Err(in_use(&network, &endpoints).into());
                }
                Err(RemoveNetworkError::NotFound(_)) => {
                    return Err(Refusal::not_found(format!("network {wanted} not found")).into());
                }
                Err(error) => return Err(error.into()),
            },
        }
        for container in self.containers() {
            container.update(|record| {
                record
                    .endpoints
                    .retain(|_, endpoint| endpoint.network_id != network.id());
            })?;
        }
        self.forget_network(network.id())?;
        let about = [("name", network.name()), ("type", network.driver())];
        self.tell_network(network.id(), "destroy", about);
        self.sync().await
    }
}

/// Every host hands out addresses of an overlay from blocks of its own, of which it is the gateway.
fn refuse_addressing(request: &NetworkCreate) -> Result<(), Refusal> {
    let asked = [
        (request.gateway.is_some(), "--gateway"),
        (request.range.is_some(), "--ip-range"),
        (!request.reserved.is_empty(), "--aux-address"),
    ];
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Refusal::unsupported(format!(
            "network {}: not built: {flag} of an overlay",
            request.name
        ))),
        None => Ok(()),
    }
}

fn taken(name: &str) -> Refusal {
    Refusal::conflict(format!("network with name {name} already exists"))
}

fn in_use(network: &str, users: &[String]) -> Refusal {
    let users = users.join(", ");
    Refusal::forbidden(format!(
        "error while removing network: network {network} has active endpoints: {users}"
    ))
}

fn free_subnet(pools: &[(Ipv4Network, u8)], used: &[Ipv4Network]) -> Option<Ipv4Network> {
    pools.iter().find_map(|(pool, prefix)| {
        let step = 1u32 << (32 - prefix);
        let count = 1u32 << (prefix - pool.prefix());
        (0..count)
            .filter_map(|index| {
                Ipv4Network::new(
                    Ipv4Addr::from(u32::from(pool.network()) + index * step),
                    *prefix,
                )
                .ok()
            })
            .find(|subnet| !used.iter().any(|other| other.overlaps(*subnet)))
    })
}
