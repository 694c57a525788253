use proptest::prelude::*;
use tun_rs::{VIRTIO_NET_HDR_GSO_UDP_L4, VirtioNetHdr};

use super::*;
use crate::segment::NEEDS_CHECKSUM;

/// A packet to be made.
#[derive(Clone, Debug)]
struct Made {
    v6: bool,
    udp: bool,
    port: u8,
    sequence: u32,
    payload: Vec<u8>,
    push: bool,
    window: u16,
}

impl Made {
    fn packet(&self) -> Vec<u8> {
        let protocol = if self.udp { 17 } else { 6 };
        let mut behind = vec![40, self.port, 0, 80];
        if self.udp {
            let length = u16::try_from(8 + self.payload.len()).expect("short");
            behind.extend(length.to_be_bytes());
            behind.extend([0, 0]);
        } else {
            behind.extend(self.sequence.to_be_bytes());
            behind.extend([0, 0, 0, 9, 0x80, if self.push { 0x18 } else { 0x10 }]);
            behind.extend(self.window.to_be_bytes());
            behind.extend([0, 0, 0, 0]);
            behind.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
        behind.extend(&self.payload);
        let length = u16::try_from(behind.len()).expect("short");
        let mut packet = if self.v6 {
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend([0xfd; 32]);
            header
        } else {
            let [high, low] = (20 + length).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend([10, 1, 1, 1, 10, 1, 2, 1]);
            header
        };
        packet.extend(behind);
        sign(&mut packet);
        packet
    }
}

/// As the RFC has it, and slowly.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let word = |word: &[u8]| u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
    words.map(word).fold(0, |sum, word| {
        let (sum, over) = sum.overflowing_add(word);
        sum + u16::from(over)
    })
}

fn parts(packet: &[u8]) -> (usize, u8, usize) {
    match packet[0] >> 4 {
        4 => (20, packet[9], if packet[9] == 17 { 6 } else { 16 }),
        _ => (40, packet[6], if packet[6] == 17 { 6 } else { 16 }),
    }
}

fn pseudo(packet: &[u8]) -> Vec<u8> {
    let (ip, protocol, _) = parts(packet);
    let mut pseudo = packet[if ip == 20 { 12 } else { 8 }..ip].to_vec();
    let length = u16::try_from(packet.len() - ip).expect("short");
    pseudo.extend([0, protocol]);
    pseudo.extend(length.to_be_bytes());
    pseudo
}

