//! Datagrams with the local address they were sent to.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::Type;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::sys;

/// What came, and between whom.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) bytes: usize,
    pub(super) client: SocketAddr,
    /// The address the client sent to, and must see as the sender of the replies.
    pub(super) local: IpAddr,
}

/// A socket that tells for each datagram which local address it was sent to.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = sys::bind(Type::DGRAM, address)?;
    if socket.domain()? == socket2::Domain::IPV6 {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(socket.into())
}

pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    socket.try_io(Interest::READABLE, || {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let fd = socket.as_raw_fd();
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
        let client = message.address.as_ref().and_then(address);
        let client = client.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let told = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            _ => None,
        });
        Ok(Datagram {
            bytes: message.bytes,
            client,
            local: told.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
        })
    })
}

/// Sends to `client` with `local` as the sender, at once or not at all.
pub(super) fn reply(
    socket: &UdpSocket,
    bytes: &[u8],
    client: SocketAddr,
    local: IpAddr,
) -> io::Result<usize> {
    let fd = socket.as_raw_fd();
    let parts = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let sent = match (client, local) {
        (SocketAddr::V4(client), IpAddr::V4(local)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(local.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn::from(client)))
        }
        (client, local) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: mapped(local).octets(),
                },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            let client = match client {
                SocketAddr::V6(client) => client,
                SocketAddr::V4(client) => {
                    SocketAddrV6::new(mapped((*client.ip()).into()), client.port(), 0, 0)
                }
            };
            sendmsg(
                fd,
                &parts,
                &control,
                flags,
                Some(&SockaddrIn6::from(client)),
            )
        }
    };
    Ok(sent?)
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        nix::sys::socket::AddressFamily::Inet => {
            Some(SocketAddrV4::from(*storage.as_sockaddr_in()?).into())
        }
        nix::sys::socket::AddressFamily::Inet6 => {
            Some(SocketAddrV6::from(*storage.as_sockaddr_in6()?).into())
        }
        _ => None,
    }
}
