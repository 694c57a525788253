//! Routes and devices of peers to whom VXLAN does not lead.

use std::collections::HashMap;

use ipnetwork::IpNetwork;

use super::links::Links;
use crate::{Segment, Vxlan, gateway};

/// An address for each tunnel, as long as there are two. One that has none takes nothing that would be answered by the other
/// (rp_filter's loose mode).
pub(super) fn either_way(
    segment: &Segment,
    links: &Links,
) -> impl Iterator<Item = (u32, IpNetwork)> {
    let own = segment.blocks.iter().find(|block| block.is_ipv4());
    let gateway = own.map(|block| IpNetwork::from(gateway(*block)));
    let vxlan = segment
        .vxlan
        .iter()
        .filter(|vxlan| vxlan.fallback.is_some());
    let tunnels = vxlan.flat_map(Vxlan::links);
    let tunnels = tunnels.filter_map(|link| links.get(link).filter(|link| link.ours));
    tunnels.filter_map(move |link| Some((link.index, gateway?)))
}

/// How a route is fitted to the path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Fit {
    mtu: Option<u32>,
    /// It leads around, not by VXLAN.
    around: bool,
}

/// How those routes to peers are fitted that need it, by the peers' blocks.
pub(super) fn fitted(segments: &[Segment]) -> HashMap<IpNetwork, Fit> {
    let all = segments.iter().flat_map(|segment| {
        let vxlan = segment.vxlan.as_ref();
        segment.peers.iter().map(move |peer| {
            let around = vxlan.is_some_and(|vxlan| vxlan.link_to(peer.vtep).1);
            let mtu = peer.mtu.map(u32::from);
            (peer.block, Fit { mtu, around })
        })
    });
    all.filter(|(_, fit)| *fit != Fit::default()).collect()
}
