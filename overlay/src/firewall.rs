//! The nft tables as text: a function of the state, without I/O.

mod adopted;
mod batch;
mod forward;
mod input;
mod ports;
mod published;
mod sets;
pub(crate) mod shortcut;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use self::{
    batch::Batch,
    forward::{fit, forward, from_bridge, from_vxlan},
    input::input,
    published::{postrouting, published, to_published},
    sets::{by_family, named, of_v4, quoted, set},
    source::{leaking, spoofed},
};
use crate::{Carrier, HostState, Segment, Vxlan, gateway};

/// The table of packets; its family and name, as nft's commands take them.
pub(crate) const TABLE: &str = "inet nuncio";

/// All that is ours.
pub(crate) const TABLES: [&str; 2] = [TABLE, ports::TABLE];

/// A batch for `nft -f` that removes tables, whichever of them are there.
pub(crate) fn removal(tables: &[&str]) -> String {
    let removal = |table| format!("table {table}\ndelete table {table}\n");
    tables.iter().map(removal).collect()
}

/// A batch for `nft -f` that replaces the tables in one transaction; empty if there is nothing to rule.
pub(crate) fn render(state: &HostState) -> String {
    if state.segments.is_empty() && state.published.is_empty() {
        return String::new();
    }
    let segments = &state.segments;
    let mut out = Batch::default();
    out.table(TABLE, |out| packets(out, state));
    ports::render(&mut out, segments);
    out.0
}

fn packets(out: &mut Batch, state: &HostState) {
    let segments = &state.segments;
    out.chain(
        "spoofed",
        "filter hook prerouting priority -300",
        spoofed(segments),
    );
    let untracked = tunnelled(segments, "daddr").map(|sent| format!("{sent} notrack"));
    let untracked = untracked.chain(no_redirects(segments));
    out.chain(
        "tunnelled",
        "filter hook output priority -300",
        untracked.collect(),
    );
    out.chain("input", "filter hook input priority 0", input(state));
    let leaking = leaking(segments);
    if !leaking.is_empty() {
        out.chain("leaking", "filter hook postrouting priority -300", leaking);
    }
    for segment in segments {
        out.subchain(
            &format!("from-{}", segment.bridge),
            from_bridge(segment, segments),
        );
        if let Some(vxlan) = &segment.vxlan {
            out.subchain(&format!("from-{}", vxlan.link), from_vxlan(segment, vxlan));
        }
    }
    out.chain("fit", "filter hook forward priority -150", fit(segments));
    out.chain(
        "forward",
        "filter hook forward priority 0",
        forward(segments),
    );
    out.subchain("published", published(&state.published));
    out.chain(
        "prerouting",
        "nat hook prerouting priority -100",
        to_published(segments, &[]),
    );
    let loopback = ["ip daddr 127.0.0.0/8 return", "ip6 daddr ::1 return"];
    out.chain(
        "output",
        "nat hook output priority -100",
        to_published(segments, &loopback),
    );
    out.chain(
        "postrouting",
        "nat hook postrouting priority 100",
        postrouting(segments),
    );
}

/// The other hosts of a network, by their gateway addresses of IPv4, at which they probe each other.
fn hosts_v4(segment: &Segment) -> Option<String> {
    let hosts = gateways(segment.peers.iter().map(|peer| peer.block));
    of_v4(&hosts).cloned()
}

/// What other hosts send this one of a network by its tunnel, from gateway to gateway, as their probes go.
fn from_hosts(segment: &Segment, vxlan: &Vxlan) -> Option<String> {
    let links = named(vxlan.links());
    let own = gateways(segment.blocks.iter().copied());
    let (theirs, own) = (hosts_v4(segment)?, of_v4(&own)?);
    Some(format!("iifname {links} ip saddr {theirs} ip daddr {own}"))
}

/// Of containers that exchange no frames each would be told to do without the host, which the kernel can be asked to leave
/// for IPv4 alone.
fn no_redirects(segments: &[Segment]) -> impl Iterator<Item = String> {
    let apart = segments.iter().filter(|segment| segment.isolates_ports());
    let bridges = apart.filter(|segment| segment.has_v6());
    bridges.map(|segment| {
        format!(
            "oifname \"{}\" icmpv6 type nd-redirect drop",
            segment.bridge
        )
    })
}

/// The hosts of those blocks, by their gateway addresses.
fn gateways(blocks: impl Iterator<Item = IpNetwork>) -> Vec<(&'static str, String)> {
    by_family(blocks.map(gateway).map(IpNetwork::from))
}

/// VXLAN packets from peers, by `saddr`, or to them, by `daddr`.
fn tunnelled(segments: &[Segment], end: &str) -> impl Iterator<Item = String> {
    vteps(segments).into_iter().flat_map(move |(port, vteps)| {
        let of =
            |family, set: Option<String>| Some(format!("udp dport {port} {family} {end} {}", set?));
        [of("ip", set(&vteps.v4)), of("ip6", set(&vteps.v6))]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    })
}

#[derive(Default)]
struct Vteps {
    v4: BTreeSet<IpAddr>,
    v6: BTreeSet<IpAddr>,
}

/// The peers of all segments, by UDP port.
fn vteps(segments: &[Segment]) -> BTreeMap<u16, Vteps> {
    let mut ports = BTreeMap::<u16, Vteps>::new();
    for segment in segments {
        let Some(vxlan) = &segment.vxlan else {
            continue;
        };
        if vxlan.carrier == Carrier::Sealed {
            continue; // its peers send no VXLAN
        }
        let vteps = ports.entry(vxlan.port).or_default();
        for peer in &segment.peers {
            match peer.vtep {
                IpAddr::V4(_) => vteps.v4.insert(peer.vtep),
                IpAddr::V6(_) => vteps.v6.insert(peer.vtep),
            };
        }
    }
    ports
}

/// The segment, if no packet of it may be seen on the way.
fn sealed(segment: &Segment) -> Option<&Segment> {
    let vxlan = segment.vxlan.as_ref();
    vxlan
        .is_some_and(|vxlan| vxlan.carrier == Carrier::Sealed)
        .then_some(segment)
}

/// Networks whose bridges are ours.
fn own(segments: &[Segment]) -> impl Iterator<Item = &Segment> {
    segments.iter().filter(|segment| !segment.adopted)
}

fn links(segment: &Segment) -> impl Iterator<Item = &str> {
    let vxlan = segment.vxlan.iter().flat_map(Vxlan::links);
    std::iter::once(segment.bridge.as_str()).chain(vxlan)
}

#[cfg(test)]
mod tests;
