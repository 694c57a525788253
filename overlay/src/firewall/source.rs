//! Where packets may come from, and leave by.

use super::{
    adopted, from_hosts, links, own, sealed,
    sets::{family, named, only_from, quoted},
    tunnelled,
};
use crate::{Segment, paths::CHECKSUM_PORT, segment::BRIDGE_LINK_LOCAL};

/// Packets whose source cannot be where they come from, seen before connection tracking.
pub(super) fn spoofed(segments: &[Segment]) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in segments.iter().filter_map(sealed) {
        let own = quoted(links(segment).chain(["lo"]));
        rules.extend(segment.subnets.iter().map(|subnet| {
            let family = family(subnet.ip());
            format!("iifname != {own} {family} saddr {subnet} drop")
        }));
    }
    for segment in own(segments) {
        let answers = answers(segment);
        rules.extend(answers.iter().map(|answer| format!("{answer} notrack")));
        let from = format!("iifname \"{}\"", segment.bridge);
        if segment.has_v6() {
            // Whoever has an address looks for others from his link-local one, or from none.
            rules.push(format!(
                "{from} ip6 saddr {{ ::, fe80::/10 }} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept"
            ));
            // Where the kernel has br_netfilter it shows what containers send each other, too.
            let own = BRIDGE_LINK_LOCAL;
            rules.push(format!(
                "{from} ip6 saddr fe80::/10 ip6 daddr {{ fe80::/10, ff02::/16 }} ip6 daddr != {own} accept"
            ));
        }
        rules.extend(only_from(&from, segment.blocks.iter().copied()));
        if let Some(vxlan) = &segment.vxlan {
            let from = format!("iifname {}", named(vxlan.links()));
            let theirs = segment.peers.iter().map(|peer| peer.block);
            rules.extend(only_from(&from, theirs));
        }
    }
    // Masqueraded as this host, a container's own VXLAN packet would pass for this host's at a peer.
    let bridges = quoted(own(segments).map(|segment| segment.bridge.as_str()));
    for sent in tunnelled(segments, "daddr") {
        rules.push(format!("iifname {bridges} {sent} drop"));
        let adopted = segments.iter().filter_map(adopted::from_members);
        rules.extend(adopted.map(|from| format!("{from} {sent} drop")));
    }
    // Whom a peer's packet carries is tracked, not that it is carried.
    let theirs = tunnelled(segments, "saddr");
    rules.extend(theirs.map(|theirs| format!("{theirs} notrack")));
    rules
}

/// What would leave an encrypted network's own links, such as by a default route while the device is gone.
pub(super) fn leaking(segments: &[Segment]) -> Vec<String> {
    let sealed = segments.iter().filter_map(sealed);
    let rules = sealed.flat_map(|segment| {
        let own = quoted(links(segment).chain(["lo"]));
        segment.subnets.iter().map(move |subnet| {
            let family = family(subnet.ip());
            format!("oifname != {own} {family} daddr {subnet} drop")
        })
    });
    rules.collect()
}

/// What hosts answer to each other's probes (see `paths`). These are asked by a process and not by this kernel, to which the
/// answers were invalid, and many a firewall drops that.
fn answers(segment: &Segment) -> Vec<String> {
    let from = segment
        .vxlan
        .as_ref()
        .and_then(|vxlan| from_hosts(segment, vxlan));
    let from = from.filter(|_| sealed(segment).is_none());
    // Behind ICMP's eight bytes an answer has the packet that it is about: of IPv4 the tenth byte, of UDP the second word.
    let of_checksum =
        format!("icmp type destination-unreachable @th,136,8 17 @th,240,16 {CHECKSUM_PORT}");
    let answers = ["icmp type echo-reply", &of_checksum];
    let answers = answers.map(|answer| Some(format!("{} {answer}", from.as_ref()?)));
    answers.into_iter().flatten().collect()
}
