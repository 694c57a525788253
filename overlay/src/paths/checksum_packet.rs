//! What is sent to see whether checksums are computed on the way, and what is answered.

use std::net::Ipv4Addr;

use super::{
    CHECKSUM_PORT, PathTarget,
    packet::{
        Cookie, ICMP_HEADER, IPV4_HEADER, PROTOCOL_UDP, checksum, ethernet, header, sum_of_words,
    },
};

const UDP_HEADER: usize = 8;
/// Where UDP has its checksum.
const UDP_CHECKSUM: usize = 6;
const ETHERNET: usize = 14;
/// `struct virtio_net_hdr` (linux/virtio_net.h), and its flag for a checksum that is still to be computed.
const VIRTIO: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
/// The cookie, which kind of packet it is, and a number.
const PAYLOAD: usize = size_of::<Cookie>() + 2;

const UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 3;

/// A frame as the peer's own end of the tunnel would take it, behind what says whether its checksum is left to others.
pub(super) fn request(target: &PathTarget, left: bool, number: u8, cookie: Cookie) -> Vec<u8> {
    let mut packet = vec![0; VIRTIO + ETHERNET + IPV4_HEADER + UDP_HEADER + PAYLOAD];
    let (virtio, frame) = packet.split_at_mut(VIRTIO);
    let (ether, ip) = frame.split_at_mut(ETHERNET);
    ethernet(ether, target);
    header(ip, target, PROTOCOL_UDP);

    let udp = &mut ip[IPV4_HEADER..];
    let length = (UDP_HEADER + PAYLOAD) as u16;
    udp[..2].copy_from_slice(&CHECKSUM_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&CHECKSUM_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&length.to_be_bytes());
    let (said, payload) = udp.split_at_mut(UDP_HEADER);
    payload[..size_of::<Cookie>()].copy_from_slice(&cookie);
    payload[size_of::<Cookie>()] = left.into();
    payload[size_of::<Cookie>() + 1] = number;

    // Of the pseudo header (RFC 768), which a checksum that is left to others begins with.
    let ends = [target.source.octets(), target.gateway.octets()].concat();
    let [high, low] = length.to_be_bytes();
    let pseudo = [ends.as_slice(), &[0, PROTOCOL_UDP, high, low]].concat();
    if left {
        virtio[0] = NEEDS_CHECKSUM;
        let start = (ETHERNET + IPV4_HEADER) as u16;
        virtio[6..8].copy_from_slice(&start.to_ne_bytes());
        virtio[8..10].copy_from_slice(&(UDP_CHECKSUM as u16).to_ne_bytes());
        said[UDP_CHECKSUM..].copy_from_slice(&sum_of_words(&pseudo).to_be_bytes());
    } else {
        let whole = [pseudo.as_slice(), said, payload].concat();
        let sum = match checksum(&whole) {
            0 => u16::MAX, // which says that there is none
            sum => sum,
        };
        said[UDP_CHECKSUM..].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Who says that a packet of which kind arrived, if that is what this packet says, as a raw socket gives it.
pub(super) fn answer(packet: &[u8], cookie: Cookie) -> Option<(Ipv4Addr, bool)> {
    let icmp = behind_header(packet)?;
    if icmp.get(..2)? != [UNREACHABLE, PORT_UNREACHABLE] {
        return None;
    }
    let ours = icmp.get(ICMP_HEADER..)?;
    let udp = behind_header(ours)?;
    let payload = udp.get(UDP_HEADER..)?;
    if ours[9] != PROTOCOL_UDP || payload.get(..size_of::<Cookie>())? != cookie {
        return None;
    }
    let left = *payload.get(size_of::<Cookie>())? == 1;
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((from.into(), left))
}

/// What an IPv4 packet carries.
fn behind_header(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < IPV4_HEADER {
        return None;
    }
    packet.get(header..)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use proptest::prelude::*;

    use super::{super::packet::tests::target, *};

    const COOKIE: Cookie = *b"12345678";

    #[test]
    fn a_checksum_that_is_left_to_others_is_that_of_the_pseudo_header() {
        let target = target("192.0.2.2");
        let whole = request(&target, false, 0, COOKIE);
        let left = request(&target, true, 0, COOKIE);
        assert_eq!(whole[..VIRTIO], [0; VIRTIO]);
        let udp = VIRTIO + ETHERNET + IPV4_HEADER;
        assert_eq!(left[0], 1);
        assert_eq!(
            left[6..10],
            [34u16.to_ne_bytes(), 6u16.to_ne_bytes()].concat()
        );
        // Who completes it sums up from there, what stands in its place included.
        let completed = checksum(&left[udp..]);
        let mut done = left[udp..].to_vec();
        done[UDP_CHECKSUM..UDP_HEADER].copy_from_slice(&completed.to_be_bytes());
        let ends = [target.source.octets(), target.gateway.octets()].concat();
        let length = u16::try_from(done.len()).unwrap().to_be_bytes();
        for udp in [&done, &whole[udp..].to_vec()] {
            let all = [ends.as_slice(), &[0, 17], &length, udp].concat();
            assert_eq!(checksum(&all), 0);
        }
    }

    #[test]
    fn an_answer_is_known_and_nothing_else() {
        let target = target("192.0.2.2");
        for left in [false, true] {
            let ours = &request(&target, left, 2, COOKIE)[VIRTIO + ETHERNET..];
            let mut icmp = vec![0; ICMP_HEADER];
            icmp[..2].copy_from_slice(&[UNREACHABLE, PORT_UNREACHABLE]);
            let mut head = ours[..IPV4_HEADER].to_vec();
            head[12..16].copy_from_slice(&target.gateway.octets());
            let packet = [head.as_slice(), &icmp, ours].concat();
            assert_eq!(answer(&packet, COOKIE), Some((target.gateway, left)));
            assert_eq!(answer(&packet, *b"12345679"), None);
            for length in 0..packet.len() - 1 {
                let _ = answer(&packet[..length], COOKIE);
            }
            assert_eq!(answer(ours, COOKIE), None, "the packet itself");
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_an_answer_or_not_but_never_panics(packet: Vec<u8>, cookie: Cookie) {
            let _ = answer(&packet, cookie);
        }
    }
}
