//! The few system calls that no safe wrapper has.
#![allow(
    unsafe_code,
    reason = "each is one call whose contract is met on the spot"
)]

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{errno::Errno, libc};

/// Commands of `SIOCETHTOOL` (linux/ethtool.h): whether a device takes packets whose checksums are still to be computed.
const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether the link leaves the checksums of what it sends to the device beneath it.
pub(crate) fn tx_checksum(link: &str) -> io::Result<bool> {
    ethtool(link, GET_TX_CHECKSUM, 0).map(|on| on != 0)
}

/// Has it do so, or compute them itself.
pub(crate) fn set_tx_checksum(link: &str, on: bool) -> io::Result<()> {
    ethtool(link, SET_TX_CHECKSUM, on.into()).map(drop)
}

fn ethtool(link: &str, command: u32, data: u32) -> io::Result<u32> {
    let any = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: all of the structure's fields are integers and pointers, of which zero is one.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let room = request.ifr_name.len() - 1; // it ends with a zero
    if link.len() > room {
        return Err(Errno::ENODEV.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: both structures outlive the call, and these commands read and write one `ethtool_value`.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(done)?;
    Ok(value.data)
}

/// A socket that sends frames by the link of that index, each behind a `struct virtio_net_hdr`, and hears nothing.
pub(crate) fn frame_socket(link: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes no pointers.
    let socket = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let yes: libc::c_int = 1;
    let length = mem::size_of_val(&yes) as libc::socklen_t;
    // SAFETY: the option reads one int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            (&raw const yes).cast(),
            length,
        )
    };
    Errno::result(done)?;
    bind(&socket, link)?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    // SAFETY: all of the structure's fields are integers, of which zero is one.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_ifindex = libc::c_int::try_from(link).map_err(|_| Errno::ENODEV)?;
    let length = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address outlives the call, and is as long as said.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(done)?;
    Ok(())
}
