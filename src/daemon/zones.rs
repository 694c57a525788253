//! The names that containers of user-defined networks resolve.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use nuncio_overlay::{NamesDocument, Offer, Subscriber, Zone};

use super::Daemon;
use super::files::Resolving;
use super::networks::Network;
use super::offers::offers;
use super::plane::{Sight, port_of};
use super::record::Record;
use super::service_zone::zones_of;
use super::services::{Member, Service};

impl Daemon {
    /// The names that containers of user-defined networks resolve.
    pub(super) fn names(&self, sight: &Sight) -> NamesDocument {
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let host = Resolving::parse(&host);
        let mut document = NamesDocument {
            upstreams: host.servers.iter().copied().map(upstream).collect(),
            ..NamesDocument::default()
        };
        for network in sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
        {
            document
                .zones
                .insert(network.id().to_owned(), self.zone(sight, network));
        }
        self.add_services(sight, &mut document);
        for record in &sight.active {
            document
                .subscribers
                .extend(self.subscriber(sight, record, &document.zones));
        }
        document
    }

    fn zone(&self, sight: &Sight, network: &Network) -> Zone {
        let mut zone = Zone {
            domain: Some(network.name().to_owned()),
            ..Zone::default()
        };
        let mut add = |address: IpAddr, id: &str, name: &str, aliases: &[String]| {
            let short = id.get(..12).unwrap_or(id).to_owned();
            for name in [name.to_owned(), short]
                .into_iter()
                .chain(aliases.iter().cloned())
            {
                let addresses = zone.names.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            zone.reverse.insert(address, name.to_owned());
        };
        for record in &sight.active {
            for endpoint in record
                .endpoints
                .values()
                .filter(|endpoint| endpoint.network_id == network.id())
            {
                let offers = offers(&record.config.exposed, &record.config.labels);
                for address in endpoint.addresses() {
                    add(address, &record.id, &record.name, &endpoint.aliases);
                    zone.offers.insert(address, offers.clone());
                }
            }
        }
        let elsewhere = sight
            .catalog
            .endpoints_in(network.id())
            .filter(|endpoint| endpoint.node != self.node.id);
        for endpoint in elsewhere {
            let ports: Vec<_> = endpoint.ports.iter().map(port_of).collect();
            let offers = offers(&ports, &endpoint.labels);
            for address in endpoint.addresses() {
                add(address, &endpoint.id, &endpoint.name, &endpoint.aliases);
                zone.offers.insert(address, offers.clone());
            }
        }
        for service in &sight.services {
            if service.network == network.id() {
                enter(service, &mut zone);
            }
        }
        zone
    }

    fn subscriber(
        &self,
        sight: &Sight,
        record: &Record,
        zones: &BTreeMap<String, Zone>,
    ) -> Option<Subscriber> {
        let networks: Vec<&Network> = sight
            .networks
            .iter()
            .filter(|network| !network.is_default())
            .filter(|network| {
                record
                    .endpoints
                    .values()
                    .any(|endpoint| endpoint.network_id == network.id())
            })
            .collect();
        if networks.is_empty() {
            return None;
        }
        let service_zones = zones_of(&networks);
        let mut aliases = BTreeMap::new();
        for link in record
            .config
            .host
            .links
            .iter()
            .chain(record.config.endpoints.values().flat_map(|e| &e.links))
        {
            let found = networks
                .iter()
                .find_map(|network| zones.get(network.id())?.names.get(&link.target))
                .or_else(|| {
                    let outside = service_zones.iter().filter_map(|zone| zones.get(zone));
                    outside
                        .filter(|zone| zone.foreign)
                        .find_map(|zone| zone.names.get(&link.target))
                });
            aliases.extend(found.map(|addresses| (link.alias.clone(), addresses.clone())));
        }
        Some(Subscriber {
            id: record.id.clone(),
            netns: self.options.exec_root.join("netns").join(&record.id),
            upstreams: own_servers(record).map(upstream).collect(),
            external: networks.iter().any(|network| !network.internal()),
            networks: networks
                .into_iter()
                .map(|network| network.id().to_owned())
                .chain(service_zones)
                .collect(),
            listen: None,
            aliases,
        })
    }
}

/// Where a container's name server asks what it does not know, as `--dns` says.
fn own_servers(record: &Record) -> impl Iterator<Item = IpAddr> {
    let servers = record.config.host.dns.iter();
    servers.filter_map(|server| server.parse().ok())
}

fn upstream(server: IpAddr) -> SocketAddr {
    SocketAddr::new(server, 53)
}

/// A service has its name to itself: a container that is called the same is found by its short id, and as one of
/// the service's by `tasks.NAME`.
fn enter(service: &Service, zone: &mut Zone) {
    let tasks: Vec<_> = service.fit().flat_map(Member::addresses).collect();
    let found = match service.address {
        Some(address) if !service.ports().is_empty() => vec![address.into()],
        _ => tasks.clone(), // there is no port to listen on, or no address to listen at
    };
    let names = &mut zone.names;
    names.retain(|name, _| !name.eq_ignore_ascii_case(&service.name));
    names.insert(format!("tasks.{}", service.name), tasks);
    names.insert(service.name.clone(), found);
    if let Some(address) = service.address.map(IpAddr::V4) {
        zone.reverse.insert(address, service.name.clone());
        let members = service.members.iter();
        let offers = members.filter_map(|member| zone.offers.get(&member.address.into()));
        let mut all: Vec<Offer> = offers.flatten().cloned().collect();
        all.sort();
        all.dedup();
        zone.offers.insert(address, all);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_service_has_its_name_to_itself() {
        let mut zone = Zone::default();
        let own = Ipv4Addr::from([10, 1, 0, 2]);
        let own_v6 = own.to_ipv6_mapped();
        let both = [IpAddr::V4(own), own_v6.into()];
        for name in ["Redis", "0123456789ab"] {
            zone.names.insert(name.to_owned(), vec![own.into()]);
        }
        let mut service = Service {
            network: "0".to_owned(),
            network_name: "mesh".to_owned(),
            name: "redis".to_owned(),
            address: Some([10, 1, 0, 9].into()),
            members: vec![Member {
                id: "0123456789abcdef".to_owned(),
                node: "n".to_owned(),
                address: own,
                address_v6: Some(own_v6),
                ports: vec!["6379/tcp".parse().expect("a port")],
                weight: std::num::NonZeroU16::MIN,
                check: None,
                health: None,
            }],
        };
        enter(&service, &mut zone);
        let names: Vec<_> = zone.names.keys().map(String::as_str).collect();
        assert_eq!(names, ["0123456789ab", "redis", "tasks.redis"]);
        assert_eq!(zone.names["redis"], [IpAddr::from([10, 1, 0, 9])]);
        assert_eq!(zone.names["tasks.redis"], both);
        service.members[0].ports.clear();
        enter(&service, &mut zone);
        assert_eq!(zone.names["redis"], both, "nobody listens at the address");
    }
}
