//! A shorter way between containers of one network on two hosts. A packet is taken off where it comes in, before bridge,
//! routing, connection tracking and the rules of packets have seen it, and put where these would have brought it.
//!
//! It is for packets of IPv4 that they would pass on unchanged, whatever came before them: from a container's own address to a peer's
//! block, and from there to a container. Links, published ports, services that are relayed, what is encrypted, this host
//! itself and all that a rule might forbid go the long way, as does everything while this table is not there.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;

use super::{Batch, quoted, set};
use crate::{Carrier, Member, Peer, Reach, Segment, Vxlan, gateway_of, segment};

/// The table's family and name, as nft's commands take them.
pub(crate) const TABLE: &str = "netdev nuncio";

/// A batch for `nft -f` that replaces the table, leaving out members whose links are not there, which nft would refuse;
/// empty if there is nothing to shorten.
pub(crate) fn render(segments: &[Segment], is_there: impl Fn(&str) -> bool) -> String {
    let mut out = Batch::default();
    let ways: Vec<_> = segments
        .iter()
        .filter_map(|segment| Way::of(segment, &is_there))
        .collect();
    if !ways.is_empty() {
        out.table(TABLE, |out| {
            for way in &ways {
                way.render(out);
            }
        });
    }
    out.0
}

/// Whether what a container, by its link, and a peer's send each other is shortened where the table is there.
pub(crate) fn carries(segment: &Segment, link: &str, peer: &Peer) -> bool {
    Way::of(segment, |_| true).is_some_and(|way| {
        let block = segment::v4(peer.block).filter(|_| peer.mtu.is_none());
        way.members.iter().any(|(member, _)| member.link == link)
            && block.is_some_and(|block| way.blocks.contains(&block))
    })
}

/// What of a network is shortened.
struct Way<'a> {
    bridge: &'a str,
    vxlan: &'a Vxlan,
    members: Vec<(&'a Member, Vec<Ipv4Addr>)>,
    /// The blocks of IPv4 of those peers to which a route's MTU is the link's.
    blocks: Vec<Ipv4Network>,
}

impl<'a> Way<'a> {
    /// None if containers of the network may not reach each other as they please, or nobody is there.
    fn of(segment: &'a Segment, is_there: impl Fn(&str) -> bool) -> Option<Self> {
        let vxlan = segment.vxlan.as_ref()?;
        let members = segment
            .members
            .iter()
            .filter(|member| is_there(&member.link));
        let members: Vec<_> = members
            .map(|member| (member, v4(&member.addresses)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        // What may be too long for its way must be told so, which only the long way does; nor do others lead around.
        let is_short = |peer: &&crate::Peer| peer.mtu.is_none() && !vxlan.link_to(peer.vtep).1;
        let peers = segment.peers.iter().filter(is_short);
        let blocks: Vec<_> = peers.filter_map(|peer| segment::v4(peer.block)).collect();
        let open = segment.icc && segment.reach == Reach::Routed && vxlan.carrier == Carrier::Vxlan;
        (open && is_there(&vxlan.link) && !members.is_empty() && !blocks.is_empty()).then_some(
            Self {
                bridge: &segment.bridge,
                vxlan,
                members,
                blocks,
            },
        )
    }

    fn render(&self, out: &mut Batch) {
        let ports = quoted(self.members.iter().map(|(member, _)| member.link.as_str()));
        let hook = format!("filter hook ingress devices = {ports} priority 0");
        out.chain(&format!("from-{}", self.bridge), &hook, vec![self.out()]);
        let link = &self.vxlan.link;
        let hook = format!("filter hook ingress device \"{link}\" priority 0");
        out.chain(&format!("from-{link}"), &hook, vec![self.inward()]);
    }

    /// From a container's own hardware and IP address to a peer's block, by way of that host's gateway address.
    fn out(&self) -> String {
        let own = self.each(|member, address| {
            let Member { link, mac, .. } = member;
            format!("\"{link}\" . {mac} . {address}")
        });
        let blocks = self.blocks.iter();
        let blocks = blocks.map(|block| format!("{block} : {}", gateway_of(*block)));
        format!(
            "iifname . ether saddr . ip saddr {} ip ttl > 1 fwd ip to ip daddr map {} device \"{}\"",
            set(own).unwrap_or_default(),
            set(blocks).unwrap_or_default(),
            self.vxlan.link
        )
    }

    /// From a peer's block to the container that has the address, as if the host had sent it.
    fn inward(&self) -> String {
        let blocks = set(&self.blocks);
        let addresses = self.each(|_, address| address.to_string());
        let macs = self.each(|member, address| format!("{address} : {}", member.mac));
        let links = self.each(|member, address| format!("{address} : \"{}\"", member.link));
        format!(
            "ip saddr {} ip daddr {} ether daddr set ip daddr map {} fwd to ip daddr map {}",
            blocks.unwrap_or_default(),
            set(addresses).unwrap_or_default(),
            set(macs).unwrap_or_default(),
            set(links).unwrap_or_default(),
        )
    }

    fn each(&self, show: impl Fn(&Member, Ipv4Addr) -> String) -> Vec<String> {
        let each = self.members.iter();
        each.flat_map(|(member, addresses)| addresses.iter().map(|address| show(member, *address)))
            .collect()
    }
}

fn v4(addresses: &[IpAddr]) -> Vec<Ipv4Addr> {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    addresses.iter().filter_map(v4).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::super::tests::{links_only, local, mesh};
    use super::*;

    fn ways(segments: &[Segment]) -> String {
        render(segments, |_| true)
    }

    #[test]
    fn renders_as_reviewed() {
        let reviewed = include_str!("shortcut.nft");
        assert_eq!(ways(&[links_only(), mesh(), local()]), reviewed);
    }

    #[test]
    fn what_a_rule_might_forbid_goes_the_long_way() {
        let closed = Segment {
            icc: false,
            ..mesh()
        };
        assert_eq!(ways(&[closed, links_only(), local()]), "");
    }

    #[test]
    fn what_is_shortened_can_be_asked() {
        let mut mesh = mesh();
        let (link, peer) = (mesh.members[0].link.clone(), mesh.peers[0].clone());
        assert!(carries(&mesh, &link, &peer));
        assert!(!carries(&mesh, "nv-9", &peer));
        mesh.peers[0].mtu = Some(1300);
        assert!(!carries(&mesh, &link, &mesh.peers[0]));
        mesh.icc = false;
        assert!(!carries(&mesh, &link, &peer));
    }

    #[test]
    fn links_that_are_gone_are_left_out() {
        let mesh = mesh();
        let gone = mesh.members[0].link.clone();
        let segments = [mesh];
        assert!(ways(&segments).contains(&gone));
        assert!(!render(&segments, |link| link != gone).contains(&gone));
        assert_eq!(render(&segments, |link| link == "nx-1"), "");
    }
}
