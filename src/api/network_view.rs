//! A network's body, both ways.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bollard_stubs::models::{
    Ipam, IpamConfig, Network, NetworkContainer, NetworkCreateRequest, PeerInfo,
};
use ipnetwork::IpNetwork;

use super::container_create::sorted;
use super::container_view::mac;
use crate::daemon::ENCRYPTED;
use crate::daemon::network_edit::{CreateV6, NetworkCreate};
use crate::daemon::network_options::NetworkOptions;
use crate::daemon::networks::NetworkView;
use crate::daemon::refusal::Refusal;

/// The body of `POST /networks/create`.
pub(crate) fn parse(body: NetworkCreateRequest) -> Result<NetworkCreate, Refusal> {
    let name = body.name;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(allowed)
    {
        let message =
            format!("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        return Err(Refusal::invalid(message));
    }
    let options = sorted(body.options);
    let scope = body.scope.unwrap_or_default();
    let own_scope = match body.driver.as_deref() {
        Some("overlay") => "swarm",
        _ => "local",
    };
    if !scope.is_empty() && scope != own_scope {
        return Err(Refusal::invalid(format!(
            "network {name}: invalid scope {scope}: networks of its driver have the scope {own_scope}"
        )));
    }
    let ipam = body.ipam.unwrap_or_default();
    let driver = ipam.driver.unwrap_or_default();
    let asked = [
        (body.ingress == Some(true), "--ingress"),
        (body.config_only == Some(true), "--config-only"),
        (
            body.config_from
                .and_then(|from| from.network)
                .is_some_and(|from| !from.is_empty()),
            "--config-from",
        ),
        (body.enable_ipv4 == Some(false), "--ipv4=false"),
        (!matches!(driver.as_str(), "" | "default"), "--ipam-driver"),
        (
            ipam.options.is_some_and(|options| !options.is_empty()),
            "--ipam-opt",
        ),
        (
            options
                .keys()
                .any(|option| option != ENCRYPTED && !NetworkOptions::knows(option)),
            "--opt",
        ),
    ];
    if let Some((_, flag)) = asked.iter().find(|(asked, _)| *asked) {
        return Err(Refusal::unsupported(format!(
            "network {name}: not built: {flag}"
        )));
    }
    NetworkOptions::parse(&options)?;
    let mut create = NetworkCreate {
        driver: body.driver.unwrap_or_default(),
        internal: body.internal.unwrap_or_default(),
        attachable: body.attachable.unwrap_or_default(),
        labels: sorted(body.labels),
        v6: (body.enable_ipv6 == Some(true)).then(CreateV6::default),
        name,
        options,
        ..NetworkCreate::default()
    };
    addressing(&mut create, ipam.config.unwrap_or_default())?;
    Ok(create)
}

/// The subnets and what is said of the addresses in them, written into `create`.
fn addressing(create: &mut NetworkCreate, config: Vec<IpamConfig>) -> Result<(), Refusal> {
    let mut seen = Vec::new();
    for config in config {
        let asked = Asked::parse(config)?;
        let is_v6 = asked.subnet.is_some_and(|subnet| subnet.is_ipv6());
        if seen.contains(&is_v6) {
            let message = format!(
                "network {}: not built: more than one --subnet of IPv{}",
                create.name,
                if is_v6 { 6 } else { 4 }
            );
            return Err(Refusal::unsupported(message));
        }
        seen.push(is_v6);
        match &mut create.v6 {
            _ if !is_v6 => asked.write_v4(create),
            Some(v6) => asked.write_v6(v6),
            None => {
                let message = format!(
                    "network {}: an IPv6 subnet is given, but not --ipv6",
                    create.name
                );
                return Err(Refusal::invalid(message));
            }
        }
    }
    Ok(())
}

/// What one configuration says; all of it lies within the subnet.
struct Asked {
    subnet: Option<IpNetwork>,
    gateway: Option<IpAddr>,
    range: Option<IpNetwork>,
    reserved: BTreeMap<String, IpAddr>,
}

impl Asked {
    fn parse(config: IpamConfig) -> Result<Self, Refusal> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let whole = given(config.subnet).map(|text| subnet(&text)).transpose()?;
        let within = |what: &str, text: &str| {
            let address: IpAddr = text
                .parse()
                .map_err(|_| Refusal::invalid(format!("invalid {what} {text}")))?;
            match whole {
                Some(subnet) if subnet.contains(address) => Ok(address),
                _ => Err(Refusal::invalid(format!(
                    "no matching subnet for {what} {text}"
                ))),
            }
        };
        let gateway = given(config.gateway);
        let gateway = gateway.map(|text| within("gateway", &text)).transpose()?;
        let mut reserved = BTreeMap::new();
        for (name, text) in sorted(config.auxiliary_addresses) {
            reserved.insert(name, within("aux-address", &text)?);
        }
        let range = given(config.ip_range)
            .map(|text| subnet(&text))
            .transpose()?;
        if let Some(range) = range {
            let inside = |whole: IpNetwork| {
                whole.contains(range.network()) && whole.prefix() <= range.prefix()
            };
            if !whole.is_some_and(inside) {
                return Err(Refusal::invalid(format!(
                    "no matching subnet for range {range}"
                )));
            }
        }
        Ok(Self {
            subnet: whole,
            gateway,
            range,
            reserved,
        })
    }

    fn write_v4(self, create: &mut NetworkCreate) {
        let network = |network| match network {
            IpNetwork::V4(network) => Some(network),
            IpNetwork::V6(_) => None,
        };
        let address = |address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        create.subnet = self.subnet.and_then(network);
        create.gateway = self.gateway.and_then(address);
        create.range = self.range.and_then(network);
        let reserved = self.reserved.into_iter();
        create.reserved = (reserved.filter_map(|(name, ip)| Some((name, address(ip)?)))).collect();
    }

    fn write_v6(self, v6: &mut CreateV6) {
        let network = |network| match network {
            IpNetwork::V4(_) => None,
            IpNetwork::V6(network) => Some(network),
        };
        let address = |address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        };
        v6.subnet = self.subnet.and_then(network);
        v6.gateway = self.gateway.and_then(address);
        v6.range = self.range.and_then(network);
        let reserved = self.reserved.into_iter();
        v6.reserved = (reserved.filter_map(|(name, ip)| Some((name, address(ip)?)))).collect();
    }
}

