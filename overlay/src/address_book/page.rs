use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::AllocateError;
use crate::gateway;

/// Addresses that are tried before one is used again: those of an IPv6 block would never end, and what was ever
/// freed is written down with each change.
const FRESH: usize = 512;

/// One network's addresses.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) held: BTreeMap<IpAddr, String>,
    /// The longest free first.
    pub(super) freed: VecDeque<IpAddr>,
}

impl Page {
    pub(super) fn free(&mut self, address: IpAddr) {
        if self.held.remove(&address).is_some() {
            self.freed.push_back(address);
        }
        // Whoever asks for many addresses of IPv6 by name could fill the book with them.
        let mut v6 = self.freed.iter().filter(|address| address.is_ipv6());
        if let (true, Some(first)) = (v6.clone().count() > FRESH, v6.next().copied()) {
            self.freed.retain(|freed| *freed != first);
        }
    }

    /// How many addresses of a family are held.
    pub(super) fn held_of(&self, is_v6: bool) -> usize {
        let held = self.held.keys();
        held.filter(|address| address.is_ipv6() == is_v6).count()
    }

    pub(super) fn choose(&self, blocks: &[IpNetwork], is_v6: bool) -> Option<IpAddr> {
        let used: BTreeSet<_> = self.held.keys().chain(&self.freed).copied().collect();
        let most = match is_v6 {
            true => FRESH + self.held_of(true),
            false => usize::MAX,
        };
        let fresh = blocks
            .iter()
            .flat_map(|block| addresses(*block).take(most))
            .find(|address| is_usable(blocks, *address) && !used.contains(address));
        fresh.or_else(|| {
            self.freed
                .iter()
                .copied()
                .find(|address| is_usable(blocks, *address))
        })
    }

    pub(super) fn check(
        &self,
        network: &str,
        blocks: &[IpNetwork],
        address: IpAddr,
    ) -> Result<IpAddr, AllocateError> {
        let network = network.to_owned();
        if !blocks.iter().any(|block| block.contains(address)) {
            return Err(AllocateError::NotHere {
                network,
                address,
                blocks: blocks.to_vec(),
            });
        }
        if !is_usable(blocks, address) {
            return Err(AllocateError::Reserved { network, address });
        }
        match self.held.get(&address) {
            Some(owner) => Err(AllocateError::Taken {
                network,
                address,
                owner: owner.clone(),
            }),
            None => Ok(address),
        }
    }
}

/// Whether a container may have it. The first address of an IPv6 block is every router's (RFC 4291 §2.6.1), and the
/// last is like any other.
pub(super) fn is_usable(blocks: &[IpNetwork], address: IpAddr) -> bool {
    let reserves = |block: &IpNetwork| {
        [block.network(), gateway(*block)].contains(&address)
            || block.is_ipv4() && block.broadcast() == address
    };
    blocks.iter().any(|block| block.contains(address)) && !blocks.iter().any(reserves)
}

/// All addresses of a block, lowest first.
fn addresses(block: IpNetwork) -> Box<dyn Iterator<Item = IpAddr>> {
    match block {
        IpNetwork::V4(block) => {
            let all = u32::from(block.network())..=u32::from(block.broadcast());
            Box::new(all.map(|bits| Ipv4Addr::from(bits).into()))
        }
        IpNetwork::V6(block) => {
            let all = u128::from(block.network())..=u128::from(block.broadcast());
            Box::new(all.map(|bits| Ipv6Addr::from(bits).into()))
        }
    }
}
