//! Bridges that were there before, and are not ours: of `network create -o com.docker.network.bridge.name=br0`, and of
//! `daemon --bridge br0`. Their containers are on whatever network the bridge is on.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use ipnetwork::Ipv4Network;
use nuncio_overlay::{HostBridge, host_bridge, is_link_name};

use super::container::locked;
use super::network_edit::NetworkCreate;
use super::network_options::{BRIDGE, NetworkOptions};
use super::networks::{DEFAULT_NETWORK, LocalNetwork, Network};
use super::refusal::Refusal;
use super::{Daemon, state_file};

/// What `daemon --bridge` has for no default network at all.
const NO_BRIDGE: &str = "none";

/// Where the default network is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DefaultBridge<'a> {
    /// On a bridge of ours; links reach other hosts.
    Ours,
    /// On a bridge of this host.
    Adopted(&'a str),
    Absent,
}

impl Daemon {
    pub(super) fn default_bridge(&self) -> DefaultBridge<'_> {
        match self.options.bridge.as_deref() {
            None | Some("") => DefaultBridge::Ours,
            Some(NO_BRIDGE) => DefaultBridge::Absent,
            Some(bridge) => DefaultBridge::Adopted(bridge),
        }
    }

    /// The bridge that a new network names, if it is there already.
    ///
    /// # Errors
    ///
    /// If the name is no link's, or the link is no bridge or another network's.
    pub(super) async fn named_bridge(
        &self,
        request: &NetworkCreate,
    ) -> anyhow::Result<Option<HostBridge>> {
        let Some(name) = request.options.get(BRIDGE) else {
            return Ok(None);
        };
        if !is_link_name(name) {
            bail!(Refusal::invalid(format!(
                "invalid bridge name {name:?}: 1 to 15 of letters, digits, `-`, `_` and `.` make the name of a link"
            )));
        }
        let networks = self.all_networks();
        if let Some(other) = networks.iter().find(|other| other.bridge() == *name) {
            bail!(Refusal::forbidden(format!(
                "cannot create network {} ({name}): conflicts with network {} ({name}): networks have same bridge name",
                request.name,
                other.name()
            )));
        }
        let found = host_bridge(name)
            .await
            .map_err(|error| Refusal::invalid(format!("network {}: {error}", request.name)))?;
        Ok(found.filter(|bridge| !bridge.ours))
    }

    /// The bridges that are not ours, by the networks on them. One that is gone, or no bridge any more, is left out.
    pub(super) async fn adopted_bridges(&self) -> BTreeMap<String, HostBridge> {
        let local: Vec<_> = locked(&self.local_networks).values().cloned().collect();
        let mut bridges = BTreeMap::new();
        for network in local.into_iter().filter(|network| network.adopted) {
            let id = network.id.clone();
            let name = Network::Local(Box::new(network)).bridge();
            match host_bridge(&name).await {
                Ok(Some(bridge)) => drop(bridges.insert(id, bridge)),
                Ok(None) => tracing::warn!(bridge = name, network = id, "the bridge is not there"),
                Err(error) => tracing::warn!(%error, network = id, "look for its bridge"),
            }
        }
        bridges
    }

    /// What no container of a network is to get, for others have it: who, and the address.
    pub(super) async fn held_by_bridge(
        &self,
        network: &LocalNetwork,
    ) -> anyhow::Result<Vec<(String, Ipv4Addr)>> {
        if !network.adopted {
            return Ok(Vec::new());
        }
        let name = Network::Local(Box::new(network.clone())).bridge();
        let bridge = host_bridge(&name).await?;
        let bridge = bridge.with_context(|| format!("there is no bridge {name}"))?;
        let own = bridge.addresses.iter().map(|address| address.ip());
        let held = own.map(|address| (format!("bridge {name}, as {address}"), address));
        let gateway = network
            .gateway
            .map(|gateway| ("the gateway".to_owned(), gateway));
        let held = held.chain(gateway);
        Ok(held
            .filter(|(_, address)| network.subnet.contains(*address))
            .collect())
    }

    /// Has this host's default network be on the bridge that `--bridge` names, or not be at all.
    pub(super) async fn ensure_local_default(&self) -> anyhow::Result<()> {
        let before = locked(&self.local_networks)
            .values()
            .find(|network| network.name == DEFAULT_NETWORK)
            .cloned();
        let DefaultBridge::Adopted(name) = self.default_bridge() else {
            if let Some(before) = before {
                self.forget_local(&before.id)?;
            }
            return Ok(());
        };
        let bridge = host_bridge(name)
            .await
            .with_context(|| format!("--bridge {name}"))?
            .with_context(|| {
                format!("--bridge {name}: there is no such bridge; make it first, or leave the flag out for one of our own")
            })?;
        let mut request = NetworkCreate {
            name: DEFAULT_NETWORK.to_owned(),
            options: BTreeMap::from([(BRIDGE.to_owned(), name.to_owned())]),
            gateway: self.options.default_gateway,
            range: self.options.fixed_cidr,
            ..NetworkCreate::default()
        };
        adopt(&mut request, &bridge).with_context(|| format!("--bridge {name}"))?;
        let (Some(subnet), Some(gateway)) = (request.subnet, request.gateway) else {
            bail!("--bridge {name}: it has no address");
        };
        let inside = |range: Ipv4Network| subnet.contains(range.network());
        if let Some(range) = request.range.filter(|range| !inside(*range)) {
            bail!("--fixed-cidr {range}: it is not in the bridge's network {subnet}");
        }
        let (id, created) = match before {
            Some(before) => (before.id, before.created),
            None => (super::new_id(), jiff::Timestamp::now().to_string()),
        };
        self.keep_local(LocalNetwork {
            v: 1,
            id,
            name: request.name,
            subnet,
            range: request.range,
            reserved: BTreeMap::new(),
            internal: false,
            adopted: true,
            gateway: Some(gateway),
            options: request.options,
            labels: BTreeMap::new(),
            created,
            v6: None,
        })
    }

    /// Writes down a network of this host.
    pub(super) fn keep_local(&self, network: LocalNetwork) -> anyhow::Result<()> {
        state_file::write(&self.local_network_path(&network.id), &network)?;
        locked(&self.local_networks).insert(network.id.clone(), network);
        Ok(())
    }

    pub(super) fn forget_local(&self, id: &str) -> anyhow::Result<()> {
        state_file::remove(&self.local_network_path(id))?;
        locked(&self.local_networks).remove(id);
        Ok(())
    }
}

