//! Packets of TCP and UDP that may be one part of a longer one: what they have in common, and how the kernel is told.

use tun_rs::{
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4, VirtioNetHdr,
};

/// Flag of such a header: the kernel is to complete the checksum.
pub(crate) const NEEDS_CHECKSUM: u8 = 1;

/// IPv6 (40 bytes) and TCP with all options (60).
pub(crate) const LONGEST_HEADERS: usize = 100;

const V4: usize = 20;
const V6: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The least header of TCP, and that of UDP.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
/// Where they have their checksum.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// Flags of TCP.
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

/// A packet with payload, without options of IP, and no fragment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Length of the header of IP, and of that behind it.
    ip: usize,
    transport: usize,
    protocol: u8,
    payload: usize,
    /// Of TCP.
    sequence: u32,
    push: bool,
}

impl Segment {
    /// `None` if nothing can be joined to the packet.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let (ip, protocol, length) = match packet.first()? >> 4 {
            4 => {
                let header = packet.first_chunk::<V4>()?;
                let is_whole = header[0] == 0x45 && header[6] & 0x3f == 0 && header[7] == 0;
                let length = u16::from_be_bytes([header[2], header[3]]);
                is_whole.then_some((V4, header[9], usize::from(length)))?
            }
            6 => {
                let header = packet.first_chunk::<V6>()?;
                let length = u16::from_be_bytes([header[4], header[5]]);
                (V6, header[6], V6 + usize::from(length))
            }
            _ => return None,
        };
        if length != packet.len() {
            return None;
        }
        let behind = &packet[ip..];
        let (transport, sequence, push) = match protocol {
            TCP => {
                let header = behind.first_chunk::<TCP_HEADER>()?;
                let transport = usize::from(header[12] >> 4) * 4;
                let is_data = header[13] & !PUSH == ACK && transport >= TCP_HEADER;
                let [_, _, _, _, a, b, c, d, ..] = *header;
                let sequence = u32::from_be_bytes([a, b, c, d]);
                is_data.then_some((transport, sequence, header[13] & PUSH != 0))?
            }
            UDP => {
                let header = behind.first_chunk::<UDP_HEADER>()?;
                let length = u16::from_be_bytes([header[4], header[5]]);
                let is_summed = header[UDP_CHECKSUM..] != [0, 0];
                (is_summed && usize::from(length) == behind.len())
                    .then_some((UDP_HEADER, 0, false))?
            }
            _ => return None,
        };
        let payload = behind
            .len()
            .checked_sub(transport)
            .filter(|payload| *payload > 0)?;
        Some(Self {
            ip,
            transport,
            protocol,
            payload,
            sequence,
            push,
        })
    }

    pub(crate) fn is_udp(&self) -> bool {
        self.protocol == UDP
    }

    /// Length of all headers.
    pub(crate) fn headers(&self) -> usize {
        self.ip + self.transport
    }

    /// Length of what is behind them.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// Whether it may come behind `last`, the last so far of those that `first` began: all have one size but the last,
    /// which may be shorter.
    pub(crate) fn follows(&self, first: &Self, last: &Self) -> bool {
        let is_kin =
            (self.ip, self.transport, self.protocol) == (first.ip, first.transport, first.protocol);
        let is_open = last.payload == first.payload && !last.push;
        let is_next = self.is_udp()
            || self.sequence
                == last
                    .sequence
                    .wrapping_add(u32::try_from(last.payload).unwrap_or(0));
        is_kin && is_open && is_next && self.payload <= first.payload
    }

    /// Whether the headers `first` and those of `packet`, which is this one, say the same but for lengths, checksums, and
    /// what follows from the order.
    pub(crate) fn are_alike(first: &[u8], packet: &[u8], this: &Self) -> bool {
        let same = |from: usize, to: usize| first.get(from..to) == packet.get(from..to);
        let at = this.ip;
        let of_ip = match at {
            V4 => same(0, 2) && same(6, 10) && same(12, V4),
            _ => same(0, 4) && same(6, V6),
        };
        // Of TCP: ports, what is acknowledged, length, window, urgent pointer and options.
        of_ip
            && match this.protocol {
                UDP => same(at, at + 4),
                _ => {
                    same(at, at + 4)
                        && same(at + 8, at + 13)
                        && same(at + 14, at + TCP_CHECKSUM)
                        && same(at + 18, at + this.transport)
                }
            }
    }

    /// Whether the checksums of `packet`, which is this one, are right: what is joined is told to be so.
    pub(crate) fn is_sound(&self, packet: &[u8]) -> bool {
        let is_right = |sum| fold(sum) == u16::MAX;
        let (ip, behind) = packet.split_at(self.ip);
        (self.ip == V6 || is_right(sum(ip)))
            && is_right(self.pseudo(ip, behind.len()) + sum(behind))
    }

    /// Writes into `head` and the headers of `packet` that it is what began with this one and ended with `last`.
    pub(crate) fn describe(&self, last: &Self, head: &mut [u8], packet: &mut [u8]) {
        let (kind, at) = match (self.protocol, self.ip) {
            (UDP, _) => (VIRTIO_NET_HDR_GSO_UDP_L4, UDP_CHECKSUM),
            (_, V4) => (VIRTIO_NET_HDR_GSO_TCPV4, TCP_CHECKSUM),
            _ => (VIRTIO_NET_HDR_GSO_TCPV6, TCP_CHECKSUM),
        };
        let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX); // none is longer
        let described = VirtioNetHdr {
            flags: NEEDS_CHECKSUM,
            gso_type: kind,
            hdr_len: short(self.headers()),
            gso_size: short(self.payload),
            csum_start: short(self.ip),
            csum_offset: short(at),
        };
        described.encode(head).expect("there is room for it");
        let whole = short(packet.len()).to_be_bytes();
        let (ip, behind) = packet.split_at_mut(self.ip);
        let length = short(behind.len()).to_be_bytes();
        if self.ip == V4 {
            ip[2..4].copy_from_slice(&whole);
            ip[10..12].fill(0);
            let checksum = !fold(sum(ip));
            ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
        } else {
            ip[4..6].copy_from_slice(&length);
        }
        match self.protocol {
            UDP => behind[4..6].copy_from_slice(&length),
            _ if last.push => behind[13] |= PUSH,
            _ => {}
        }
        // The kernel adds what comes behind.
        let checksum = fold(self.pseudo(ip, behind.len()));
        behind[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }

    /// The sum of what checksums cover of the header `ip`, of a packet that has `length` bytes behind that.
    fn pseudo(&self, ip: &[u8], length: usize) -> u64 {
        let addresses = match self.ip {
            V4 => &ip[12..V4],
            _ => &ip[8..V6],
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        sum(addresses) + sum(&length) + sum(&[0, self.protocol])
    }
}

/// Sums 16-bit words, as they lie in memory, not folded yet (RFC 1071 §2).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let word = |word: &[u8; 4]| u64::from(u32::from_ne_bytes(*word));
    words.iter().map(word).sum::<u64>() + word(&last)
}

fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
