use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::{
    NamesDocument, Offer, Served, Subscriber,
    srv::{Asked, Place},
};

/// The document, arranged for lookups: all names in lower case.
#[derive(Debug, Default)]
pub(super) struct Table {
    zones: BTreeMap<String, Names>,
    search: Vec<String>,
    subscribers: BTreeMap<String, Subscriber>,
    upstreams: Vec<SocketAddr>,
}

#[derive(Debug, Default)]
struct Names {
    domain: Option<String>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
    offers: BTreeMap<IpAddr, Vec<Offer>>,
    qualified: bool,
    foreign: bool,
    served: BTreeMap<String, Vec<Served>>,
}

/// What there is to say about a name.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// It is known here; a query for anything but addresses gets an empty answer.
    Addresses(Vec<IpAddr>),
    /// It is an address of ours, whose name this is.
    Name(String),
    /// It can only be one of ours and is not.
    NoSuchName,
    /// It is to be asked elsewhere.
    Elsewhere,
    /// It could only be asked elsewhere, and this subscriber may not.
    Forbidden,
    /// This subscriber is told of other names alone.
    NotServed,
}

impl Table {
    pub(super) fn new(document: NamesDocument) -> Self {
        let zones = document.zones.into_iter().map(|(id, zone)| {
            let mut names = Names {
                domain: zone.domain.map(|domain| plain(&domain)),
                addresses: lower(zone.names),
                names: zone.reverse,
                offers: zone.offers,
                qualified: zone.qualified,
                foreign: zone.foreign,
                served: lower(zone.served),
            };
            for (name, addresses) in &names.addresses {
                for address in addresses.iter().filter(|_| !names.qualified) {
                    names.names.entry(*address).or_insert_with(|| name.clone());
                }
            }
            (id, names)
        });
        let subscribers = document.subscribers.into_iter().map(|mut subscriber| {
            subscriber.aliases = lower(subscriber.aliases);
            (subscriber.id.clone(), subscriber)
        });
        Self {
            zones: zones.collect(),
            search: document.search.iter().map(|domain| plain(domain)).collect(),
            subscribers: subscribers.collect(),
            upstreams: document.upstreams,
        }
    }

    pub(super) fn subscribers(&self) -> impl Iterator<Item = &Subscriber> {
        self.subscribers.values()
    }

    pub(super) fn subscriber(&self, id: &str) -> Option<&Subscriber> {
        self.subscribers.get(id)
    }

    /// The servers that a subscriber's queries for other names go to.
    pub(super) fn upstreams_of(&self, subscriber: &str) -> &[SocketAddr] {
        match self.subscriber(subscriber) {
            Some(subscriber) if !subscriber.upstreams.is_empty() => &subscriber.upstreams,
            _ => &self.upstreams,
        }
    }

    /// Whether a name that is not known now may be one of ours later, for it ends in the name of a network.
    pub(super) fn may_be_ours(&self, subscriber: &Subscriber, name: &str) -> bool {
        let name = plain(name);
        let mut zones = self.zones_of(subscriber);
        zones.any(|zone| {
            let domain = zone.domain.as_deref();
            let rest = domain.and_then(|domain| name.strip_suffix(domain));
            rest.is_some_and(|rest| rest.ends_with('.'))
        })
    }

    /// Where what is asked for is offered at `addresses`.
    pub(super) fn places(
        &self,
        subscriber: &Subscriber,
        asked: &Asked<'_>,
        addresses: &[IpAddr],
    ) -> Vec<Place> {
        let mut places = Vec::new();
        for zone in self.zones_of(subscriber) {
            for address in addresses {
                let offers = zone.offers.get(address).into_iter().flatten();
                let offers = offers.filter(|offer| asked.fits(offer));
                places.extend(offers.filter_map(|offer| {
                    Some(Place {
                        target: zone.name_of(*address)?,
                        port: offer.port,
                        address: *address,
                    })
                }));
            }
        }
        places
    }