/// Gives a network what follows from the bridge it is to be on, unless it asks for something else: its subnet, and the way
/// out.
///
/// # Errors
///
/// A [`Refusal`] of what would change the bridge, or cut off others on it.
pub(super) fn adopt(request: &mut NetworkCreate, bridge: &HostBridge) -> Result<(), Refusal> {
    let name = request.options.get(BRIDGE).cloned().unwrap_or_default();
    let options = NetworkOptions::parse(&request.options)?;
    let refused = [
        (request.internal, "--internal"),
        (request.v6.is_some(), "--ipv6"),
        (!options.icc, "--opt enable_icc=false"),
        (options.mtu.is_some(), "an MTU"),
    ];
    if let Some((_, what)) = refused.iter().find(|(asked, _)| *asked) {
        return Err(Refusal::unsupported(format!(
            "network {}: {what} is for bridges of our own, and {name} was there before: leave it out, or choose the name of a new bridge",
            request.name
        )));
    }
    let own = &bridge.addresses;
    let whole = |address: &Ipv4Network| Ipv4Network::new(address.network(), address.prefix()).ok();
    let subnet = request.subnet.or_else(|| own.first().and_then(whole));
    let subnet = subnet.ok_or_else(|| {
        Refusal::invalid(format!(
            "network {}: bridge {name} has no address: say with --subnet what network it is on",
            request.name
        ))
    })?;
    let mut own = own.iter().map(|address| address.ip());
    let gateway = request
        .gateway
        .or_else(|| own.find(|address| subnet.contains(*address)));
    let gateway = gateway.filter(|gateway| subnet.contains(*gateway));
    let gateway = gateway.ok_or_else(|| {
        Refusal::invalid(format!(
            "network {}: bridge {name} has no address in {subnet}: say with --gateway which of its addresses leads out",
            request.name
        ))
    })?;
    (request.subnet, request.gateway) = (Some(subnet), Some(gateway));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::network_edit::CreateV6;

    fn adopted(
        request: NetworkCreate,
        addresses: &[&str],
    ) -> Result<(Option<Ipv4Network>, Option<Ipv4Addr>), String> {
        let addresses = addresses.iter();
        let bridge = HostBridge {
            ours: false,
            mtu: 1500,
            addresses: addresses
                .map(|address| address.parse().expect("an address"))
                .collect(),
        };
        let mut request = request;
        request.options.insert(BRIDGE.to_owned(), "br0".to_owned());
        adopt(&mut request, &bridge).map_err(|refusal| refusal.message)?;
        Ok((request.subnet, request.gateway))
    }

    fn create() -> NetworkCreate {
        NetworkCreate {
            name: "office".to_owned(),
            ..NetworkCreate::default()
        }
    }

    #[test]
    fn what_is_not_asked_for_follows_from_the_bridge() {
        let (subnet, other) = ("192.168.7.0/24".parse().ok(), "10.9.0.0/16".parse().ok());
        let own = ["192.168.7.5/24", "10.9.0.3/16"];
        let address = |text: &str| text.parse().ok();
        assert_eq!(
            adopted(create(), &own),
            Ok((subnet, address("192.168.7.5")))
        );
        let second = NetworkCreate {
            subnet: other,
            ..create()
        };
        assert_eq!(adopted(second, &own), Ok((other, address("10.9.0.3"))));
        let router = NetworkCreate {
            subnet,
            gateway: address("192.168.7.1"),
            ..create()
        };
        assert_eq!(adopted(router, &[]), Ok((subnet, address("192.168.7.1"))));
    }

    #[test]
    fn what_would_touch_others_or_cannot_be_known_is_refused() {
        let option = |name: &str, value: &str| NetworkCreate {
            options: BTreeMap::from([(name.to_owned(), value.to_owned())]),
            ..create()
        };
        let internal = NetworkCreate {
            internal: true,
            ..create()
        };
        let elsewhere = NetworkCreate {
            subnet: "10.9.0.0/16".parse().ok(),
            ..create()
        };
        let dual = NetworkCreate {
            v6: Some(CreateV6::default()),
            ..create()
        };
        for (request, addresses, words) in [
            (dual, &["192.168.7.5/24"][..], "--ipv6"),
            (internal, &["192.168.7.5/24"][..], "--internal"),
            (
                option("com.docker.network.bridge.enable_icc", "false"),
                &["192.168.7.5/24"],
                "enable_icc",
            ),
            (option("mtu", "1400"), &["192.168.7.5/24"], "an MTU"),
            (create(), &[], "--subnet"),
            (elsewhere, &["192.168.7.5/24"], "--gateway"),
        ] {
            let refused = adopted(request, addresses).expect_err(words);
            assert!(refused.contains(words), "{refused}");
        }
    }
}
