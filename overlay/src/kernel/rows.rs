use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{
    Object,
    around::{Fit, either_way, fitted},
    links::Links,
    pass::Pass,
};
use crate::{
    Carrier, MacAddr, Segment, gateway,
    netlink::{FdbRow, Neighbour, Route},
    segment::BRIDGE_LINK_LOCAL,
};

/// A line of one of the kernel's tables. The kernel holds one for each key, and replaces by it.
trait Row: Copy + Eq + Hash {
    type Key: Copy + Eq + Hash;
    fn key(&self) -> Self::Key;
    fn object(&self, names: &HashMap<u32, String>) -> Object;
}

impl Row for Route {
    type Key = IpNetwork;

    fn key(&self) -> IpNetwork {
        self.destination
    }

    fn object(&self, names: &HashMap<u32, String>) -> Object {
        Object::Route(self.destination, name(names, self.link))
    }
}

impl Row for Neighbour {
    type Key = (u32, IpAddr);

    fn key(&self) -> (u32, IpAddr) {
        (self.link, self.address)
    }

    fn object(&self, names: &HashMap<u32, String>) -> Object {
        Object::Neighbour(self.address, name(names, self.link))
    }
}

impl Row for FdbRow {
    type Key = (u32, MacAddr);

    fn key(&self) -> (u32, MacAddr) {
        (self.link, self.mac)
    }

    fn object(&self, names: &HashMap<u32, String>) -> Object {
        Object::Fdb(self.mac, name(names, self.link))
    }
}

/// An address and its link; whole, it is its own key.
impl Row for (u32, IpNetwork) {
    type Key = Self;

    fn key(&self) -> Self {
        *self
    }

    fn object(&self, names: &HashMap<u32, String>) -> Object {
        Object::Address(self.1, name(names, self.0))
    }
}

fn name(names: &HashMap<u32, String>, index: u32) -> String {
    names
        .get(&index)
        .cloned()
        .unwrap_or_else(|| format!("#{index}"))
}

/// What to write, with whether it takes the place of another, and what to delete.
struct Diff<R> {
    missing: Vec<(R, bool)>,
    standing: Vec<R>,
    stale: Vec<R>,
}

fn diff<R: Row>(wanted: &HashSet<R>, found: &[R]) -> Diff<R> {
    let here: HashSet<_> = found.iter().copied().collect();
    let keys: HashSet<_> = found.iter().map(Row::key).collect();
    let missing: Vec<_> = wanted
        .difference(&here)
        .map(|row| (*row, keys.contains(&row.key())))
        .collect();
    let replaced: HashSet<_> = missing.iter().map(|(row, _)| row.key()).collect();
    let stale = here
        .difference(wanted)
        .filter(|row| !replaced.contains(&row.key()));
    Diff {
        stale: stale.copied().collect(),
        standing: wanted.intersection(&here).copied().collect(),
        missing,
    }
}

impl Pass<'_> {
    /// Addresses first: they are the sources that routes name.
    pub(super) async fn rows(&mut self, segments: &[Segment], links: &Links) {
        let names: HashMap<_, _> = links
            .values()
            .map(|link| (link.index, link.name.clone()))
            .collect();
        self.addresses(segments, links, &names).await;
        let tunnels: HashSet<_> = links
            .values()
            .filter(|link| link.ours && link.leads_to_peers())
            .map(|link| link.index)
            .collect();
        let wanted = Wanted::new(segments, links);

        let found = self.netlink.neighbours().await;
        if let Some(mut found) = self.listed("neighbours", found) {
            found.retain(|row| tunnels.contains(&row.link));
            let diff = self.note(diff(&wanted.neighbours, &found), &names);
            for (row, replaces) in diff.missing {
                let result = self.netlink.replace_neighbour(row).await;
                self.made(row.object(&names), replaces, result);
            }
            for row in diff.stale {
                let result = self.netlink.delete_neighbour(row.link, row.address).await;
                self.removed(row.object(&names), result);
            }
        }
        let found = self.netlink.fdb().await;
        if let Some(mut found) = self.listed("forwarding tables", found) {
            found.retain(|row| tunnels.contains(&row.link));
            let diff = self.note(diff(&wanted.fdb, &found), &names);
            for (row, replaces) in diff.missing {
                let result = self.netlink.replace_fdb(row).await;
                self.made(row.object(&names), replaces, result);
            }
            for row in diff.stale {
                let result = self.netlink.delete_fdb(row).await;
                self.removed(row.object(&names), result);
            }
        }
        self.routes(&wanted.routes, &fitted(segments), &tunnels, &names)
            .await;
    }

    async fn routes(
        &mut self,
        wanted: &HashSet<Route>,
        fitted: &HashMap<IpNetwork, Fit>,
        tunnels: &HashSet<u32>,
        names: &HashMap<u32, String>,
    ) {
        let found = self.netlink.routes().await;
        let Some(mut found) = self.listed("routes", found) else {
            return;
        };
        found.retain(|row| tunnels.contains(&row.link));
        let diff = self.note(diff(wanted, &found), names);
        for (row, replaces) in diff.missing {
            let result = self.netlink.replace_route(row).await;
            let key = &row.destination;
            let refitted = fitted.get(key) != self.fitted.get(key);
            let is_all = |found: &Route| {
                Route {
                    mtu: row.mtu,
                    link: row.link,
                    ..*found
                } == row
            };
            if replaces && refitted && found.iter().any(is_all) {
                self.adjusted(row.object(names), result);
            } else {
                self.made(row.object(names), replaces, result);
            }
        }
        for row in diff.stale {
            let result = self.netlink.delete_route(row).await;
            self.removed(row.object(names), result);
        }
    }

    async fn addresses(
        &mut self,
        segments: &[Segment],
        links: &Links,
        names: &HashMap<u32, String>,
    ) {
        let found = self.netlink.addresses().await;
        let Some(found) = self.listed("addresses", found) else {
            return;
        };
        let mut wanted = HashSet::new();
        for segment in segments {
            let Some(bridge) = links.get(&segment.bridge) else {
                continue;
            };
            wanted.extend(own_addresses(segment).map(|address| (bridge.index, address)));
            wanted.extend(either_way(segment, links));
        }
        // On our own links every address is ours to judge, elsewhere those that bear our mark; one
        // that is wanted is never put there twice, whoever did it.
        let ours: HashSet<_> = links
            .values()
            .filter(|link| link.ours)
            .map(|link| link.index)
            .collect();
        let found: Vec<_> = found
            .into_iter()
            .map(|row| {
                let is_ours = row.ours || ours.contains(&row.link);
                (is_ours, (row.link, row.address))
            })
            .filter(|(ours, row)| *ours || wanted.contains(row))
            .map(|(_, row)| row)
            .collect();
        let diff = self.note(diff(&wanted, &found), names);
        for (row, _) in diff.missing {
            let result = self.netlink.add_address(row.0, row.1).await;
            self.made(row.object(names), false, result);
        }
        for row in diff.stale {
            let result = self.netlink.delete_address(row.0, row.1).await;
            self.removed(row.object(names), result);
        }
    }

    fn note<R: Row>(&mut self, diff: Diff<R>, names: &HashMap<u32, String>) -> Diff<R> {
        for row in &diff.standing {
            self.stands(false, row.object(names));
        }
        diff
    }
}