    /// Looks `name` up for a subscriber; letter case and a trailing dot do not matter.
    pub(super) fn find(&self, subscriber: &Subscriber, name: &str) -> Found {
        let name = plain(name);
        if let Some(address) = reversed(&name) {
            let zones = self.zones_of(subscriber);
            let mut own = zones.filter(|zone| !zone.qualified && !zone.foreign);
            let own = own.find_map(|zone| zone.name_of(address));
            return own.map_or_else(|| elsewhere(subscriber), Found::Name);
        }
        if let Some(addresses) = self.named(subscriber, &name) {
            return Found::Addresses(addresses.to_vec());
        }
        if self.is_domain(subscriber, &name) {
            return Found::Addresses(Vec::new());
        }
        if self.is_qualified(subscriber, &name) {
            return Found::NoSuchName;
        }
        if subscriber.listen.is_some() {
            return Found::NotServed;
        }
        match name.contains('.') || name.is_empty() {
            true => elsewhere(subscriber),
            false => Found::NoSuchName,
        }
    }

    /// What is offered under a qualified name; `None` if it is none.
    pub(super) fn served(
        &self,
        subscriber: &Subscriber,
        name: &str,
        asked: Option<&Asked<'_>>,
    ) -> Option<Vec<Place>> {
        let name = plain(name);
        if !self.is_qualified(subscriber, &name) {
            return None;
        }
        let mut places = Vec::new();
        for zone in self.zones_of(subscriber).filter(|zone| zone.qualified) {
            let served = zone
                .without_domain(&name)
                .and_then(|name| zone.served.get(name));
            let fits = |served: &&Served| asked.is_none_or(|asked| asked.fits(&served.offer));
            places.extend(
                served
                    .into_iter()
                    .flatten()
                    .filter(fits)
                    .filter_map(|served| {
                        Some(Place {
                            target: zone.name_of(served.address)?,
                            port: served.offer.port,
                            address: served.address,
                        })
                    }),
            );
            if !places.is_empty() {
                break; // as with addresses, the first network's answer counts
            }
        }
        Some(places)
    }

    /// Whether the name is in a domain of ours, or that domain itself.
    fn is_qualified(&self, subscriber: &Subscriber, name: &str) -> bool {
        let mut zones = self.zones_of(subscriber).filter(|zone| zone.qualified);
        self.is_domain(subscriber, name) || zones.any(|zone| zone.without_domain(name).is_some())
    }

    fn is_domain(&self, subscriber: &Subscriber, name: &str) -> bool {
        let mut zones = self.zones_of(subscriber).filter(|zone| zone.qualified);
        zones.any(|zone| zone.domain.as_deref() == Some(name))
    }

    /// The addresses of a name in lower case, without a dot at the end, if it has some that this subscriber is told of.
    pub(super) fn named<'a>(
        &'a self,
        subscriber: &'a Subscriber,
        name: &str,
    ) -> Option<&'a [IpAddr]> {
        let is_qualified = self.is_qualified(subscriber, name);
        if subscriber.listen.is_some() && !is_qualified {
            return None;
        }
        let without = |domain: &String| name.strip_suffix(domain)?.strip_suffix('.');
        let shorter = self.search.iter().filter_map(without);
        std::iter::once(name)
            .chain(shorter.filter(|_| !is_qualified))
            .find_map(|candidate| self.addresses(subscriber, candidate))
            .map(Vec::as_slice)
    }

    fn addresses<'a>(&'a self, subscriber: &'a Subscriber, name: &str) -> Option<&'a Vec<IpAddr>> {
        subscriber.aliases.get(name).or_else(|| {
            self.zones_of(subscriber).find_map(|zone| {
                let bare = zone.addresses.get(name).filter(|_| !zone.qualified);
                let without = || zone.addresses.get(zone.without_domain(name)?);
                bare.or_else(without)
            })
        })
    }

    fn zones_of<'a>(&'a self, subscriber: &'a Subscriber) -> impl Iterator<Item = &'a Names> {
        subscriber
            .networks
            .iter()
            .filter_map(|network| self.zones.get(network))
    }
}

impl Names {
    fn without_domain<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(self.domain.as_deref()?)?
            .strip_suffix('.')
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let name = self.names.get(&address)?;
        Some(match &self.domain {
            Some(domain) => format!("{name}.{domain}"),
            None => name.clone(),
        })
    }
}

