//! What a probe looks like on the wire, and its answer.

use std::net::{IpAddr, Ipv4Addr};

use super::PathTarget;

/// Flags of a VXLAN header that has an identifier (RFC 7348 §5).
const HAS_VNI: u8 = 0x08;
/// VXLAN (8) and Ethernet (14) headers.
const FRAMING: usize = 8 + 14;
pub(super) const IPV4_HEADER: usize = 20;
pub(super) const ICMP_HEADER: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const PROTOCOL_ICMP: u8 = 1;
pub(super) const PROTOCOL_UDP: u8 = 17;

/// Marks an answer as one to us, and not to another program's ping.
pub(super) type Cookie = [u8; 8];

/// Bytes of the smallest probe, outer headers included.
pub(super) fn least(vtep: IpAddr) -> u16 {
    let inner = FRAMING + IPV4_HEADER + ICMP_HEADER + size_of::<Cookie>();
    u16::try_from(inner).unwrap_or(u16::MAX) + outer(vtep)
}

/// The outer IP and UDP headers.
fn outer(vtep: IpAddr) -> u16 {
    if vtep.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

/// The payload of a UDP datagram of which the peer's kernel makes an echo request of ours to its gateway: such as our
/// own VXLAN device would send, and as long as makes the IP packet on the underlay `size` bytes, but no less than [`least`].
pub(super) fn request(target: &PathTarget, size: u16, sequence: u16, cookie: Cookie) -> Vec<u8> {
    let length = usize::from(size.max(least(target.vtep)) - outer(target.vtep));
    let mut packet = vec![0; length];
    let (framing, inner) = packet.split_at_mut(FRAMING);
    framing[0] = HAS_VNI;
    framing[4..7].copy_from_slice(&target.vni.value().to_be_bytes()[1..]);
    ethernet(&mut framing[8..], target);
    header(inner, target, PROTOCOL_ICMP);

    let icmp = &mut inner[IPV4_HEADER..];
    icmp[0] = ECHO_REQUEST;
    icmp[4..6].copy_from_slice(&cookie[..2]);
    icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
    icmp[ICMP_HEADER..ICMP_HEADER + cookie.len()].copy_from_slice(&cookie);
    let sum = checksum(icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Writes the Ethernet header of an IPv4 packet from this host's end of the tunnel to the peer's.
pub(super) fn ethernet(frame: &mut [u8], target: &PathTarget) {
    frame[..6].copy_from_slice(&target.mac.0);
    frame[6..12].copy_from_slice(&target.source_mac.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]); // IPv4
}

/// Writes the header of an IPv4 packet between the gateways, which is as long as `packet`.
pub(super) fn header(packet: &mut [u8], target: &PathTarget, protocol: u8) {
    let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
    let ip = &mut packet[..IPV4_HEADER];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&target.source.octets());
    ip[16..20].copy_from_slice(&target.gateway.octets());
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Who answered which of our probes, if this is an answer to one: an IPv4 packet as a raw socket gives it.
pub(super) fn answer(packet: &[u8], cookie: Cookie) -> Option<(Ipv4Addr, u16)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if packet[0] >> 4 != 4 || header < IPV4_HEADER {
        return None;
    }
    let icmp = packet.get(header..)?;
    let (kind, sequence) = (icmp.first()?, icmp.get(6..8)?);
    let echoed = icmp.get(ICMP_HEADER..ICMP_HEADER + cookie.len())?;
    if *kind != ECHO_REPLY || echoed != cookie {
        return None;
    }
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((from.into(), u16::from_be_bytes(sequence.try_into().ok()?)))
}

/// The Internet checksum (RFC 1071), of a field that is still zero.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    !sum_of_words(bytes)
}

/// The sum that the Internet checksum is the complement of.
pub(super) fn sum_of_words(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::*;
    use crate::{MacAddr, Vni};

    pub(in super::super) fn target(vtep: &str) -> PathTarget {
        PathTarget {
            vtep: vtep.parse().unwrap(),
            local: vtep.parse().unwrap(),
            port: 4789,
            vni: Vni::try_from(0x0001_0203).unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            gateway: Ipv4Addr::new(10, 1, 2, 1),
            source: Ipv4Addr::new(10, 1, 1, 1),
            most: 1500,
        }
    }

    #[test]
    fn a_probe_is_as_long_as_asked_and_its_checksums_hold() {
        for (vtep, headers) in [("192.0.2.2", 28), ("2001:db8::2", 48)] {
            for size in [least(vtep.parse().unwrap()), 577, 1500] {
                let packet = request(&target(vtep), size, 7, *b"12345678");
                assert_eq!(packet.len() + headers, usize::from(size));
                assert_eq!(packet[..8], [8, 0, 0, 0, 1, 2, 3, 0]);
                let inner = &packet[FRAMING..];
                assert_eq!(checksum(&inner[..IPV4_HEADER]), 0);
                assert_eq!(checksum(&inner[IPV4_HEADER..]), 0);
            }
        }
    }

    #[test]
    fn an_echo_of_it_is_known_again_and_nothing_else() {
        let packet = request(&target("192.0.2.2"), 100, 0xabcd, *b"12345678");
        let mut echo = packet[FRAMING..].to_vec();
        assert_eq!(answer(&echo, *b"12345678"), None, "a request");
        echo[IPV4_HEADER] = ECHO_REPLY;
        assert_eq!(
            answer(&echo, *b"12345678"),
            Some((Ipv4Addr::new(10, 1, 1, 1), 0xabcd))
        );
        assert_eq!(answer(&echo, *b"12345679"), None);
        assert_eq!(answer(&echo[..IPV4_HEADER + 10], *b"12345678"), None);
    }

    proptest! {
        #[test]
        fn any_packet_is_an_answer_or_not_but_never_panics(packet: Vec<u8>, cookie: Cookie) {
            let _ = answer(&packet, cookie);
        }
    }
}
