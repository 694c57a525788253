//! What each bridge port lets in: frames of the container behind it, from its own addresses. Containers of one bridge
//! exchange frames that the table of packets never sees.

use std::net::{IpAddr, Ipv6Addr};

use super::{Batch, adopted, quoted, set};
use crate::{MacAddr, Member, Segment};

/// The table's family and name, as nft's commands take them.
pub(crate) const TABLE: &str = "bridge nuncio";

/// Adds the table of frames to a batch.
pub(super) fn render(out: &mut Batch, segments: &[Segment]) {
    out.table(TABLE, |out| {
        let members = segments.iter().flat_map(|segment| &segment.members);
        let members: Vec<_> = members.collect();
        let rules = rules(&members);
        out.chain("ports", "filter hook prerouting priority -300", rules);
        adopted::frames(out, segments);
    });
}

/// Most frames are IPv4, and are through by the first rule.
fn rules(members: &[&Member]) -> Vec<String> {
    if members.is_empty() {
        return Vec::new();
    }
    let ports = quoted(members.iter().map(|member| member.link.as_str()));
    let v4 = each(members, |member| {
        member.addresses.iter().copied().filter(IpAddr::is_ipv4)
    });
    let v4 = set(v4.map(|(link, mac, address)| format!("\"{link}\" . {mac} . {address}")));
    let macs = members
        .iter()
        .map(|member| format!("\"{}\" . {}", member.link, member.mac));
    let mut rules = Vec::new();
    if let Some(v4) = &v4 {
        rules.push(format!("iifname . ether saddr . ip saddr {v4} accept"));
    }
    rules.extend(
        set(macs).map(|macs| format!("iifname {ports} iifname . ether saddr != {macs} drop")),
    );
    if let Some(v4) = &v4 {
        rules.push(format!(
            "iifname . arp saddr ether . arp saddr ip {v4} accept"
        ));
    }
    rules.extend(v6(members));
    rules.push(format!("iifname {ports} drop"));
    rules
}

/// Of IPv6 a container has the addresses it was given and the link-local one of its MAC, from which it asks for others. Whom
/// it would speak for stands in the packet of neighbour discovery (RFC 4861 §4.3 and §4.4), eight bytes into ICMPv6.
fn v6(members: &[&Member]) -> Vec<String> {
    let members: Vec<_> = members
        .iter()
        .copied()
        .filter(|member| member.addresses.iter().any(IpAddr::is_ipv6))
        .collect();
    let own = || each(&members, own_v6);
    let sources = set(own().map(|(link, mac, address)| format!("\"{link}\" . {mac} . {address}")));
    let targets =
        set(own().map(|(link, _, address)| format!("\"{link}\" . {:#034x}", u128::from(address))));
    let (Some(sources), Some(targets)) = (sources, targets) else {
        return Vec::new();
    };
    let ports = quoted(members.iter().map(|member| member.link.as_str()));
    let target = "iifname . @th,64,128";
    vec![
        // Routers are hosts, and nobody else.
        format!("iifname {ports} icmpv6 type {{ nd-router-advert, nd-redirect }} drop"),
        format!("iifname {ports} icmpv6 type nd-neighbor-advert {target} != {targets} drop"),
        // Before it takes an address it may ask whether another one has it.
        format!("ip6 saddr :: icmpv6 type nd-neighbor-solicit {target} {targets} accept"),
        format!(
            "iifname {ports} ip6 saddr :: icmpv6 type {{ mld-listener-report, mld2-listener-report }} accept"
        ),
        format!("iifname . ether saddr . ip6 saddr {sources} accept"),
    ]
}

fn own_v6(member: &Member) -> impl Iterator<Item = Ipv6Addr> {
    let given = member.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    });
    given.chain([member.mac.link_local()])
}

/// Each of the members' addresses, with the link and MAC that it is behind.
fn each<'a, A: 'a, I: Iterator<Item = A> + 'a>(
    members: &[&'a Member],
    addresses: impl Fn(&'a Member) -> I,
) -> impl Iterator<Item = (&'a str, MacAddr, A)> {
    members.iter().flat_map(move |member| {
        addresses(member).map(|address| (member.link.as_str(), member.mac, address))
    })
}
