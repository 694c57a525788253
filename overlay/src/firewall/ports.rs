//! What each bridge port lets in: frames of the container behind it, from its own addresses. Containers of one bridge
//! exchange frames that the table of packets never sees.

use std::net::IpAddr;

use super::{Batch, adopted, quoted, set};
use crate::{Member, Segment};

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
    let own = |is_wanted: fn(&IpAddr) -> bool| {
        let each = members.iter().flat_map(move |member| {
            let Member {
                link,
                mac,
                addresses,
            } = member;
            let addresses = addresses.iter().filter(move |address| is_wanted(address));
            addresses.map(move |address| format!("\"{link}\" . {mac} . {address}"))
        });
        set(each)
    };
    let macs = members
        .iter()
        .map(|member| format!("\"{}\" . {}", member.link, member.mac));
    let mut rules = Vec::new();
    let v4 = own(IpAddr::is_ipv4);
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
    // Whoever has an address of IPv6 looks for others from his link-local one, or from none.
    rules.push(format!(
        "iifname {ports} ip6 saddr {{ ::, fe80::/10 }} accept"
    ));
    if let Some(v6) = own(IpAddr::is_ipv6) {
        rules.push(format!("iifname . ether saddr . ip6 saddr {v6} accept"));
    }
    rules.push(format!("iifname {ports} drop"));
    rules
}
