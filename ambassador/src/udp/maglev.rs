//! Consistent hashing after Eisenbud et al., "Maglev" (NSDI 2016), section 3.4: who holds the same
//! set makes the same choices, and a change of the set moves few others.

use std::net::SocketAddr;

/// A lookup table over endpoints with weights.
///
/// Its size is a prime. The larger it is, the more evenly it is parted and the fewer clients move
/// that need not, and the longer it takes to make. So there are two, and the number of endpoints
/// decides between them, or ambassadors with different pasts would differ: up to [`FEW`] endpoints
/// 4 KiB entries do, and are made in some tens of microseconds; beyond it there are 64 Ki of them,
/// 128 KiB and about a millisecond. A set that grows over the bound, or shrinks below it, moves
/// nearly all clients once; sets that large are rare, and this is the price of small tables for all
/// others.
#[derive(Clone, Debug)]
pub(crate) struct Maglev {
    /// Indices into the list the table was made from.
    table: Vec<u16>,
}

/// The shares are within about one percent, as the table has a hundred entries for each.
const FEW: usize = 40;
const SMALL: usize = 4_099;
const LARGE: usize = 65_537;

impl Maglev {
    /// A table over `endpoints`, the same for every order of them. An endpoint's share is its
    /// weight's part of all; weight 0 gets none, unless all have it. Of more than 65,535 endpoints
    /// the rest gets none.
    pub(crate) fn new(endpoints: &[(SocketAddr, u32)]) -> Self {
        let equal = endpoints.iter().all(|(_, weight)| *weight == 0);
        let weight = |weight: u32| if equal { 1 } else { weight };
        let mut walks: Vec<Walk> = (endpoints.iter().zip(0..u16::MAX))
            .filter(|((_, w), _)| weight(*w) > 0)
            .map(|(&(address, w), index)| Walk::new(address, weight(w), index))
            .collect();
        walks.sort_unstable_by_key(|walk| walk.address);
        let size = if walks.len() <= FEW { SMALL } else { LARGE };
        for walk in &mut walks {
            walk.begin(size);
        }
        Self {
            table: fill(&mut walks, size),
        }
    }

    /// Which endpoint of the list that the table was made from gets a client with this hash; none
    /// if the list was empty.
    pub(crate) fn choose(&self, hash: u64) -> Option<usize> {
        let at = hash.checked_rem(self.table.len() as u64)?;
        Some(self.table[usize::try_from(at).ok()?].into())
    }
}

/// An endpoint's way through the table, in the order in which it wants the entries.
struct Walk {
    address: SocketAddr,
    index: u16,
    weight: u64,
    /// What it has not been given yet of its share, in parts of the greatest weight.
    credit: u64,
    next: usize,
    skip: usize,
}

impl Walk {
    fn new(address: SocketAddr, weight: u32, index: u16) -> Self {
        Self {
            address,
            index,
            weight: weight.into(),
            credit: 0,
            next: 0,
            skip: 0,
        }
    }

    fn begin(&mut self, size: usize) {
        let size = size as u64;
        let hash = hash(self.address);
        // Any skip is prime to the size, so that the walk comes everywhere.
        let (next, skip) = (hash % size, mix(hash) % (size - 1) + 1);
        (self.next, self.skip) = (next as usize, skip as usize);
    }
}

fn fill(walks: &mut [Walk], size: usize) -> Vec<u16> {
    let Some(greatest) = walks.iter().map(|walk| walk.weight).max() else {
        return Vec::new();
    };
    const FREE: u16 = u16::MAX;
    let mut table = vec![FREE; size];
    let mut free = size;
    // Each round the heaviest take one entry, and others as often as their weight says.
    loop {
        for walk in &mut *walks {
            walk.credit += walk.weight;
            if walk.credit < greatest {
                continue;
            }
            walk.credit -= greatest;
            while table[walk.next] != FREE {
                walk.next = (walk.next + walk.skip) % size;
            }
            table[walk.next] = walk.index;
            free -= 1;
            if free == 0 {
                return table;
            }
        }
    }
}

