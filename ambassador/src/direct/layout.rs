//! The maps' keys and values, byte by byte, as `bpf/rewrite.bpf.c` declares them.

use std::net::{IpAddr, SocketAddr};

use super::endpoints::Endpoint;
use super::service::{Scope, ServiceKey};
use crate::Protocol;

/// `struct service`.
pub(super) type Key = [u8; 32];
/// `struct header`, and `struct slot`.
pub(super) type Element = [u8; 40];

const EMPTY: Element = [0; 40];

/// Index 0 holds the header, the others an endpoint each.
pub(super) const FIRST_SLOT: u32 = 1;

const COUNT: usize = 32;
const TOTAL: usize = 36;
const UPTO: usize = 28;
const CHOSEN: usize = 32;

pub(super) fn key(scope: Scope, service: &ServiceKey) -> Key {
    let protocol: u16 = match service.protocol() {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&scope.number().to_ne_bytes());
    put_address(&mut key[8..26], service.address());
    key[26..28].copy_from_slice(&protocol.to_ne_bytes());
    key
}

/// A set, ready to be chosen from. `endpoints` are in ascending order of their numbers, and so few
/// that their weights' sum is a `u32`.
pub(super) fn set(scope: Scope, service: &ServiceKey, endpoints: &[Endpoint]) -> Vec<Element> {
    let mut elements = vec![EMPTY];
    let mut upto = 0_u32;
    for endpoint in endpoints {
        upto = upto.saturating_add(endpoint.weight.into());
        let mut slot = EMPTY;
        slot[..8].copy_from_slice(&endpoint.id.to_ne_bytes());
        put_address(&mut slot[8..26], endpoint.address);
        slot[UPTO..UPTO + 4].copy_from_slice(&upto.to_ne_bytes());
        elements.push(slot);
    }
    let count = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
    let header = &mut elements[0];
    header[..32].copy_from_slice(&key(scope, service));
    header[COUNT..COUNT + 4].copy_from_slice(&count.to_ne_bytes());
    header[TOTAL..TOTAL + 4].copy_from_slice(&upto.to_ne_bytes());
    elements
}

/// How often a slot was chosen.
pub(super) fn chosen(slot: &Element) -> u64 {
    let bytes = slot[CHOSEN..].try_into().expect("eight bytes are left");
    u64::from_ne_bytes(bytes)
}

/// Address and port in network order.
fn put_address(to: &mut [u8], address: SocketAddr) {
    let octets = match address.ip() {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    };
    to[..16].copy_from_slice(&octets);
    to[16..].copy_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn keys_are_what_the_programs_look_for() {
        let service = ServiceKey::new(Protocol::Udp, "192.0.2.1:53".parse().unwrap()).unwrap();
        let key = key(Scope::new(7).unwrap(), &service);
        assert_eq!(key[..8], 7_u64.to_ne_bytes());
        assert_eq!(
            key[8..26],
            [
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0, 53
            ]
        );
        assert_eq!(key[26..28], 17_u16.to_ne_bytes());
        assert_eq!(key[28..], [0; 4]);
    }

    #[test]
    fn a_set_sums_its_weights() {
        let service = ServiceKey::new(Protocol::Tcp, "192.0.2.1:80".parse().unwrap()).unwrap();
        let scope = Scope::new(1).unwrap();
        let endpoint = |id, weight| Endpoint {
            id,
            address: "192.0.2.2:81".parse().unwrap(),
            weight,
        };
        let set = set(
            scope,
            &service,
            &[endpoint(3, 2), endpoint(4, 0), endpoint(9, 5)],
        );
        assert_eq!(set[0][..32], key(scope, &service));
        assert_eq!(
            set[0][COUNT..],
            [3_u32.to_ne_bytes(), 7_u32.to_ne_bytes()].concat()
        );
        let upto = |slot: &Element| u32::from_ne_bytes(slot[UPTO..UPTO + 4].try_into().unwrap());
        assert_eq!(set[1..].iter().map(upto).collect::<Vec<_>>(), [2, 2, 7]);
        assert_eq!(set[3][..8], 9_u64.to_ne_bytes());
        assert_eq!(chosen(&set[1]), 0);
    }
}
