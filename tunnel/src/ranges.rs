//! Which of many blocks has an address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Disjoint ranges of addresses, each with what it stands for.
#[derive(Debug)]
pub(crate) struct Ranges<T>(Vec<Range<T>>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[derive(Debug)]
struct Range<T> {
    first: u128,
    last: u128,
    of: T,
}

impl<T: Copy> Ranges<T> {
    /// Of blocks that overlap, which those of networks never do, the first given counts.
    pub(crate) fn new(blocks: impl IntoIterator<Item = (IpNetwork, T)>) -> Self {
        let ranges = blocks.into_iter().map(|(block, of)| Range {
            first: number(block.network()),
            last: number(block.broadcast()),
            of,
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|range| range.first);
        ranges.dedup_by(|later, earlier| later.first <= earlier.last);
        Self(ranges)
    }

    pub(crate) fn find(&self, address: IpAddr) -> Option<T> {
        let address = number(address);
        let after = self.0.partition_point(|range| range.first <= address);
        let range = self.0.get(after.checked_sub(1)?)?;
        (address <= range.last).then_some(range.of)
    }
}

/// IPv4 lies where RFC 4291 maps it to, where no IPv6 packet comes from.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Source and destination of an IP packet, if it is whole up to there.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((source.into(), destination.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_whose_block_it_is() {
        let blocks = ["10.1.2.0/24", "10.1.1.0/24", "fd00:1::/64", "10.1.4.0/22"];
        let blocks = blocks.iter().enumerate();
        let ranges = Ranges::new(blocks.map(|(at, block)| (block.parse().unwrap(), at)));
        let find = |address: &str| ranges.find(address.parse().unwrap());
        assert_eq!(find("10.1.1.0"), Some(1));
        assert_eq!(find("10.1.2.255"), Some(0));
        assert_eq!(find("10.1.3.1"), None);
        assert_eq!(find("10.1.7.9"), Some(3));
        assert_eq!(find("10.1.0.255"), None);
        assert_eq!(find("fd00:1::7"), Some(2));
        assert_eq!(find("fd00:1:0:1::"), None);
    }

    proptest! {
        #[test]
        fn finds_what_a_search_of_all_finds(bits in prop::collection::btree_set(0u32..64, 0..20), asked: u32) {
            let blocks: Vec<IpNetwork> = bits
                .into_iter()
                .map(|bits| IpNetwork::new(std::net::Ipv4Addr::from(bits << 26).into(), 7).unwrap())
                .map(|block| IpNetwork::new(block.network(), 7).unwrap())
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from(asked));
            let ranges = Ranges::new(blocks.iter().map(|block| (*block, *block)));
            prop_assert_eq!(ranges.find(address), blocks.iter().find(|block| block.contains(address)).copied());
        }

        #[test]
        fn whatever_a_packet_is_it_is_read(packet in prop::collection::vec(any::<u8>(), 0..64)) {
            addresses(&packet);
        }
    }
}
