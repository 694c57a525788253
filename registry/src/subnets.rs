//! Choosing subnets and blocks: arithmetic on prefixes, without I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// A subnet too small to be shared by two hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("subnet {0} is too small to share among hosts, /{least} is the smallest", least = if .0.is_ipv6() { SMALLEST_V6 } else { SMALLEST })]
pub struct SubnetTooSmall(pub IpNetwork);

/// Prefix length of the smallest subnet that two hosts can share.
const SMALLEST: u8 = 28;
/// The same of IPv6.
const SMALLEST_V6: u8 = 120;

/// Prefix length of the blocks that hosts take of `subnet`.
///
/// A /24 of everything from /20 up; of a smaller one a sixteenth, but never less than a /29, the least
/// that holds a gateway and a few containers. So a subnet has at least sixteen blocks down to /25.
/// Of IPv6 one of 65536 parts, as a /80 of a /64, but never less than a /124.
///
/// # Errors
///
/// [`SubnetTooSmall`] below /28, which has no two blocks, and below /120.
pub fn block_prefix(subnet: IpNetwork) -> Result<u8, SubnetTooSmall> {
    match (subnet, subnet.prefix()) {
        (IpNetwork::V4(_), 0..=20) => Ok(24),
        (IpNetwork::V4(_), prefix @ 21..=SMALLEST) => Ok((prefix + 4).min(29)),
        (IpNetwork::V6(_), prefix @ 0..=SMALLEST_V6) => Ok((prefix + 16).min(124)),
        _ => Err(SubnetTooSmall(subnet)),
    }
}

/// Splits `of` into subnets of `prefix`, lowest first; none if `prefix` is the shorter one.
pub(crate) fn split(of: IpNetwork, prefix: u8) -> impl Iterator<Item = IpNetwork> {
    let (first, width) = match of {
        IpNetwork::V4(of) => (u32::from(of.network()).into(), 32),
        IpNetwork::V6(of) => (u128::from(of.network()), 128),
    };
    let fits = (of.prefix()..=width).contains(&prefix);
    let more = prefix.saturating_sub(of.prefix()).min(127); // 2^127 of them are more than anybody counts
    let count = if fits { 1_u128 << more } else { 0 };
    let shift = u32::from(width.saturating_sub(prefix));
    (0..count).filter_map(move |index| {
        let start = first + (index << shift);
        let address: IpAddr = match of {
            IpNetwork::V4(_) => Ipv4Addr::from(u32::try_from(start).ok()?).into(),
            IpNetwork::V6(_) => Ipv6Addr::from(start).into(),
        };
        IpNetwork::new(address, prefix).ok()
    })
}

/// The first subnet of a pool, with the prefix that is said with it, that overlaps none of `taken`, the pools in their
/// order.
#[must_use]
pub fn first_free(pools: &[(IpNetwork, u8)], taken: &[IpNetwork]) -> Option<IpNetwork> {
    pools
        .iter()
        .flat_map(|&(pool, prefix)| split(pool, prefix))
        .find(|&candidate| overlapping(candidate, taken).is_none())
}

/// The first of `others` that has an address in common with `subnet`.
#[must_use]
pub fn overlapping(subnet: IpNetwork, others: &[IpNetwork]) -> Option<IpNetwork> {
    let mut others = others.iter().copied();
    others.find(|other| match (subnet, *other) {
        (IpNetwork::V4(subnet), IpNetwork::V4(other)) => subnet.overlaps(other),
        (IpNetwork::V6(subnet), IpNetwork::V6(other)) => subnet.overlaps(other),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn block_sizes() {
        for (subnet, block) in [
            ("10.0.0.0/8", 24),
            ("172.17.0.0/16", 24),
            ("10.0.0.0/20", 24),
            ("10.0.0.0/21", 25),
            ("10.0.0.0/24", 28),
            ("10.0.0.0/25", 29),
            ("10.0.0.0/28", 29),
            ("fd00::/48", 64),
            ("fd00::/64", 80),
            ("fd00::/110", 124),
            ("fd00::/120", 124),
        ] {
            assert_eq!(block_prefix(net(subnet)), Ok(block), "{subnet}");
        }
        for (small, least) in [("10.0.0.0/29", "/28"), ("fd00::/121", "/120")] {
            let error = block_prefix(net(small)).unwrap_err();
            assert_eq!(error, SubnetTooSmall(net(small)));
            assert!(error.to_string().contains(least), "{error}");
        }
    }

    #[test]
    fn splits_the_whole_space_and_single_addresses() {
        assert_eq!(split(net("0.0.0.0/0"), 1).count(), 2);
        assert_eq!(split(net("255.255.255.254/31"), 32).count(), 2);
        assert_eq!(split(net("10.0.0.0/24"), 16).count(), 0);
        assert_eq!(split(net("10.0.0.0/24"), 33).count(), 0);
        assert_eq!(split(net("::/0"), 1).count(), 2);
        assert_eq!(split(net("::/0"), 128).take(3).count(), 3);
        assert_eq!(split(net("fd00::/64"), 129).count(), 0);
        let blocks: Vec<_> = split(net("fd00::/64"), 80).take(2).collect();
        assert_eq!(blocks, [net("fd00::/80"), net("fd00:0:0:0:1::/80")]);
    }

    #[test]
    fn the_next_pool_is_used_when_one_is_full() {
        let pools = [(net("172.17.0.0/16"), 16), (net("10.0.0.0/8"), 16)];
        let taken = [net("172.16.0.0/12"), net("10.0.0.0/24")];
        assert_eq!(first_free(&pools, &taken), Some(net("10.1.0.0/16")));
        assert_eq!(first_free(&pools[..1], &taken), None);
    }

    proptest! {
        #[test]
        fn parts_tile_their_whole(bits: u32, prefix in 8u8..=28, extra in 0u8..=6) {
            let whole = IpNetwork::new(Ipv4Addr::from(bits).into(), prefix).unwrap();
            let part = (prefix + extra).min(32);
            let parts: Vec<_> = split(whole, part).collect();
            prop_assert_eq!(parts.len(), 1 << (part - prefix));
            prop_assert_eq!(parts[0].network(), whole.network());
            prop_assert_eq!(parts[parts.len() - 1].broadcast(), whole.broadcast());
            prop_assert!(parts.windows(2).all(|pair| overlapping(pair[0], &pair[1..]).is_none()));
        }

        #[test]
        fn so_do_those_of_ipv6(bits: u128, prefix in 8u8..=124, extra in 0u8..=6) {
            let whole = IpNetwork::new(Ipv6Addr::from(bits).into(), prefix).unwrap();
            let part = (prefix + extra).min(128);
            let parts: Vec<_> = split(whole, part).collect();
            prop_assert_eq!(parts.len(), 1 << (part - prefix));
            prop_assert_eq!(parts[0].network(), whole.network());
            prop_assert_eq!(parts[parts.len() - 1].broadcast(), whole.broadcast());
            prop_assert!(parts.windows(2).all(|pair| overlapping(pair[0], &pair[1..]).is_none()));
        }
    }
}
