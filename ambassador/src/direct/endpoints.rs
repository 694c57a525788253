//! What a service's endpoints are, from one set to the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::error::SetError;
use super::service::{ServiceKey, check};

/// The programs search this many in their steps.
pub(super) const MOST: usize = 4096;

/// An endpoint of one service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    /// Its name for as long as it stays. One that leaves and comes back has another.
    pub(super) id: u64,
    pub(super) address: SocketAddr,
    /// With 0 it is not chosen any more, but sockets that send to it already go on.
    pub(super) weight: u16,
}

/// The set that follows `before`, in ascending order of numbers; `next` is the first free one.
/// Addresses that are given twice have both weights.
pub(super) fn follow(
    service: &ServiceKey,
    before: &[Endpoint],
    endpoints: &[(SocketAddr, u16)],
    next: &mut u64,
) -> Result<Vec<Endpoint>, SetError> {
    let mut weights: BTreeMap<SocketAddr, u16> = BTreeMap::new();
    for &(endpoint, weight) in endpoints {
        let service = *service;
        let ip = check(endpoint).map_err(|source| SetError::Endpoint { service, source })?;
        if !service.speaks_to(endpoint) {
            return Err(SetError::Family { service, endpoint });
        }
        let sum = weights.entry((ip, endpoint.port()).into()).or_default();
        *sum = sum.saturating_add(weight);
    }
    if weights.len() > MOST {
        return Err(SetError::TooMany {
            service: *service,
            found: weights.len(),
            most: MOST,
        });
    }
    let mut after: Vec<_> = (before.iter())
        .filter_map(|known| {
            let weight = weights.remove(&known.address)?;
            Some(Endpoint { weight, ..*known })
        })
        .collect();
    for (address, weight) in weights {
        let id = *next;
        *next += 1;
        after.push(Endpoint {
            id,
            address,
            weight,
        });
    }
    Ok(after)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;
    use crate::Protocol;

    fn service() -> ServiceKey {
        ServiceKey::new(Protocol::Tcp, "192.0.2.1:80".parse().unwrap()).unwrap()
    }

    fn at(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 80).into()
    }

    #[test]
    fn who_stays_keeps_the_number_and_who_comes_back_does_not() {
        let mut next = 1;
        let both = [(at(2), 1), (at(3), 1)];
        let first = follow(&service(), &[], &both, &mut next).unwrap();
        let second = follow(&service(), &first, &[(at(3), 5)], &mut next).unwrap();
        assert_eq!(
            second,
            [Endpoint {
                weight: 5,
                ..first[1]
            }]
        );
        let third = follow(&service(), &second, &both, &mut next).unwrap();
        assert_eq!(third.iter().map(|e| e.id).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_named() {
        let set =
            |endpoint: &str| follow(&service(), &[], &[(endpoint.parse().unwrap(), 1)], &mut 1);
        assert!(matches!(
            set("[2001:db8::1]:80"),
            Err(SetError::Family { .. })
        ));
        assert!(matches!(set("192.0.2.1:0"), Err(SetError::Endpoint { .. })));
        let mapped = set("[::ffff:192.0.2.9]:80").unwrap();
        assert_eq!(mapped[0].address, at(9));
        let many: Vec<_> = (0..=u16::try_from(MOST).unwrap())
            .map(|n| (SocketAddr::from(([10, 0, 0, 1], n + 1)), 1))
            .collect();
        let found = follow(&service(), &[], &many, &mut 1);
        assert!(matches!(found, Err(SetError::TooMany { .. })));
    }

    proptest! {
        #[test]
        fn numbers_ascend_and_are_never_given_twice(
            sets in prop::collection::vec(prop::collection::vec((2_u8..20, 0_u16..4), 0..12), 1..20)
        ) {
            let (mut next, mut before) = (1, Vec::new());
            for set in sets {
                let wanted: Vec<_> = set.iter().map(|(host, weight)| (at(*host), *weight)).collect();
                let first_new = next;
                let after = follow(&service(), &before, &wanted, &mut next).unwrap();
                prop_assert!(after.is_sorted_by(|a, b| a.id < b.id));
                for endpoint in &after {
                    let known = before.iter().find(|known: &&Endpoint| known.address == endpoint.address);
                    prop_assert!(known.map_or(endpoint.id >= first_new, |known| known.id == endpoint.id));
                    let weight: u16 = wanted.iter().filter(|w| w.0 == endpoint.address).map(|w| w.1).sum();
                    prop_assert_eq!(endpoint.weight, weight);
                }
                prop_assert!(wanted.iter().all(|w| after.iter().any(|e| e.address == w.0)));
                before = after;
            }
        }
    }
}
