//! What this host itself takes, of its containers, other hosts and strangers.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{
    from_hosts, gateways, hosts_v4, links, own, sealed,
    sets::{by_family, named, quoted, set},
    tunnelled, vteps,
};
use crate::{Gate, HostAccess, HostState, Reach, Segment, Vxlan, paths::CHECKSUM_PORT};

/// What this host itself takes: VXLAN, and what comes in its place, from peers only, and gateway addresses from their own
/// network only.
pub(super) fn input(state: &HostState) -> Vec<String> {
    let segments = &state.segments;
    let mut rules = Vec::new();
    for vxlan in segments
        .iter()
        .filter_map(sealed)
        .filter_map(|segment| segment.vxlan.as_ref())
    {
        // Eight bytes of UDP, then four of flags, then the VNI.
        let Vxlan { port, vni, .. } = vxlan;
        rules.push(format!("udp dport {port} @th,96,24 {vni} drop"));
    }
    let peers = tunnelled(segments, "saddr");
    rules.extend(peers.map(|theirs| format!("{theirs} accept")));
    let ports = vteps(segments).into_keys();
    rules.extend(ports.map(|port| format!("udp dport {port} drop")));
    rules.push("ct state established,related accept".to_owned());
    rules.extend(state.fallback.iter().flat_map(gate));
    let blocks = own(segments).flat_map(|segment| &segment.blocks);
    for (family, gateways) in gateways(blocks.copied()) {
        // Who may reach this host finds it at any of them.
        let allowed = own(segments).flat_map(|segment| allowed(segment, family));
        rules.extend(allowed.map(|from| format!("{from} {family} daddr {gateways} accept")));
    }
    for segment in own(segments).filter(|segment| segment.has_v6()) {
        // What link-local addresses send to all is among containers, but for asking.
        rules.push(format!(
            "iifname \"{}\" ip6 saddr fe80::/10 icmpv6 type != {{ nd-neighbor-solicit, nd-neighbor-advert }} drop",
            segment.bridge
        ));
        rules.push(format!(
            "iifname \"{}\" ip6 saddr fe80::/10 meta l4proto != ipv6-icmp drop",
            segment.bridge
        ));
    }
    for segment in segments {
        // Listeners within a block are in its interval already, and nft refuses overlaps.
        let blocks: &[_] = if segment.adopted {
            &[]
        } else {
            &segment.blocks
        };
        let within = |address: IpAddr| blocks.iter().any(|block| block.contains(address));
        let listeners = segment.local_addresses.iter().copied().map(IpAddr::from);
        let outside = listeners.filter(|address| !within(*address));
        let own = blocks.iter().copied();
        for (family, own) in by_family(own.chain(outside.map(IpNetwork::from))) {
            let links = quoted(links(segment).chain(["lo"]));
            rules.push(format!("iifname != {links} {family} daddr {own} drop"));
        }
        if let Some(vxlan) = &segment.vxlan {
            let tunnels = named(vxlan.links());
            rules.extend(from_hosts(segment, vxlan).map(|from| {
                format!("{from} udp dport {CHECKSUM_PORT} accept") // the kernel says that nobody is there
            }));
            let ping = match segment.reach {
                Reach::Routed | Reach::Linked { .. } if segment.has_v6() => {
                    "meta l4proto != { icmp, ipv6-icmp } "
                }
                Reach::Routed | Reach::Linked { .. } => "meta l4proto != icmp ",
                Reach::LinksOnly { .. } => {
                    rules.extend(hosts_v4(segment).map(|hosts| {
                        format!("iifname {tunnels} ip saddr {hosts} icmp type {{ destination-unreachable, echo-reply, echo-request }} accept")
                    }));
                    rules.extend(into_door(segment, vxlan));
                    ""
                }
            };
            rules.push(format!("iifname {tunnels} {ping}drop"));
        }
        rules.extend(to_host(segment));
    }
    rules
}

/// Lets peers connect to where they reach by TLS what this host exposes.
fn into_door(segment: &Segment, vxlan: &Vxlan) -> Option<String> {
    let Reach::LinksOnly {
        door: Some(door), ..
    } = &segment.reach
    else {
        return None;
    };
    let from = from_hosts(segment, vxlan)?;
    Some(format!("{from} tcp dport {} accept", door.port))
}

/// Lets peers alone connect to a port of theirs. Answers to what this host began from there are through by now.
fn gate(gate: &Gate) -> Vec<String> {
    let Gate { port, peers } = gate;
    let mut rules = Vec::new();
    for (family, v4) in [("ip", true), ("ip6", false)] {
        let peers = set(peers.iter().filter(|peer| peer.is_ipv4() == v4));
        let rule = |peers| format!("tcp dport {port} {family} saddr {peers} accept");
        rules.extend(peers.map(rule));
    }
    rules.push(format!("tcp dport {port} drop"));
    rules
}

/// Those of a network's containers that may connect to this host itself, by their addresses of a family.
fn allowed(segment: &Segment, family: &str) -> Option<String> {
    let from = format!("iifname \"{}\"", segment.bridge);
    let HostAccess::Only(allowed) = &segment.host_access else {
        return Some(from);
    };
    let allowed = by_family(allowed.iter().copied().map(IpNetwork::from));
    let (_, allowed) = allowed.iter().find(|(of, _)| *of == family)?;
    Some(format!("{from} {family} saddr {allowed}"))
}

/// What containers may send to this host itself: to those who listen for them, pings, and what is allowed.
fn to_host(segment: &Segment) -> Vec<String> {
    if segment.host_access == HostAccess::All {
        return Vec::new();
    }
    let from = format!("iifname \"{}\"", segment.bridge);
    let mut rules = vec![format!("{from} meta l4proto {{ icmp, ipv6-icmp }} accept")];
    let listeners = set(&segment.local_addresses);
    rules.extend(listeners.map(|listeners| format!("{from} ip daddr {listeners} accept")));
    let allowed = ["ip", "ip6"].map(|family| allowed(segment, family));
    rules.extend(
        allowed
            .iter()
            .flatten()
            .map(|from| format!("{from} accept")),
    );
    rules.push(format!("{from} drop"));
    rules
}