/// Puts the checksums in.
fn sign(packet: &mut [u8]) {
    let (ip, _, at) = parts(packet);
    if ip == 20 {
        packet[10..12].fill(0);
        let sum = !checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet[ip + at..ip + at + 2].fill(0);
    let sum = !checksum(&[&pseudo(packet)[..], &packet[ip..]].concat());
    packet[ip + at..ip + at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Cuts what the kernel is given, as it does.
fn cut(written: &[u8]) -> Vec<Vec<u8>> {
    let head = VirtioNetHdr::decode(written).expect("a header");
    let packet = &written[HEAD..];
    if head.gso_type == 0 {
        assert_eq!(head.flags, 0);
        return vec![packet.to_vec()];
    }
    let (ip, protocol, at) = parts(packet);
    assert_eq!(head.flags, NEEDS_CHECKSUM);
    assert_eq!(head.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4, protocol == 17);
    assert_eq!(
        (usize::from(head.csum_start), usize::from(head.csum_offset)),
        (ip, at)
    );
    let said = u16::from_be_bytes([packet[ip + at], packet[ip + at + 1]]);
    assert_eq!(said, checksum(&pseudo(packet)));
    if ip == 20 {
        assert_eq!(checksum(&packet[..20]), u16::MAX);
    }
    let (headers, payload) = packet.split_at(head.hdr_len.into());
    let count = payload.len().div_ceil(head.gso_size.into());
    let segments = payload.chunks(head.gso_size.into()).enumerate();
    let segments = segments.map(|(number, payload)| {
        let mut segment = [headers, payload].concat();
        let behind = u16::try_from(segment.len() - ip).expect("short");
        if ip == 20 {
            segment[2..4].copy_from_slice(&(behind + 20).to_be_bytes());
        } else {
            segment[4..6].copy_from_slice(&behind.to_be_bytes());
        }
        if protocol == 17 {
            segment[ip + 4..ip + 6].copy_from_slice(&behind.to_be_bytes());
        } else {
            let first = u32::from_be_bytes(headers[ip + 4..ip + 8].try_into().expect("four"));
            let offset = u32::try_from(number).expect("few") * u32::from(head.gso_size);
            let sequence = first.wrapping_add(offset);
            segment[ip + 4..ip + 8].copy_from_slice(&sequence.to_be_bytes());
            if number + 1 < count {
                segment[ip + 13] &= !0x08;
            }
        }
        sign(&mut segment);
        segment
    });
    segments.collect()
}

/// What is written of the packets.
fn written(packets: &[Vec<u8>], udp: bool) -> Vec<Vec<u8>> {
    let mut joiner = Joiner::new();
    let mut out = Vec::new();
    for packet in packets {
        // What is opened leaves its tag behind it.
        let room = joiner.room(packet.len() + 16);
        room.fill(0xee);
        room[..packet.len()].copy_from_slice(packet);
        if !joiner.join(packet.len(), udp) {
            joiner.set_aside(packet.len());
            out.extend(joiner.finish().map(<[u8]>::to_vec));
            joiner.clear();
            joiner.begin();
        }
        joiner.room(100).fill(0xdd); // for a message that is no packet
    }
    out.extend(joiner.finish().map(<[u8]>::to_vec));
    out
}

fn train(count: u32, udp: bool, v6: bool) -> Vec<Vec<u8>> {
    let made = |number: u32| Made {
        v6,
        udp,
        port: 1,
        sequence: (u32::MAX - 3000).wrapping_add(number * 1388),
        payload: vec![number.to_be_bytes()[3]; if number + 1 == count { 100 } else { 1388 }],
        push: number + 1 == count,
        window: 500,
    };
    (0..count).map(|number| made(number).packet()).collect()
}

#[test]
fn a_train_is_written_as_one() {
    for (udp, v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let packets = train(46, udp, v6);
        let out = written(&packets, true);
        assert_eq!(out.len(), 1, "udp: {udp}, v6: {v6}");
        assert_eq!(cut(&out[0]), packets, "udp: {udp}, v6: {v6}");
    }
    // More than a packet holds, and UDP for who takes it singly.
    let packets = train(60, false, false);
    let out = written(&packets, true);
    assert_eq!(out.len(), 2);
    assert_eq!(
        out.iter().flat_map(|out| cut(out)).collect::<Vec<_>>(),
        packets
    );
    assert_eq!(written(&train(5, true, false), false).len(), 5);
}

#[test]
fn what_is_damaged_is_not_made_whole() {
    for damaged in 0..3 {
        for byte in [2, 10, 24, 30, 36, 60, 140] {
            let mut packets = train(3, false, false);
            packets[damaged][byte] ^= 0x40;
            let out = written(&packets, true);
            assert!(out.len() > 1, "packet {damaged}, byte {byte}");
            let cut: Vec<_> = out.iter().flat_map(|out| cut(out)).collect();
            assert_eq!(cut, packets, "packet {damaged}, byte {byte}");
        }
    }
}

fn made() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let one = (
        (any::<bool>(), prop::bool::weighted(0.3), 0..2u8),
        (
            prop::sample::select(vec![1usize, 50, 50, 50, 51, 1388]),
            any::<u8>(),
        ),
        (
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.1),
            1..3u16,
        ),
        prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>())),
        1..6usize,
    );
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let mut sequences = std::collections::HashMap::new();
        let mut packets = Vec::new();
        for ((v6, udp, port), (length, byte), (push, gap, window), change, times) in all {
            for _ in 0..times {
                let next = sequences.entry((v6, udp, port)).or_insert(u32::MAX - 200);
                if gap {
                    *next = next.wrapping_add(7);
                }
                let payload = vec![byte; length];
                let sequence = *next;
                *next = next.wrapping_add(u32::try_from(length).expect("short"));
                let made = Made {
                    v6,
                    udp,
                    port,
                    sequence,
                    payload,
                    push,
                    window,
                };
                let mut packet = made.packet();
                if let Some((at, byte)) = change {
                    let at = at.index(packet.len());
                    packet[at] = byte;
                }
                packets.push(packet);
            }
        }
        packets
    })
}

proptest! {
    #[test]
    fn what_is_cut_again_is_what_was_joined(packets in made(), udp: bool) {
        let out = written(&packets, udp);
        let cut: Vec<_> = out.iter().flat_map(|out| cut(out)).collect();
        prop_assert_eq!(cut, packets);
    }

    #[test]
    fn whatever_is_a_packet_comes_out(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..90), 0..8)) {
        let out = written(&packets, true);
        let out: Vec<_> = out.iter().map(|out| out[HEAD..].to_vec()).collect();
        prop_assert_eq!(out, packets);
    }
}
