//! Networks on a bridge that is somebody else's, on which there are other machines: rules are about its containers alone.

use super::{Batch, quoted, set};
use crate::{Linked, Segment};

/// The bridge, if it is somebody else's.
pub(super) fn link(segment: &Segment) -> Option<&str> {
    segment.adopted.then_some(segment.bridge.as_str())
}

/// The addresses of such a network's containers; `None` if there are none.
fn members(segment: &Segment) -> Option<String> {
    link(segment)?;
    let members = segment.members.iter();
    let addresses = members.flat_map(|member| &member.addresses);
    set(addresses.filter(|address| address.is_ipv4()))
}

/// What such a network's containers send.
pub(super) fn from_members(segment: &Segment) -> Option<String> {
    let members = members(segment)?;
    Some(format!("iifname \"{}\" ip saddr {members}", segment.bridge))
}

/// Keeps the containers of another network, but not who else is on its bridge, from those of such networks.
pub(super) fn apart(segment: &Segment, segments: &[Segment]) -> Vec<String> {
    let from = match link(segment) {
        None => String::new(),
        Some(_) => match members(segment) {
            Some(members) => format!("ip saddr {members} "),
            None => return Vec::new(),
        },
    };
    let others = segments
        .iter()
        .filter(|other| other.bridge != segment.bridge);
    let apart = others.filter_map(|other| {
        let to = format!("oifname \"{}\" ip daddr {}", other.bridge, members(other)?);
        Some([
            format!("{from}{to} ct status dnat accept"),
            format!("{from}{to} drop"),
        ])
    });
    apart.flatten().collect()
}

/// A published port's container sees this host, since it would answer its neighbours on the bridge itself; and what
/// leaves by a link that is none of `ours`, nor the bridge, is masqueraded.
pub(super) fn postrouting(segment: &Segment, ours: &str) -> Vec<String> {
    let (Some(members), Some(blocks)) = (members(segment), set(&segment.blocks)) else {
        return Vec::new();
    };
    let bridge = &segment.bridge;
    let mut rules = vec![format!(
        "oifname \"{bridge}\" ip saddr {blocks} ip daddr {members} ct status dnat masquerade"
    )];
    if segment.masquerade {
        rules.push(format!("oifname != {ours} ip saddr {members} masquerade"));
    }
    rules
}

/// Frames between containers that only a link lets reach each other. Such a bridge's own answers to ARP are for others too, so
/// nothing is routed here, and the rules of packets never see this.
pub(super) fn frames(out: &mut Batch, segments: &[Segment]) {
    let apart = segments
        .iter()
        .filter(|segment| segment.adopted && !segment.icc && !segment.members.is_empty());
    let rules: Vec<_> = apart.flat_map(between).collect();
    if !rules.is_empty() {
        out.chain("apart", "filter hook forward priority -300", rules);
    }
}

fn between(segment: &Segment) -> Vec<String> {
    let ports = quoted(segment.members.iter().map(|member| member.link.as_str()));
    let between = format!("iifname {ports} oifname {ports}");
    let mut rules = vec![format!("{between} ether type arp accept")];
    let linked = segment.linked.iter();
    let linked = linked.filter(|linked| linked.server.is_ipv4()); // it has no other family
    let asked = linked.clone().map(|linked| {
        let Linked {
            client,
            server,
            protocol,
            port,
        } = linked;
        format!("{client} . {server} . {protocol} . {port}")
    });
    let answered = linked.map(|linked| {
        let Linked {
            client,
            server,
            protocol,
            port,
        } = linked;
        format!("{server} . {client} . {protocol} . {port}")
    });
    let ends = |end: &str| format!("{between} ip saddr . ip daddr . meta l4proto . th {end}");
    rules.extend(set(asked).map(|asked| format!("{} {asked} accept", ends("dport"))));
    // Whoever answers does not begin: that is told by the flags of TCP, since frames are not tracked.
    rules.extend(set(answered).into_iter().flat_map(|answered| {
        let answers = format!("{} {answered}", ends("sport"));
        [
            format!("{answers} tcp flags & (syn | ack) != syn accept"),
            format!("{answers} meta l4proto udp accept"),
        ]
    }));
    rules.push(format!("{between} drop"));
    rules
}

#[cfg(test)]
mod tests;
