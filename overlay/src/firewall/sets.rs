//! How nft writes sets of addresses and links, and what it is told of them.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use ipnetwork::IpNetwork;

/// Drops what comes `from` a link with another source than those, in either family.
pub(super) fn only_from(from: &str, blocks: impl Iterator<Item = IpNetwork>) -> [String; 2] {
    let sets = by_family(blocks);
    let rule = |family, protocol| match sets.iter().find(|(of, _)| *of == family) {
        Some((_, set)) => format!("{from} {family} saddr != {set} drop"),
        None => format!("{from} meta nfproto {protocol} drop"),
    };
    [rule("ip", "ipv4"), rule("ip6", "ipv6")]
}

/// The sets of those of IPv4 and of IPv6, each with how nft calls the family, as far as there are any. An address is a
/// network of its own.
pub(super) fn by_family(networks: impl Iterator<Item = IpNetwork>) -> Vec<(&'static str, String)> {
    let networks: Vec<_> = networks.collect();
    let of = |family, is_v6: bool| {
        let of_family = networks.iter().filter(|network| network.is_ipv6() == is_v6);
        Some((family, set(of_family.map(short))?))
    };
    [of("ip", false), of("ip6", true)]
        .into_iter()
        .flatten()
        .collect()
}

/// Of those sets that of IPv4.
pub(super) fn of_v4<'a>(sets: &'a [(&'static str, String)]) -> Option<&'a String> {
    let (_, set) = sets.iter().find(|(family, _)| *family == "ip")?;
    Some(set)
}

/// As nft's expressions begin.
pub(super) fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

fn short(network: &IpNetwork) -> String {
    let whole = if network.is_ipv6() { 128 } else { 32 };
    match network.prefix() == whole {
        true => network.ip().to_string(),
        false => network.to_string(),
    }
}

/// An anonymous set, in one order whatever the order given; `None` if empty, which nft refuses.
pub(super) fn set<T: Display>(elements: impl IntoIterator<Item = T>) -> Option<String> {
    let elements: BTreeSet<_> = elements
        .into_iter()
        .map(|element| element.to_string())
        .collect();
    let elements: Vec<_> = elements.into_iter().collect();
    (!elements.is_empty()).then(|| format!("{{ {} }}", elements.join(", ")))
}

pub(super) fn quoted<'a>(links: impl Iterator<Item = &'a str>) -> String {
    let links: Vec<_> = links.map(|link| format!("\"{link}\"")).collect();
    format!("{{ {} }}", links.join(", "))
}

/// One link by its name, several as a set.
pub(super) fn named<'a>(links: impl Iterator<Item = &'a str>) -> String {
    let links: Vec<_> = links.collect();
    match links.as_slice() {
        [link] => format!("\"{link}\""),
        links => quoted(links.iter().copied()),
    }
}