fn subnet(text: &str) -> Result<IpNetwork, Refusal> {
    let wrong = |expected: &str| Refusal::invalid(format!("invalid subnet {text}: {expected}"));
    let parsed = text.parse::<IpNetwork>().ok();
    let Some(subnet) = parsed.filter(|_| text.contains('/')) else {
        return Err(wrong(
            "invalid CIDR block notation, expected ADDRESS/PREFIX",
        ));
    };
    match subnet.ip() == subnet.network() {
        true => Ok(subnet),
        false => Err(wrong(&format!(
            "it should be {}/{}",
            subnet.network(),
            subnet.prefix()
        ))),
    }
}

/// A network as it is shown; its containers only if asked for.
pub(crate) fn network(view: NetworkView, with_containers: bool) -> Network {
    let has_v6 = view.pools.iter().any(|pool| pool.subnet.is_ipv6());
    let addresses = view.pools.iter().map(|pool| IpamConfig {
        subnet: Some(pool.subnet.to_string()),
        gateway: pool.gateway.map(|gateway| gateway.to_string()),
        ip_range: pool.range.map(|range| range.to_string()),
        auxiliary_addresses: (!pool.reserved.is_empty()).then(|| {
            let reserved = pool.reserved.iter();
            reserved
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect()
        }),
    });
    let containers = view
        .endpoints
        .into_iter()
        .filter(|_| with_containers)
        .map(|endpoint| {
            let shown = NetworkContainer {
                name: Some(endpoint.name),
                endpoint_id: Some(String::new()),
                mac_address: Some(mac(endpoint.mac)),
                ipv4_address: Some(format!("{}/{}", endpoint.address, endpoint.prefix)),
                ipv6_address: Some(match endpoint.v6 {
                    Some((address, prefix)) => format!("{address}/{prefix}"),
                    None => String::new(),
                }),
            };
            (endpoint.container_id, shown)
        });
    let peers = view.peers.into_iter().map(|(name, ip)| PeerInfo {
        name: Some(name),
        ip: Some(ip.to_string()),
    });
    let peers: Vec<PeerInfo> = peers.collect();
    let mut options: std::collections::HashMap<_, _> = view.options.into_iter().collect();
    // Where Docker shows the VNIs of an overlay.
    options.extend(view.vni.map(|vni| {
        (
            "com.docker.network.driver.overlay.vxlanid_list".to_owned(),
            vni.to_string(),
        )
    }));
    Network {
        name: Some(view.name),
        id: Some(view.id),
        created: Some(view.created),
        scope: Some(view.scope.to_owned()),
        driver: Some(view.driver),
        enable_ipv4: Some(true),
        enable_ipv6: Some(has_v6),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(addresses.collect()),
            options: None,
        }),
        internal: Some(view.internal),
        attachable: Some(view.attachable),
        ingress: Some(false),
        config_only: Some(false),
        containers: Some(containers.collect()),
        options: Some(options),
        labels: Some(view.labels.into_iter().collect()),
        peers: (!peers.is_empty()).then_some(peers),
        ..Network::default()
    }
}

#[cfg(test)]
mod tests;
