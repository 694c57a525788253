//! What this network namespace has that is not ours.

use std::{io, net::IpAddr, path::Path};

use ipnetwork::{IpNetwork, Ipv4Network};

use crate::{
    netlink::{Address, Netlink, Route},
    segment,
};

/// Why this host could not be asked about its network.
#[derive(Debug, thiserror::Error)]
#[error("list this host's links, addresses and routes")]
pub struct HostError(#[from] io::Error);

/// Why no underlay address could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No link that is up has an address.
    #[error("this host has no address but loopback: give one with --advertise-addr")]
    None,
    /// Without a default route one address is as good as the other.
    #[error("this host has no default route and several addresses ({}): choose one with --advertise-addr", list(.0))]
    Several(Vec<IpAddr>),
    /// The kernel did not say.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Why an address has no MTU.
#[derive(Debug, thiserror::Error)]
pub enum MtuError {
    /// It is not this host's.
    #[error("{0} is no address of this host")]
    NotHere(IpAddr),
    /// The kernel did not say.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Every network this host has a route or an address in, but for the default routes, the link-local ones that each link
/// has, and our own: what a new subnet must not overlap.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub async fn host_routes() -> Result<Vec<IpNetwork>, HostError> {
    let netlink = Netlink::open()?;
    let links = netlink.links().await?;
    let foreign = |index| {
        let link = links.iter().find(|link| link.index == index);
        link.is_some_and(|link| !link.ours && !link.loopback)
    };
    let routes = netlink.routes().await?.into_iter();
    let routes = routes
        .filter(|route| foreign(route.link) && route.destination.prefix() > 0)
        .map(|route| route.destination);
    let addresses = netlink.addresses().await?.into_iter();
    let addresses = addresses
        .filter(|address| foreign(address.link) && !address.ours)
        .filter_map(|row| IpNetwork::new(row.address.network(), row.address.prefix()).ok());
    let mut networks: Vec<_> = routes.chain(addresses).collect();
    networks.retain(|network| !is_link_local(network.network()));
    networks.sort();
    networks.dedup();
    Ok(networks)
}

/// Whether this namespace's kernel knows IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

/// The address other hosts most likely reach this one at: the source of the default route, or the only one.
///
/// # Errors
///
/// If there is none, or several and no default route to tell.
pub async fn default_underlay_address() -> Result<IpAddr, UnderlayError> {
    let netlink = Netlink::open().map_err(HostError)?;
    let links = netlink.links().await.map_err(HostError)?;
    let addresses = netlink.addresses().await.map_err(HostError)?;
    let routes = netlink.routes().await.map_err(HostError)?;
    if let Some(source) = source_of_default_route(false, &routes, &addresses) {
        return Ok(source);
    }
    let usable = |address: &Address| {
        let mut links = links.iter();
        let link = links.find(|link| link.index == address.link);
        link.is_some_and(|link| link.up && !link.loopback && !link.ours)
            && address.global
            && !address.ours
    };
    let usable: Vec<_> = addresses
        .iter()
        .filter(|address| usable(address))
        .map(|address| address.address.ip())
        .collect();
    let v4: Vec<_> = usable.iter().copied().filter(IpAddr::is_ipv4).collect();
    let of_v6_route = || source_of_default_route(true, &routes, &addresses);
    if let (true, Some(source)) = (v4.is_empty(), of_v6_route()) {
        return Ok(source);
    }
    let candidates = if v4.is_empty() { usable } else { v4 };
    match candidates.as_slice() {
        [] => Err(UnderlayError::None),
        [only] => Ok(*only),
        _ => Err(UnderlayError::Several(candidates)),
    }
}

/// MTU of the link that has `address`.
///
/// # Errors
///
/// [`MtuError::NotHere`] if none has it.
pub async fn mtu_of_address(address: IpAddr) -> Result<u16, MtuError> {
    let netlink = Netlink::open().map_err(HostError)?;
    let links = netlink.links().await.map_err(HostError)?;
    let addresses = netlink.addresses().await.map_err(HostError)?;
    let owner = addresses.iter().find(|row| row.address.ip() == address);
    let link = owner.and_then(|owner| links.iter().find(|link| link.index == owner.link));
    let mtu = link.ok_or(MtuError::NotHere(address))?.mtu;
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX)) // loopback has 65536, one more than a packet can be long
}

/// A bridge of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostBridge {
    /// This crate made it.
    pub ours: bool,
    /// Its MTU.
    pub mtu: u16,
    /// Its IPv4 addresses that are not ours, with their networks.
    pub addresses: Vec<Ipv4Network>,
}

/// Why a link cannot be used as a bridge.
#[derive(Debug, thiserror::Error)]
pub enum HostBridgeError {
    /// It is something else.
    #[error("link {0} is no bridge")]
    NoBridge(String),
    /// The kernel did not say.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// The bridge of that name, if there is a link of that name.
///
/// # Errors
///
/// If the link is no bridge.
pub async fn host_bridge(name: &str) -> Result<Option<HostBridge>, HostBridgeError> {
    let netlink = Netlink::open().map_err(HostError)?;
    let Some(link) = netlink.link(name).await.map_err(HostError)? else {
        return Ok(None);
    };
    if !link.is_bridge() {
        return Err(HostBridgeError::NoBridge(name.to_owned()));
    }
    let addresses = netlink.addresses().await.map_err(HostError)?.into_iter();
    let addresses = addresses.filter(|row| row.link == link.index && !row.ours);
    Ok(Some(HostBridge {
        ours: link.ours,
        mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
        addresses: addresses
            .filter_map(|row| segment::v4(row.address))
            .collect(),
    }))
}

/// The source the route names, else the address of its link that is in one network with the gateway, which over IPv6
/// mostly is a link-local one and tells nothing.
fn source_of_default_route(is_v6: bool, routes: &[Route], addresses: &[Address]) -> Option<IpAddr> {
    let route = routes
        .iter()
        .find(|route| route.destination.is_ipv6() == is_v6 && route.destination.prefix() == 0)?;
    let of_link = || {
        let near = |row: &&Address| {
            route.gateway.is_none_or(|gateway| {
                row.address.contains(gateway) || is_v6 && is_link_local(gateway)
            })
        };
        let mut rows = addresses.iter().filter(|row| {
            row.link == route.link && row.address.is_ipv6() == is_v6 && (row.global || !is_v6)
        });
        rows.find(near).map(|row| row.address.ip())
    };
    route.source.or_else(of_link)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}
