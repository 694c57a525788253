//! What passes through this host, from and to containers.

use std::net::IpAddr;

use super::{
    adopted, gateways, links, own,
    sets::{family, named, of_v4, quoted, set},
};
use crate::{Linked, Protocol, Reach, Segment, Vxlan};

/// Has both sides of a connection send no longer segments than get through to the peer, as its route says. They would learn
/// it from ICMP too, but not those who drop that, nor before a packet was lost.
pub(super) fn fit(segments: &[Segment]) -> Vec<String> {
    let tunnels = segments.iter().filter_map(|segment| segment.vxlan.as_ref());
    let mut tunnels = tunnels.flat_map(Vxlan::links).peekable();
    if tunnels.peek().is_none() {
        return Vec::new();
    }
    let tunnels = quoted(tunnels);
    vec![format!(
        "oifname {tunnels} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    )]
}

/// New connections through this host; those of other links that do not touch ours are not ours to judge.
pub(super) fn forward(segments: &[Segment]) -> Vec<String> {
    let mut rules = vec!["ct state established,related accept".to_owned()];
    for segment in own(segments).filter(|segment| segment.internal) {
        let (bridge, own) = (&segment.bridge, quoted(links(segment)));
        rules.push(format!("iifname \"{bridge}\" oifname != {own} drop"));
        rules.push(format!("oifname \"{bridge}\" iifname != {own} drop"));
    }
    if segments.is_empty() {
        return rules;
    }
    let jumps = segments.iter().flat_map(|segment| {
        let bridge = (segment.bridge.as_str(), &segment.bridge);
        let tunnels = segment.vxlan.iter();
        let tunnels = tunnels.flat_map(|vxlan| vxlan.links().map(|link| (link, &vxlan.link)));
        std::iter::once(bridge).chain(tunnels)
    });
    let jumps: Vec<_> = jumps
        .map(|(link, chain)| format!("\"{link}\" : jump from-{chain}"))
        .collect();
    rules.push(format!("iifname vmap {{ {} }}", jumps.join(", ")));
    rules.extend(into_ours(segments));
    rules
}

/// What else is addressed to our links: published ports are let in.
fn into_ours(segments: &[Segment]) -> Vec<String> {
    let mut ours = own(segments).flat_map(links).peekable();
    if ours.peek().is_none() {
        return Vec::new();
    }
    let ours = quoted(ours);
    vec![
        format!("oifname {ours} ct status dnat accept"),
        format!("oifname {ours} drop"),
    ]
}

/// New connections of a network's local containers.
pub(super) fn from_bridge(segment: &Segment, segments: &[Segment]) -> Vec<String> {
    let bridge = &segment.bridge;
    let mut rules = if segment.icc || segment.adopted {
        vec![format!("oifname \"{bridge}\" accept")]
    } else {
        let out = match segment.reach {
            Reach::Linked { .. } => quoted(links(segment)),
            Reach::Routed | Reach::LinksOnly { .. } => format!("\"{bridge}\""),
        };
        let rule = |(family, linked)| {
            format!(
                "oifname {out} {family} saddr . {family} daddr . meta l4proto . th dport {linked} accept"
            )
        };
        linked(segment).map(rule).collect()
    };
    if let Some(vxlan) = &segment.vxlan {
        let verdict = match segment.reach {
            Reach::Routed if segment.icc => "accept",
            _ => "drop",
        };
        rules.push(format!("oifname {} {verdict}", named(vxlan.links())));
    }
    rules.extend(into_ours(segments));
    rules.extend(adopted::apart(segment, segments));
    rules.push("accept".to_owned());
    rules
}

/// New connections from a network's other hosts.
pub(super) fn from_vxlan(segment: &Segment, vxlan: &Vxlan) -> Vec<String> {
    let hosts = gateways(segment.peers.iter().map(|peer| peer.block));
    let inward = format!("oifname \"{}\"", segment.bridge);
    let mut rules = Vec::new();
    match &segment.reach {
        Reach::Routed if segment.icc => rules.push(format!("{inward} accept")),
        Reach::Routed => {
            let rule = |(family, hosts)| format!("{inward} {family} saddr {hosts} accept");
            rules.extend(hosts.into_iter().map(rule));
        }
        Reach::Linked { exposed } => {
            // From within the blocks of peers: what comes from elsewhere has been dropped.
            rules.extend(ports(exposed).map(|(family, ports)| {
                format!("{inward} {family} daddr . meta l4proto . th dport {ports} accept")
            }));
        }
        Reach::LinksOnly { exposed, door } => {
            // It has no other family.
            let rule = |hosts, exposed: &[_]| {
                let (_, ports) = ports(exposed).find(|(family, _)| *family == "ip")?;
                Some(format!(
                    "{inward} ip saddr {hosts} ip daddr . meta l4proto . th dport {ports} accept"
                ))
            };
            let (by_door, all): (Vec<_>, Vec<_>) = exposed
                .iter()
                .copied()
                .partition(|(_, protocol, _)| door.is_some() && *protocol == Protocol::Tcp);
            rules.extend(of_v4(&hosts).and_then(|hosts| rule(hosts.to_string(), &all)));
            let plain = door.iter().flat_map(|door| &door.plain);
            rules.extend(set(plain).and_then(|hosts| rule(hosts, &by_door)));
        }
    }
    rules.push(format!("iifname {} drop", named(vxlan.links())));
    rules
}

/// Of each family that has some, the connections that links open: client, server, protocol and port.
fn linked(segment: &Segment) -> impl Iterator<Item = (&'static str, String)> {
    each_family(
        &segment.linked,
        |linked| linked.server,
        |linked| {
            let Linked {
                client,
                server,
                protocol,
                port,
            } = linked;
            format!("{client} . {server} . {protocol} . {port}")
        },
    )
}

fn ports(exposed: &[(IpAddr, Protocol, u16)]) -> impl Iterator<Item = (&'static str, String)> {
    each_family(
        exposed,
        |(ip, ..)| *ip,
        |(ip, protocol, port)| format!("{ip} . {protocol} . {port}"),
    )
}

fn each_family<T>(
    all: &[T],
    address: impl Fn(&T) -> IpAddr,
    show: impl Fn(&T) -> String,
) -> impl Iterator<Item = (&'static str, String)> {
    ["ip", "ip6"].into_iter().filter_map(move |of| {
        let of_family = all.iter().filter(|one| family(address(one)) == of);
        Some((of, set(of_family.map(&show))?))
    })
}