/// A hash of address and port that is the same in every process and release: FNV-1a for the bytes,
/// then mixed, since FNV alone hardly spreads neighbours. IPv4 and mapped addresses are alike.
pub(crate) fn hash(address: SocketAddr) -> u64 {
    let ip = match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    let bytes = ip.octets().into_iter().chain(address.port().to_be_bytes());
    let fnv = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// The next of a hash's followers, as SplitMix64 makes them: for another attempt.
pub(crate) fn mix(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    type Set = Vec<(SocketAddr, u32)>;

    fn set(most: usize) -> impl Strategy<Value = Set> {
        let address = (any::<[u8; 4]>(), 1_u16..).prop_map(SocketAddr::from);
        prop::collection::btree_set(address, 2..=most)
            .prop_map(|set| set.into_iter().map(|address| (address, 1)).collect())
    }

    fn counts(set: &Set) -> HashMap<SocketAddr, usize> {
        let mut counts = HashMap::new();
        for index in Maglev::new(set).table {
            *counts.entry(set[usize::from(index)].0).or_insert(0) += 1;
        }
        counts
    }

    /// The endpoints by entry, which do not depend on the order of the list.
    fn addresses(set: &Set) -> Vec<SocketAddr> {
        let index = Maglev::new(set).table.into_iter();
        index.map(|index| set[usize::from(index)].0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn shares_are_equal(set in set(60)) {
            let counts = counts(&set);
            prop_assert_eq!(counts.len(), set.len());
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            // Each round gives one to each.
            prop_assert!(most - least <= 1, "{least} to {most}");
        }

        #[test]
        fn shares_follow_weights(mut set in set(8), weights: [u8; 8]) {
            for (endpoint, weight) in set.iter_mut().zip(weights) {
                endpoint.1 = u32::from(weight % 10);
            }
            let total: u32 = set.iter().map(|(_, weight)| weight).sum();
            prop_assume!(total > 0);
            let counts = counts(&set);
            for (address, weight) in &set {
                let share = *counts.get(address).unwrap_or(&0) as f64 / SMALL as f64;
                let wanted = f64::from(*weight) / f64::from(total);
                prop_assert!((share - wanted).abs() < 0.01, "{share} for {wanted}");
                prop_assert!(*weight > 0 || share == 0.0);
            }
        }

        #[test]
        fn the_order_of_the_list_is_nothing(set in set(50), by in 1_usize..50) {
            let mut other = set.clone();
            other.rotate_left(by % set.len());
            other.reverse();
            prop_assert_eq!(addresses(&set), addresses(&other));
        }

        #[test]
        fn one_that_leaves_moves_few_others(set in set(FEW), gone: prop::sample::Index) {
            let before = addresses(&set);
            let mut rest = set.clone();
            let (gone, _) = rest.remove(gone.index(set.len()));
            let after = addresses(&rest);
            let moved = before.iter().zip(&after).filter(|(b, a)| **b != gone && a != b);
            let moved = moved.count() as f64 / SMALL as f64;
            // By modulo it would be nearly all. The paper's figure 12 has a few percent.
            prop_assert!(moved < 0.25, "{moved} have moved, of {}", set.len());
        }

        #[test]
        fn clients_spread(first: [u8; 4], set in set(8)) {
            let maglev = Maglev::new(&set);
            let mut counts = vec![0_u32; set.len()];
            // One address, all its ports: the hardest to spread.
            for port in 1_024..=65_535 {
                counts[maglev.choose(hash((first, port).into())).unwrap()] += 1;
            }
            let share = 64_512.0 / set.len() as f64;
            for count in counts {
                prop_assert!((f64::from(count) / share - 1.0).abs() < 0.1, "{count} for {share}");
            }
        }
    }

    #[test]
    fn a_change_moves_a_few_percent_on_average() {
        let set: Set = (1..=20_u8)
            .map(|n| (([10, 0, 0, n], 80).into(), 1))
            .collect();
        let before = addresses(&set);
        let moved = (0..set.len()).map(|gone| {
            let mut rest = set.clone();
            let (gone, _) = rest.remove(gone);
            let pairs = before.iter().zip(addresses(&rest));
            pairs.filter(|&(&b, a)| b != gone && a != b).count()
        });
        let mean = moved.sum::<usize>() as f64 / (set.len() * SMALL) as f64;
        assert!(mean < 0.06, "{mean}");
    }

    #[test]
    fn there_may_be_none_or_one() {
        assert_eq!(Maglev::new(&[]).choose(7), None);
        let one = [(([10, 0, 0, 1], 80).into(), 0)];
        let maglev = Maglev::new(&one);
        let chosen: BTreeSet<_> = (0..5_000).map(|hash| maglev.choose(hash)).collect();
        assert_eq!(chosen, BTreeSet::from([Some(0)]));
    }

    /// Other releases must choose alike, or an upgrade moves every client.
    #[test]
    fn the_choice_is_the_same_for_ever() {
        assert_eq!(
            hash("192.0.2.1:53".parse().unwrap()),
            hash("[::ffff:192.0.2.1]:53".parse().unwrap())
        );
        let set: Set = (1..=5_u8)
            .map(|n| (([10, 0, 0, n], 80).into(), 1))
            .collect();
        let maglev = Maglev::new(&set);
        let client = |port: u16| hash(([192, 0, 2, 1], port).into());
        let chosen: Vec<_> = (1_000..1_012)
            .filter_map(|port| maglev.choose(client(port)))
            .collect();
        assert_eq!(chosen, [2, 3, 0, 1, 1, 0, 1, 2, 4, 1, 3, 3]);
    }
}
