//! Networks that come and go at the user's word.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, bail};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nuncio_overlay::{LEAST_MTU_V6, gateway, host_routes};
use nuncio_registry::{
    AddressingV6, CreateNetworkError, NetworkRequest, RemoveNetworkError, first_free, overlapping,
};

use super::Daemon;
use super::adopted::adopt;
use super::container::locked;
use super::network_options::{BRIDGE, NetworkOptions};
use super::networks::{LocalNetwork, LocalV6, Network, Pool, of_either, pools};
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

/// Prefix length of the smallest subnet of IPv6: beside this host's address it has room for a container or two.
const SMALLEST_V6: u8 = 126;

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
    /// `--ipv6`, and what is said of its addresses.
    pub(crate) v6: Option<CreateV6>,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The IPv6 that a network is to carry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CreateV6 {
    pub(crate) subnet: Option<Ipv6Network>,
    pub(crate) gateway: Option<Ipv6Addr>,
    pub(crate) range: Option<Ipv6Network>,
    pub(crate) reserved: BTreeMap<String, Ipv6Addr>,
}

impl NetworkCreate {
    /// The subnets that are asked for.
    fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        let v6 = self.v6.as_ref().and_then(|v6| v6.subnet);
        let v4 = self.subnet.map(IpNetwork::V4);
        v4.into_iter().chain(v6.map(IpNetwork::V6))
    }

    /// What is asked of the subnets that are asked for; where no gateway is, it is the first address.
    fn pools(&self) -> Vec<Pool> {
        let v4 = self.subnet.map(|subnet| Pool {
            subnet: subnet.into(),
            gateway: self
                .gateway
                .map(IpAddr::V4)
                .or(Some(gateway(subnet.into()))),
            range: self.range.map(IpNetwork::V4),
            reserved: of_either(&self.reserved),
        });
        let v6 = self.v6.as_ref().and_then(|v6| {
            let subnet = v6.subnet?.into();
            Some(Pool {
                subnet,
                gateway: v6.gateway.map(IpAddr::V6).or(Some(gateway(subnet))),
                range: v6.range.map(IpNetwork::V6),
                reserved: of_either(&v6.reserved),
            })
        });
        v4.into_iter().chain(v6).collect()
    }
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
            let own = |route: &IpNetwork| {
                let mut own = bridge.addresses.iter();
                own.any(|address| {
                    let network = (IpAddr::V4(address.network()), address.prefix());
                    network == (route.ip(), route.prefix())
                })
            };
            routes.retain(|route| !own(route));
        }
        if request.v6.is_some() {
            let sealed = request.options.contains_key(ENCRYPTED);
            self.require_v6(&request.name, sealed).await?;
            let asked = NetworkOptions::parse(&request.options)?.mtu;
            if let Some(mtu) = asked.filter(|mtu| *mtu < LEAST_MTU_V6) {
                bail!(Refusal::invalid(format!(
                    "network {}: MTU {mtu} is too small for IPv6, which needs {LEAST_MTU_V6}",
                    request.name
                )));
            }
        }
        for subnet in request.subnets() {
            if subnet.ip() != subnet.network() {
                let right = format!("{}/{}", subnet.network(), subnet.prefix());
                return Err(Refusal::invalid(format!(
                    "invalid subnet {subnet}: it should be {right}"
                ))
                .into());
            }
            let smallest = if subnet.is_ipv6() {
                SMALLEST_V6
            } else {
                SMALLEST
            };
            if subnet.prefix() > smallest {
                return Err(Refusal::invalid(format!(
                    "subnet {subnet} is too small for a gateway and a container: /{smallest} is the smallest"
                ))
                .into());
            }
            if let Some(route) = overlapping(subnet, &routes) {
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
        mut avoid: Vec<IpNetwork>,
    ) -> anyhow::Result<String> {
        request.pools().iter().try_for_each(check_reserved)?;
        if request.options.contains_key(ENCRYPTED) {
            require_tun(&request.name)?;
        }
        if request.options.contains_key(BRIDGE) {
            bail!(Refusal::invalid(format!(
                "network {}: --opt {BRIDGE} is for networks of one host: leave it out, or -d overlay",
                request.name
            )));
        }
        self.fits_underlay(&request).await?;
        for network in locked(&self.local_networks).values() {
            avoid.extend(network.pools().iter().map(|pool| pool.subnet));
        }
        let configured = &self.options.pools;
        let mut pools = match configured.is_empty() {
            true => pools(&OVERLAY_POOLS),
            false => configured
                .iter()
                .map(|(pool, size)| ((*pool).into(), *size))
                .collect(),
        };
        pools.extend(unique_local(&self.node.id));
        let v6 = request.v6.clone().unwrap_or_default();
        let created = self
            .registry
            .create_network(NetworkRequest {
                pools,
                v6: request.v6.is_some(),
                subnet_v6: v6.subnet,
                addressing_v6: AddressingV6 {
                    range: v6.range,
                    gateway: v6.gateway,
                    reserved: v6.reserved,
                },
                name: request.name.clone(),
                driver: "overlay".into(),
                subnet: request.subnet,
                range: request.range,
                gateway: request.gateway,
                reserved: request.reserved,
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
        routes: &[IpNetwork],
    ) -> anyhow::Result<String> {
        if request.options.contains_key(ENCRYPTED) {
            bail!(Refusal::invalid(format!(
                "network {}: --opt {ENCRYPTED} is for networks across hosts: add -d overlay",
                request.name
            )));
        }
        let mut used = routes.to_vec();
        used.extend(self.all_networks().iter().flat_map(Network::subnets));
        for subnet in request.subnets() {
            if let Some(other) = overlapping(subnet, &used) {
                bail!(Refusal::conflict(format!(
                    "subnet {subnet} overlaps {other} of another network"
                )));
            }
        }
        let none_left = "no free subnet is left for bridge networks: give one with --subnet";
        let subnet = match request.subnet {
            Some(subnet) => subnet,
            None => match first_free(&pools(&LOCAL_POOLS), &used) {
                Some(IpNetwork::V4(subnet)) => subnet,
                _ => bail!(none_left),
            },
        };
        let v6 = match request.v6 {
            None => None,
            Some(v6) => {
                let pool = unique_local(&self.node.id);
                let free = || match first_free(pool.as_slice(), &used) {
                    Some(IpNetwork::V6(subnet)) => Some(subnet),
                    _ => None,
                };
                let subnet = v6.subnet.or_else(free).context(none_left)?;
                check_gateway(&request.name, v6.gateway, subnet)?;
                Some(LocalV6 {
                    subnet,
                    range: v6.range,
                    reserved: v6.reserved,
                })
            }
        };
        if !adopted {
            check_gateway(&request.name, request.gateway, subnet)?;
        }
        let network = LocalNetwork {
            v: 1,
            id: super::new_id(),
            name: request.name,
            subnet,
            range: request.range,
            reserved: request.reserved,
            v6,
            internal: request.internal,
            adopted,
            gateway: request.gateway.filter(|_| adopted),
            options: request.options,
            labels: request.labels,
            created: jiff::Timestamp::now().to_string(),
        };
        network.pools().iter().try_for_each(check_reserved)?;
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

fn taken(name: &str) -> Refusal {
    Refusal::conflict(format!("network with name {name} already exists"))
}

fn in_use(network: &str, users: &[String]) -> Refusal {
    let users = users.join(", ");
    Refusal::forbidden(format!(
        "error while removing network: network {network} has active endpoints: {users}"
    ))
}

/// Of a bridge this host has the first address.
fn check_gateway(
    network: &str,
    asked: Option<impl Into<IpAddr>>,
    subnet: impl Into<IpNetwork>,
) -> Result<(), Refusal> {
    let (asked, subnet) = (asked.map(Into::into), subnet.into());
    match asked.filter(|asked| *asked != gateway(subnet)) {
        None => Ok(()),
        Some(gateway) => Err(Refusal::unsupported(format!(
            "network {network}: not built: --gateway {gateway}; only the first address of {subnet}"
        ))),
    }
}

/// Refuses to keep back addresses that no container could have anyway.
fn check_reserved(pool: &Pool) -> Result<(), Refusal> {
    let subnet = pool.subnet;
    let last = (!subnet.is_ipv6()).then(|| subnet.broadcast());
    let unusable = [Some(subnet.network()), pool.gateway, last];
    let mut reserved = pool.reserved.iter();
    match reserved.find(|(_, address)| unusable.contains(&Some(**address))) {
        None => Ok(()),
        Some((what, address)) => Err(Refusal::forbidden(format!(
            "failed to allocate secondary ip address ({what}:{address}): Address already in use"
        ))),
    }
}

/// Where networks that carry IPv6 get their subnets, a /64 each: a unique local /48, whose 40 bits are to be drawn at
/// random (RFC 4193 §3.2), as those of the host's id were.
fn unique_local(node: &str) -> Option<(IpNetwork, u8)> {
    let drawn = u128::from_str_radix(node, 16).ok()? >> 88;
    let first = Ipv6Addr::from(0xfd << 120 | drawn << 80);
    Some((IpNetwork::new(first.into(), 48).ok()?, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_unique_local_prefix() {
        let (pool, size) = unique_local("0123456789abcdef0123456789abcdef").expect("digits");
        assert_eq!(
            (pool.to_string().as_str(), size),
            ("fd01:2345:6789::/48", 64)
        );
        assert!(unique_local("not digits").is_none());
    }
}
