//! Control data of datagrams, as cmsg(3) lays it out.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

/// Room for what a message tells or takes: at most an `in6_pktinfo` and two integers, with what
/// other options of a socket may add.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; Control::SIZE]);

/// What was told of a message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Told {
    pub(super) to: Option<IpAddr>,
    /// Bytes of each datagram but the last, where the message has several.
    pub(super) segment: Option<usize>,
}

/// Length, level and type.
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGNMENT: usize = size_of::<usize>();

impl Control {
    pub(super) const SIZE: usize = 128;

    /// Writes the sender's address and the size of segments; returns the bytes used.
    pub(super) fn write(&mut self, from: Option<IpAddr>, segment: Option<u16>) -> usize {
        let mut end = 0;
        match from {
            Some(IpAddr::V4(from)) => {
                // in_pktinfo: interface, sender, and a field that only the kernel writes.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                end = self.put(end, (libc::IPPROTO_IP, libc::IP_PKTINFO), &info);
            }
            Some(IpAddr::V6(from)) => {
                // in6_pktinfo: sender, interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                end = self.put(end, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), &info);
            }
            None => {}
        }
        if let Some(segment) = segment {
            let kind = (libc::SOL_UDP, libc::UDP_SEGMENT);
            end = self.put(end, kind, &segment.to_ne_bytes());
        }
        end
    }

    fn put(&mut self, at: usize, (level, kind): (i32, i32), data: &[u8]) -> usize {
        let end = at + HEADER + data.len().next_multiple_of(ALIGNMENT);
        let out = &mut self.0[at..end];
        out.fill(0);
        let (level_at, kind_at) = (size_of::<usize>(), size_of::<usize>() + 4);
        out[..level_at].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        out[level_at..kind_at].copy_from_slice(&level.to_ne_bytes());
        out[kind_at..kind_at + 4].copy_from_slice(&kind.to_ne_bytes());
        out[HEADER..][..data.len()].copy_from_slice(data);
        end
    }
}

impl Default for Control {
    fn default() -> Self {
        Self([0; Self::SIZE])
    }
}

/// Reads what is known; what is not, or is cut off, is passed over.
pub(super) fn read(mut control: &[u8]) -> Told {
    let mut told = Told::default();
    while let Some((kind, data, rest)) = first(control) {
        match kind {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                told.to = bytes::<4>(data, 4)
                    .map(|ip| Ipv4Addr::from(ip).into())
                    .or(told.to);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                told.to = bytes::<16>(data, 0)
                    .map(|ip| Ipv6Addr::from(ip).into())
                    .or(told.to);
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = bytes::<4>(data, 0).map(i32::from_ne_bytes);
                told.segment = size.and_then(|size| usize::try_from(size).ok());
            }
            _ => {}
        }
        control = rest;
    }
    told
}

type Parted<'a> = ((i32, i32), &'a [u8], &'a [u8]);

/// Level and type, data, and what follows.
fn first(control: &[u8]) -> Option<Parted<'_>> {
    let length = usize::from_ne_bytes(bytes(control, 0)?);
    let level = i32::from_ne_bytes(bytes(control, size_of::<usize>())?);
    let kind = i32::from_ne_bytes(bytes(control, size_of::<usize>() + 4)?);
    let data = control.get(HEADER..length)?;
    let next = length.checked_next_multiple_of(ALIGNMENT)?;
    Some(((level, kind), data, control.get(next..).unwrap_or_default()))
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    /// A message as the kernel writes one.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut control = Control::default();
        let end = control.put(0, (level, kind), data);
        control.0[..end].to_vec()
    }

    #[test]
    fn the_layout_is_that_of_the_kernel() {
        assert_eq!(HEADER, nix::cmsg_space!().len().max(size_of::<usize>() + 8));
        let mut control = Control::default();
        let length = control.write(Some("::1".parse().unwrap()), Some(1_400));
        assert_eq!(length, nix::cmsg_space!(libc::in6_pktinfo, u16).capacity());
        let length = control.write(Some("127.0.0.1".parse().unwrap()), None);
        assert_eq!(length, nix::cmsg_space!(libc::in_pktinfo).capacity());
        assert_eq!(control.write(None, None), 0);
    }

    #[test]
    fn what_is_told_is_read_whatever_is_between() {
        let mut control = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMP, &[7; 16]);
        control.extend(message(
            libc::SOL_UDP,
            libc::UDP_GRO,
            &1_200_i32.to_ne_bytes(),
        ));
        control.extend(message(
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            &[1, 0, 0, 0, 127, 0, 0, 9, 127, 0, 0, 1],
        ));
        let told = read(&control);
        assert_eq!(told.segment, Some(1_200));
        assert_eq!(told.to, Some("127.0.0.9".parse().unwrap()));
        assert_eq!(read(&[]), Told::default());
    }

    proptest! {
        #[test]
        fn no_bytes_lead_astray(control in prop::collection::vec(any::<u8>(), 0..128)) {
            read(&control);
        }

        #[test]
        fn a_cut_end_leaves_the_beginning(from: Ipv6Addr, cut in 0_usize..12) {
            let mut control = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &{
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                info
            });
            control.extend(&message(libc::SOL_UDP, libc::UDP_GRO, &9_i32.to_ne_bytes())[..cut]);
            prop_assert_eq!(read(&control), Told { to: Some(from.into()), segment: None });
        }
    }
}