/// The gateway of each block, with the block's prefix, and the listeners' addresses; these alone on somebody else's bridge.
fn own_addresses(segment: &Segment) -> impl Iterator<Item = IpNetwork> {
    let blocks: &[_] = if segment.adopted {
        &[]
    } else {
        &segment.blocks
    };
    let gateways = blocks
        .iter()
        .filter_map(|block| IpNetwork::new(gateway(*block), block.prefix()).ok());
    let link_local = IpNetwork::new(BRIDGE_LINK_LOCAL.into(), 64).ok();
    let link_local = link_local.filter(|_| blocks.iter().any(IpNetwork::is_ipv6));
    gateways.chain(link_local).chain(
        segment
            .local_addresses
            .iter()
            .map(|address| IpNetwork::from(IpAddr::V4(*address))),
    )
}

/// One route per peer's block, and with VXLAN one neighbour for it, and one forwarding row per peer.
#[derive(Default)]
struct Wanted {
    routes: HashSet<Route>,
    neighbours: HashSet<Neighbour>,
    fdb: HashSet<FdbRow>,
}

impl Wanted {
    fn new(segments: &[Segment], links: &Links) -> Self {
        let mut wanted = Self::default();
        for segment in segments {
            let Some(vxlan) = &segment.vxlan else {
                continue;
            };
            let Some(link) = links.get(&vxlan.link).filter(|link| link.ours) else {
                continue;
            };
            let link = link.index;
            for peer in &segment.peers {
                let is_v6 = peer.block.is_ipv6();
                let mut blocks = segment.blocks.iter();
                // Without a block of the family the links do not carry it (yet).
                let Some(own) = blocks.find(|block| block.is_ipv6() == is_v6) else {
                    continue;
                };
                let gateway = peer.next_hop();
                let destination = IpNetwork::new(peer.block.network(), peer.block.prefix());
                let way = links.get(vxlan.link_to(peer.vtep).0);
                if let (Ok(destination), Some(way)) = (destination, way.filter(|way| way.ours)) {
                    wanted.routes.insert(Route {
                        destination,
                        gateway: Some(gateway),
                        source: Some(crate::gateway(*own)),
                        link: way.index,
                        mtu: peer.mtu.map(u32::from),
                    });
                }
                if vxlan.carrier == Carrier::Sealed {
                    continue; // by the destination alone its server knows the peer
                }
                wanted.neighbours.insert(Neighbour {
                    link,
                    address: gateway,
                    mac: peer.mac,
                });
                wanted.fdb.insert(FdbRow {
                    link,
                    mac: peer.mac,
                    vtep: peer.vtep,
                });
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(last: u8, mac: u8) -> Neighbour {
        Neighbour {
            link: 7,
            address: [10, 0, 0, last].into(),
            mac: MacAddr([2, 0, 0, 0, 0, mac]),
        }
    }

    #[test]
    fn replaces_what_differs_and_deletes_what_is_extra() {
        let wanted = HashSet::from([row(1, 1), row(2, 2), row(3, 3)]);
        let diff = diff(&wanted, &[row(1, 1), row(2, 9), row(4, 4)]);
        assert_eq!(diff.standing, [row(1, 1)]);
        assert_eq!(
            HashSet::from_iter(diff.missing),
            HashSet::from([(row(2, 2), true), (row(3, 3), false)])
        );
        assert_eq!(diff.stale, [row(4, 4)]);
    }

    #[test]
    fn deletes_a_second_row_of_a_key_that_stands() {
        let diff = diff(&HashSet::from([row(1, 1)]), &[row(1, 1), row(1, 2)]);
        assert!(diff.missing.is_empty());
        assert_eq!(diff.stale, [row(1, 2)]);
    }
}
