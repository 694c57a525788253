//! `recvmmsg` and `sendmmsg`, with what goes along with the bytes: addresses, and the size of the
//! datagrams that one piece consists of (`UDP_GRO`, `UDP_SEGMENT`; udp(7)).
//!
//! Not by way of nix, whose `recvmmsg` leaves the lengths in its headers as the last call has cut
//! them, and whose `sendmmsg` gives all messages the same control data; nor of quinn-udp, which has
//! no `sendmmsg`, forbids fragmentation and asks for timestamps.

#![allow(
    unsafe_code,
    reason = "no safe wrapper takes control data per message without allocating"
)]

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use socket2::{SockAddr, SockAddrStorage};

use super::control::{Control, read};

/// Messages that one call takes or gives, at most.
pub(crate) const BATCH: usize = 64;
/// More than any datagram, or train of them, has.
const LARGEST: usize = 65_536;
/// Not a power of two, or the beginnings of all buffers would share a few lines of the cache.
const STRIDE: usize = LARGEST + 1_536;

/// Buffers for one batch. Pages that no datagram has touched take no memory.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    names: Box<[SockAddrStorage]>,
    controls: Box<[Control]>,
    parts: Box<[libc::iovec]>,
    /// Their pointers are of the last call, and made anew in the next.
    headers: Box<[libc::mmsghdr]>,
}

/// What came in one message: datagrams of `segment` bytes each, the last of which may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) segment: usize,
    /// Who sent it; unknown on a connected socket.
    pub(crate) from: Option<SocketAddr>,
    /// The local address it was sent to, if the socket was asked to tell.
    pub(crate) to: Option<IpAddr>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let part = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            bytes: vec![0; BATCH * STRIDE].into(),
            names: (0..BATCH).map(|_| SockAddrStorage::zeroed()).collect(),
            controls: vec![Control::default(); BATCH].into(),
            parts: vec![part; BATCH].into(),
            headers: vec![empty_header(); BATCH].into(),
        }
    }

    /// Takes what waits, at most `most` messages, without waiting for any.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.min(BATCH);
        let buffers = self.bytes.chunks_exact_mut(STRIDE);
        let storage = (self.names.iter_mut()).zip(self.controls.iter_mut());
        let slots = self.parts.iter_mut().zip(self.headers.iter_mut());
        for (((buffer, (name, control)), (part, header)), _) in
            buffers.zip(storage).zip(slots).zip(0..most)
        {
            part.iov_base = buffer.as_mut_ptr().cast();
            part.iov_len = LARGEST;
            *header = empty_header();
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(name).cast();
            message.msg_namelen = name.size_of();
            message.msg_iov = part;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len();
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the first `most` headers point to buffers of `self` with their true lengths, and
        // `self` is borrowed mutably for the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                flags,
                ptr::null_mut(),
            )
        };
        let received = Errno::result(received)?;
        Ok(usize::try_from(received).unwrap_or(0))
    }

    /// The message at `index` of the last batch; none if it did not fit, and so must not pass.
    pub(crate) fn arrival(&self, index: usize) -> Option<Arrival<'_>> {
        let header = &self.headers[index];
        let message = &header.msg_hdr;
        if message.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let length = usize::try_from(header.msg_len).ok()?;
        let bytes = &self.bytes[index * STRIDE..][..length.min(LARGEST)];
        let told = read(&self.controls[index].0[..message.msg_controllen.min(Control::SIZE)]);
        let from = (message.msg_namelen > 0).then(|| {
            // SAFETY: the kernel has written an address of that length. The storage is plain bytes,
            // of which there may be copies.
            let name = unsafe { SockAddr::new(ptr::read(&self.names[index]), message.msg_namelen) };
            name.as_socket()
        });
        Some(Arrival {
            bytes,
            segment: told.segment.filter(|size| *size > 0).unwrap_or(length),
            from: from.flatten(),
            to: told.to,
        })
    }
}

/// One message to send: some of the parts, cut into datagrams by the kernel if `segment` is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) parts: Range<usize>,
    pub(crate) segment: Option<u16>,
}

impl Outgoing {
    /// A part alone.
    pub(crate) fn single(part: usize) -> Self {
        Self {
            parts: part..part + 1,
            segment: None,
        }
    }
}

/// Headers for one batch.
pub(crate) struct Outbox {
    controls: Box<[Control]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            controls: vec![Control::default(); BATCH].into(),
            headers: vec![empty_header(); BATCH].into(),
        }
    }

    /// Sends the messages in order, at once or not at all, to the address and from the local one
    /// that `ends` has, or to the socket's peer. Returns how many were sent, at least one.
    pub(crate) fn send<'m>(
        &mut self,
        socket: BorrowedFd<'_>,
        ends: Option<(SocketAddr, IpAddr)>,
        parts: &[IoSlice<'_>],
        messages: impl Iterator<Item = &'m Outgoing>,
    ) -> io::Result<usize> {
        let name = ends.map(|(to, from)| SockAddr::from(in_family_of(from, to)));
        let mut count = 0;
        let slots = self.headers.iter_mut().zip(self.controls.iter_mut());
        for ((header, control), message) in slots.zip(messages) {
            count += 1;
            let parts = &parts[message.parts.clone()];
            let length = control.write(ends.map(|(_, from)| from), message.segment);
            *header = empty_header();
            let out = &mut header.msg_hdr;
            if let Some(name) = &name {
                out.msg_name = name.as_ptr().cast_mut().cast();
                out.msg_namelen = name.len();
            }
            // std promises that an IoSlice is an iovec.
            out.msg_iov = parts.as_ptr().cast_mut().cast();
            out.msg_iovlen = parts.len();
            if length > 0 {
                out.msg_control = control.0.as_mut_ptr().cast();
                out.msg_controllen = length;
            }
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` headers point to `name`, `parts` and `controls`, all of which
        // outlive the call, with their true lengths; the kernel only reads them.
        let sent =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, flags) };
        Ok(usize::try_from(Errno::result(sent)?).unwrap_or(0))
    }
}

/// An IPv4 client of a socket that takes both families has a mapped address there.
fn in_family_of(local: IpAddr, address: SocketAddr) -> SocketAddr {
    match (local, address.ip()) {
        (IpAddr::V6(_), IpAddr::V4(ip)) => (ip.to_ipv6_mapped(), address.port()).into(),
        _ => address,
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: the C structure of integers and pointers may be all zeros.
    unsafe { std::mem::zeroed() }
}

/// Makes the kernel refuse to cut messages of this socket, as it does where there is no checksum.
#[cfg(test)]
pub(crate) fn forbid_segments(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Ok(Errno::result(done).map(drop)?)
}
