//! Addresses that are others outside: published ports, and containers that are seen as their host.

use super::{
    adopted, links, own,
    sets::{by_family, family, quoted, set},
};
use crate::{Published, Segment};

/// Leads to the rules of published ports what is addressed to this host, but not to a link's listener,
/// which may well have the number of a published port.
pub(super) fn to_published(segments: &[Segment], first: &[&str]) -> Vec<String> {
    let listeners = set(segments.iter().flat_map(|segment| &segment.local_addresses));
    let mut rules: Vec<_> = first.iter().map(|rule| (*rule).to_owned()).collect();
    rules.extend(listeners.map(|listeners| format!("ip daddr {listeners} return")));
    rules.push("fib daddr type local jump published".to_owned());
    rules
}

/// One rule per published port, those of a single address first. Loopback is not for nft to serve:
/// a packet from 127.0.0.1 or ::1 is refused once it has left the host.
pub(super) fn published(ports: &[Published]) -> Vec<String> {
    let mut ports: Vec<_> = ports
        .iter()
        .filter(|port| {
            !port
                .host_address
                .is_some_and(|address| address.is_loopback())
        })
        .collect();
    ports.sort_by_key(|port| {
        let address = port.only_at();
        (
            address.is_none(),
            address,
            port.host_port,
            port.protocol,
            port.target,
        )
    });
    let rule = |port: &&Published| {
        let Published {
            protocol,
            host_port,
            target,
            ..
        } = port;
        let family = family(target.ip());
        let address = match port.only_at() {
            Some(address) => format!("{family} daddr {address} "),
            None => String::new(),
        };
        format!("{address}{protocol} dport {host_port} dnat {family} to {target}")
    };
    ports.iter().map(rule).collect()
}

/// A container that reaches a neighbour, or itself, through the host must see the host answer;
/// and outside the mesh nobody knows the addresses inside.
pub(super) fn postrouting(segments: &[Segment]) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in segments {
        let ours = quoted(own(segments).flat_map(links).chain(adopted::link(segment)));
        if segment.adopted {
            rules.extend(adopted::postrouting(segment, &ours));
            continue;
        }
        let bridge = &segment.bridge;
        for (family, own) in by_family(segment.blocks.iter().copied()) {
            rules.push(format!(
                "oifname \"{bridge}\" {family} saddr {own} ct status dnat masquerade"
            ));
            if segment.masquerade && !segment.internal {
                rules.push(format!("oifname != {ours} {family} saddr {own} masquerade"));
            }
        }
    }
    rules
}
