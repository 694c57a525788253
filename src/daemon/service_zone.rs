//! The names below `service.nuncio`, for containers and for the host itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use nuncio_overlay::{NamesDocument, Offer, Served, Subscriber, Zone};

use super::Daemon;
use super::config::{Port, Protocol};
use super::networks::Network;
use super::plane::Sight;
use super::registered::{Registered, fit};

/// The domain of services.
const DOMAIN: &str = "service.nuncio";
/// The zone of what is outside, with and without the domain, and that of the host itself.
const OUTSIDE: &str = "service:outside";
const OUTSIDE_BARE: &str = "outside";
const HOST: &str = "service:host";
/// The network namespace of whoever opens it.
const OWN_NETNS: &str = "/proc/self/ns/net";

impl Daemon {
    /// Adds the zones of services, and the host's own name server if there is to be one.
    pub(super) fn add_services(&self, sight: &Sight, document: &mut NamesDocument) {
        let all = self.registered(&sight.catalog);
        for network in sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
        {
            let within = all.iter().filter(|one| one.network() == Some(network.id()));
            let mut zone = self.zone_of(within);
            lead_to_addresses(sight, network, &mut zone);
            document.zones.insert(zone_of_network(network.id()), zone);
        }
        let outside = || all.iter().filter(|one| one.network().is_none());
        let zone = self.zone_of(outside());
        let bare = Zone {
            names: fit(outside())
                .into_iter()
                .map(|(name, places)| (name.to_owned(), self.addresses_of(&places)))
                .filter(|(_, addresses)| !addresses.is_empty())
                .collect(),
            foreign: true,
            ..Zone::default()
        };
        document.zones.insert(OUTSIDE.to_owned(), zone);
        document.zones.insert(OUTSIDE_BARE.to_owned(), bare);
        if let Some(address) = self.options.dns {
            let near = self.reachable(&sight.networks, all);
            document.zones.insert(HOST.to_owned(), self.zone_of(&near));
            document.subscribers.push(Subscriber {
                id: HOST.to_owned(),
                netns: PathBuf::from(OWN_NETNS),
                networks: vec![HOST.to_owned()],
                aliases: BTreeMap::new(),
                upstreams: Vec::new(),
                listen: Some(address),
                external: false,
            });
        }
    }

    fn zone_of<'a>(&self, all: impl IntoIterator<Item = &'a Registered>) -> Zone {
        let mut zone = Zone {
            domain: Some(DOMAIN.to_owned()),
            qualified: true,
            ..Zone::default()
        };
        for (name, places) in fit(all) {
            zone.names.entry(name.to_owned()).or_default();
            for place in places {
                let tagged = place.tags.iter().filter(|tag| is_label(tag));
                let names = tagged.map(|tag| format!("{}.{name}", tag.to_ascii_lowercase()));
                let names: Vec<String> = names.chain([name.to_owned()]).collect();
                for address in self.addresses_of(&[place]) {
                    for name in &names {
                        enter(&mut zone, name, address, &place.ports);
                    }
                    let own = own_name(address);
                    zone.names.insert(own.clone(), vec![address]);
                    zone.reverse.insert(address, own);
                }
            }
        }
        zone
    }

    fn addresses_of(&self, places: &[&Registered]) -> Vec<IpAddr> {
        let addresses = places.iter().flat_map(|place| match place.address() {
            Some(address) => vec![address],
            None => self.outside.addresses(&place.host),
        });
        addresses.collect()
    }
}

/// The zones that a container of these networks is told of, after those of the networks themselves.
pub(super) fn zones_of(networks: &[&Network]) -> Vec<String> {
    let own = networks.iter().map(|network| zone_of_network(network.id()));
    let mut zones: Vec<String> = own.collect();
    if networks.iter().any(|network| !network.internal()) {
        zones.extend([OUTSIDE, OUTSIDE_BARE].map(str::to_owned));
    }
    zones
}

fn zone_of_network(id: &str) -> String {
    format!("service:{id}")
}

/// A service that has an address of its own in the network is found there.
fn lead_to_addresses(sight: &Sight, network: &Network, zone: &mut Zone) {
    let services = sight.services.iter();
    for service in services.filter(|service| service.network == network.id()) {
        if let Some(address) = service.address.filter(|_| !service.ports().is_empty()) {
            zone.names
                .insert(service.name.clone(), vec![address.into()]);
        }
    }
}

fn enter(zone: &mut Zone, name: &str, address: IpAddr, ports: &[Port]) {
    let addresses = zone.names.entry(name.to_owned()).or_default();
    if !addresses.contains(&address) {
        addresses.push(address);
    }
    let served = zone.served.entry(name.to_owned()).or_default();
    served.extend(ports.iter().map(|port| Served {
        address,
        offer: Offer {
            name: None,
            protocol: match port.protocol {
                Protocol::Tcp => nuncio_overlay::Protocol::Tcp,
                Protocol::Udp => nuncio_overlay::Protocol::Udp,
            },
            port: port.number,
        },
    }));
}

/// What SRV records call an address.
fn own_name(address: IpAddr) -> String {
    let label = match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => address.segments().map(|part| format!("{part:x}")).join("-"),
    };
    format!("{label}.addr")
}

fn is_label(tag: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !tag.is_empty() && tag.bytes().all(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_a_name_that_is_one_label() {
        assert_eq!(own_name([10, 0, 0, 1].into()), "10-0-0-1.addr");
        let v6: IpAddr = "fd00::1".parse().expect("an address");
        assert_eq!(own_name(v6), "fd00-0-0-0-0-0-0-1.addr");
        assert!(is_label("blue") && !is_label("a.b") && !is_label(""));
    }
}
