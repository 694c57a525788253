//! Choosing subnets and blocks: arithmetic on prefixes, without I/O.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// A subnet too small to be shared by two hosts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("subnet {0} is too small to share among hosts, /28 is the smallest")]
pub struct SubnetTooSmall(pub Ipv4Network);

/// Prefix length of the blocks that hosts take of `subnet`.
///
/// A /24 of everything from /20 up; of a smaller one a sixteenth, but never less than a /29, the least
/// that holds a gateway and a few containers. So a subnet has at least sixteen blocks down to /25.
///
/// # Errors
///
/// [`SubnetTooSmall`] below /28, which has no two blocks.
pub fn block_prefix(subnet: Ipv4Network) -> Result<u8, SubnetTooSmall> {
    match subnet.prefix() {
        0..=20 => Ok(24),
        prefix @ 21..=28 => Ok((prefix + 4).min(29)),
        _ => Err(SubnetTooSmall(subnet)),
    }
}

/// Splits `of` into subnets of `prefix`, lowest first; none if `prefix` is the shorter one.
pub(crate) fn split(of: Ipv4Network, prefix: u8) -> impl Iterator<Item = Ipv4Network> {
    let step = 1_u64 << (32 - u32::from(prefix.min(32)));
    let first = u64::from(u32::from(of.network()));
    let end = first + (1_u64 << (32 - u32::from(of.prefix())));
    let fits = prefix <= 32 && prefix >= of.prefix();
    let starts = (first..if fits { end } else { first })
        .step_by(usize::try_from(step).unwrap_or(usize::MAX));
    starts.filter_map(move |start| {
        let address = Ipv4Addr::from(u32::try_from(start).ok()?);
        Ipv4Network::new(address, prefix).ok()
    })
}

/// The first subnet of a pool that overlaps none of `taken`, the pools in their order.
pub(crate) fn first_free(
    pools: &[(Ipv4Network, u8)],
    taken: &[Ipv4Network],
) -> Option<Ipv4Network> {
    pools
        .iter()
        .flat_map(|&(pool, prefix)| split(pool, prefix))
        .find(|&candidate| overlapping(candidate, taken).is_none())
}

/// The first of `others` that has an address in common with `subnet`.
pub(crate) fn overlapping(subnet: Ipv4Network, others: &[Ipv4Network]) -> Option<Ipv4Network> {
    others.iter().copied().find(|&other| subnet.overlaps(other))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv4Network {
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
        ] {
            assert_eq!(block_prefix(net(subnet)), Ok(block), "{subnet}");
        }
        let small = net("10.0.0.0/29");
        assert_eq!(block_prefix(small), Err(SubnetTooSmall(small)));
    }

    #[test]
    fn splits_the_whole_space_and_single_addresses() {
        assert_eq!(split(net("0.0.0.0/0"), 1).count(), 2);
        assert_eq!(split(net("255.255.255.254/31"), 32).count(), 2);
        assert_eq!(split(net("10.0.0.0/24"), 16).count(), 0);
        assert_eq!(split(net("10.0.0.0/24"), 33).count(), 0);
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
            let whole = Ipv4Network::new(bits.into(), prefix).unwrap();
            let part = (prefix + extra).min(32);
            let parts: Vec<_> = split(whole, part).collect();
            prop_assert_eq!(parts.len(), 1 << (part - prefix));
            prop_assert_eq!(parts[0].network(), whole.network());
            prop_assert_eq!(parts[parts.len() - 1].broadcast(), whole.broadcast());
            prop_assert!(parts.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
        }
    }
}
