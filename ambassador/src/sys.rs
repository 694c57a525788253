//! The socket calls that neither std nor tokio has, by way of safe wrappers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::Options;

const BACKLOG: i32 = 4096;
const PROBES: u32 = 5;
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Binds, with `0.0.0.0` standing in for `[::]` where the kernel has no IPv6.
pub(crate) fn bind(kind: Type, address: SocketAddr) -> io::Result<Socket> {
    let lacks_ipv6 = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)
        )
    };
    match bind_exactly(kind, address) {
        Err(error) if any_ipv6(address) && lacks_ipv6(&error) => {
            bind_exactly(kind, (Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        result => result,
    }
}

fn any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn bind_exactly(kind: Type, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if kind == Type::STREAM {
        // Connections of an earlier listener in TIME_WAIT must not keep the port. On UDP the same
        // option would let two sockets share it.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!any_ipv6(address))?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A listener; the sockets it accepts inherit what [`prepare_stream`] has set.
pub(crate) fn listen(address: SocketAddr, options: &Options) -> io::Result<std::net::TcpListener> {
    let socket = bind(Type::STREAM, address)?;
    prepare_stream(&socket, options)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Sends the SYN; the socket becomes writable when the handshake is over or has failed.
pub(crate) fn begin_connect(
    address: SocketAddr,
    options: &Options,
) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    prepare_stream(&socket, options)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether bytes wait to be read. A pending error is returned, and thereby forgotten by the
/// kernel, only if none do.
pub(crate) fn peek<S: AsFd>(socket: &S) -> io::Result<bool> {
    use rustix::net::RecvFlags;
    match rustix::net::recv(socket, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((bytes, _)) => Ok(bytes > 0),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Prepares a socket for relaying.
///
/// Closing it resets the connection: whatever ends a flow but the peers' own FINs, even a killed
/// process, must not look to a peer as if the other one had finished. [`close_orderly`] takes that
/// back.
pub(crate) fn prepare_stream<S: AsFd>(socket: &S, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(options.keepalive)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    // A host's default may be BBR, which over veth costs two thirds of the throughput. A namespace
    // may allow only reno; if it allows neither, its default has to do.
    if socket.set_tcp_congestion(b"cubic").is_err() {
        let _ = socket.set_tcp_congestion(b"reno");
    }
    Ok(())
}

/// Lets what was sent arrive, and the FIN after it, although the socket is closed.
pub(crate) fn close_orderly<S: AsFd>(socket: &S) {
    // Can fail only on what is not a socket.
    let _ = SockRef::from(socket).set_linger(None);
}

/// Bytes that the peer's kernel has not acknowledged yet.
pub(crate) fn unacknowledged<S: AsFd>(socket: &S) -> io::Result<u64> {
    ioctl::outq(socket.as_fd())
}

/// Whether the host has `address`: one can bind to it.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

mod ioctl {
    #![allow(unsafe_code, reason = "no safe wrapper has SIOCOUTQ")]

    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// `SIOCOUTQ`, which Linux defines as `TIOCOUTQ`.
    pub(super) fn outq(socket: BorrowedFd<'_>) -> io::Result<u64> {
        let mut bytes: nix::libc::c_int = 0;
        // SAFETY: the descriptor is borrowed for the call, and TIOCOUTQ writes one int.
        let done = unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::TIOCOUTQ, &mut bytes) };
        nix::errno::Errno::result(done)?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}
