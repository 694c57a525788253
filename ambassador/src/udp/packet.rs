//! Sockets that tell where a datagram was sent to, and batches from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::Listen;
use crate::sys::mmsg::Inbox;
use crate::sys::{self, Port};

/// All clients of a listener share its queues, which by default hold some 90 full packets.
const QUEUE: usize = 1 << 20;

/// A socket that tells for each datagram which local address it was sent to.
pub(crate) fn listen(listen: Listen, port: Port) -> io::Result<std::net::UdpSocket> {
    let socket = sys::bind(Type::DGRAM, listen, port)?;
    // It has the port before it shares: two who do this at once cannot both have it.
    socket.set_reuse_port(true)?;
    if socket.domain()? == Domain::IPV6 {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    take_trains(&socket);
    // Beyond `rmem_max` it takes CAP_NET_ADMIN; without it, as much as is allowed.
    if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
        let _ = socket.set_recv_buffer_size(QUEUE);
    }
    if setsockopt(&socket, sockopt::SndBufForce, &QUEUE).is_err() {
        let _ = socket.set_send_buffer_size(QUEUE);
    }
    Ok(socket.into())
}

/// A socket connected to `address`, so that ICMP errors come back to it.
pub(super) fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), None)?;
    socket.connect(&address.into())?;
    // To a free port of the ephemeral range, it may have met itself.
    if address.ip().is_loopback() && socket.local_addr()?.as_socket() == Some(address) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    take_trains(&socket);
    UdpSocket::from_std(socket.into())
}

/// Lets equal datagrams come in one piece. A kernel that cannot (before 5.0) gives them one by one.
fn take_trains<S: AsFd>(socket: &S) {
    let _ = setsockopt(socket, sockopt::UdpGroSegment, &true);
}

/// Takes a batch of at most `most` messages.
pub(super) fn receive(
    socket: &UdpSocket,
    interest: Interest,
    inbox: &mut Inbox,
    most: usize,
) -> io::Result<usize> {
    let mut taken = 0;
    let outcome = socket.try_io(interest, || {
        taken = inbox.receive(socket.as_fd(), most)?;
        // Fewer than asked for, so the queue was empty: tokio need not find out by another call.
        if taken < most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match outcome {
        Err(error) if taken == 0 => Err(error),
        _ => Ok(taken),
    }
}

/// Whether this host lacks descriptors, memory or ports.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | EADDRINUSE | EADDRNOTAVAIL | EAGAIN)
    )
}