fn elsewhere(subscriber: &Subscriber) -> Found {
    if subscriber.external {
        Found::Elsewhere
    } else {
        Found::Forbidden
    }
}

/// The address that a name like `2.0.17.172.in-addr.arpa` asks for, or, of IPv6, one that has a label for each half
/// of a byte (RFC 3596 §2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(halves) = name.strip_suffix(".ip6.arpa") {
        return reversed_v6(halves).map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    for octet in octets.iter_mut().rev() {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| octets.into())
}

fn reversed_v6(name: &str) -> Option<Ipv6Addr> {
    let mut bits = 0;
    let mut labels = name.split('.');
    for position in 0..32 {
        let label = labels.next().filter(|label| label.len() == 1)?;
        bits |= u128::from_str_radix(label, 16).ok()? << (4 * position);
    }
    labels.next().is_none().then(|| bits.into())
}

fn lower<T>(names: BTreeMap<String, Vec<T>>) -> BTreeMap<String, Vec<T>> {
    let mut lower = BTreeMap::<String, Vec<T>>::new();
    for (name, addresses) in names {
        lower.entry(plain(&name)).or_default().extend(addresses);
    }
    lower
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use serde_json::json;

    use super::*;

    fn table() -> Table {
        let document = json!({
            "zones": {
                "n1": {
                    "domain": "mesh",
                    "names": { "DB": ["10.0.1.2", "10.0.2.2"], "0a1b": ["10.0.1.2"], "idle": [] },
                    "reverse": { "10.0.1.2": "db" },
                },
                "n2": { "names": { "db": ["10.9.0.2"], "secret": ["10.9.0.3"] } },
            },
            "upstreams": ["192.0.2.53:53"],
            "search": ["example.internal."],
            "subscribers": [
                { "id": "a", "netns": "/a", "networks": ["n1"], "aliases": { "redis": ["172.17.1.9"] } },
                { "id": "b", "netns": "/b", "networks": ["n2", "n1"], "external": false },
            ],
        });
        Table::new(serde_json::from_value(document).unwrap())
    }

    fn find(subscriber: &str, name: &str) -> Found {
        let table = table();
        table.find(table.subscriber(subscriber).unwrap(), name)
    }

    fn addresses(addresses: &[[u8; 4]]) -> Found {
        Found::Addresses(addresses.iter().copied().map(IpAddr::from).collect())
    }

    #[test]
    fn a_name_is_found_however_it_is_written() {
        for name in [
            "db",
            "DB.",
            "Db.Mesh",
            "db.example.internal.",
            "db.mesh.example.internal",
        ] {
            assert_eq!(
                find("a", name),
                addresses(&[[10, 0, 1, 2], [10, 0, 2, 2]]),
                "{name}"
            );
        }
        assert_eq!(find("a", "idle"), addresses(&[]));
    }

    #[test]
    fn the_first_network_s_answer_counts() {
        assert_eq!(find("b", "db"), addresses(&[[10, 9, 0, 2]]));
        assert_eq!(
            find("b", "db.mesh"),
            addresses(&[[10, 0, 1, 2], [10, 0, 2, 2]])
        );
    }

    #[test]
    fn aliases_and_other_networks_are_private() {
        assert_eq!(find("a", "redis"), addresses(&[[172, 17, 1, 9]]));
        assert_eq!(find("b", "redis"), Found::NoSuchName);
        assert_eq!(find("a", "secret"), Found::NoSuchName);
    }

    #[test]
    fn an_address_has_its_chosen_name_or_the_first() {
        assert_eq!(
            find("a", "2.1.0.10.in-addr.arpa."),
            Found::Name("db.mesh".to_owned())
        );
        assert_eq!(
            find("a", "2.2.0.10.in-addr.arpa"),
            Found::Name("db.mesh".to_owned())
        );
        assert_eq!(
            find("b", "3.0.9.10.in-addr.arpa"),
            Found::Name("secret".to_owned())
        );
        assert_eq!(find("a", "3.0.9.10.in-addr.arpa"), Found::Elsewhere);
    }

    #[test]
    fn an_address_of_ipv6_is_asked_for_by_halves_of_bytes() {
        let zeros = "0.".repeat(27);
        let name = format!("2.{zeros}0.0.d.f.ip6.arpa");
        assert_eq!(reversed(&name), Some("fd00::2".parse().unwrap()));
        for wrong in [
            format!("2.{zeros}0.0.d.ip6.arpa"),
            format!("2.{zeros}0.0.d.f.0.ip6.arpa"),
            format!("2.{zeros}0.0.d.g.ip6.arpa"),
            format!("2.{zeros}0.0.d.+f.ip6.arpa"),
            "ip6.arpa".to_owned(),
        ] {
            assert_eq!(reversed(&wrong), None, "{wrong}");
        }
    }

    fn services() -> Table {
        let offer = |port: u16| json!({ "protocol": "tcp", "port": port });
        let document = json!({
            "zones": {
                "n1": { "domain": "mesh", "names": { "db": ["10.0.1.2"] } },
                "s": {
                    "domain": "service.nuncio",
                    "qualified": true,
                    "names": { "Web": ["10.0.1.9"], "blue.web": ["10.0.1.2"], "10-0-1-2.addr": ["10.0.1.2"] },
                    "reverse": { "10.0.1.2": "10-0-1-2.addr" },
                    "served": { "web": [
                        { "address": "10.0.1.2", "offer": offer(80) },
                        { "address": "10.0.1.2", "offer": offer(81) },
                    ] },
                },
            },
            "upstreams": ["192.0.2.53:53"],
            "subscribers": [
                { "id": "a", "netns": "/a", "networks": ["n1", "s"] },
                { "id": "host", "netns": "/self", "networks": ["s"], "listen": "127.0.0.1:53", "external": false },
            ],
        });
        Table::new(serde_json::from_value(document).unwrap())
    }

    #[test]
    fn services_have_a_domain_that_is_nobody_else_s() {
        let table = services();
        let find = |id: &str, name: &str| table.find(table.subscriber(id).unwrap(), name);
        for id in ["a", "host"] {
            assert_eq!(find(id, "WEB.service.nuncio."), addresses(&[[10, 0, 1, 9]]));
            assert_eq!(
                find(id, "blue.web.Service.nuncio"),
                addresses(&[[10, 0, 1, 2]])
            );
            assert_eq!(find(id, "service.nuncio"), addresses(&[]));
            assert_eq!(find(id, "nobody.service.nuncio"), Found::NoSuchName);
        }
        assert_eq!(find("a", "web"), Found::NoSuchName);
        assert_eq!(
            find("a", "2.1.0.10.in-addr.arpa"),
            Found::Name("db.mesh".to_owned())
        );
        assert_eq!(find("a", "example.org"), Found::Elsewhere);
        for other in ["web", "db", "example.org", "xservice.nuncio", "nuncio", "."] {
            assert_eq!(find("host", other), Found::NotServed, "{other}");
        }
    }

    #[test]
    fn what_is_served_under_a_name_has_ports_and_targets_that_are_found() {
        let table = services();
        let host = table.subscriber("host").unwrap();
        let ports = |asked: Option<&Asked<'_>>| -> Vec<u16> {
            let places = table.served(host, "web.service.nuncio", asked).unwrap();
            for place in &places {
                assert_eq!(table.find(host, &place.target), addresses(&[[10, 0, 1, 2]]));
            }
            places.iter().map(|place| place.port).collect()
        };
        assert_eq!(ports(None), [80, 81]);
        assert_eq!(
            ports(Asked::parse("_81._tcp.web.service.nuncio").as_ref()),
            [81]
        );
        assert!(ports(Asked::parse("_81._udp.web.service.nuncio").as_ref()).is_empty());
        assert!(table.served(host, "web", None).is_none());
    }

    #[test]
    fn the_rest_is_asked_elsewhere_by_who_may() {
        assert_eq!(find("a", "example.org"), Found::Elsewhere);
        assert_eq!(find("b", "example.org"), Found::Forbidden);
        assert_eq!(find("a", "."), Found::Elsewhere);
        assert_eq!(find("a", "nobody"), Found::NoSuchName);
    }
}
