//! The socket calls that neither std nor tokio has, by way of safe wrappers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::unix::AsyncFd;

use crate::{Listen, Options};

mod control;
pub(crate) mod mmsg;

/// Newcomers that may wait to be accepted.
pub(crate) const BACKLOG: i32 = 4096;
/// What may be received ahead of the writes where the path holds next to nothing.
const LEAST_AHEAD: usize = 512 << 10;
/// And beside that what a path of 8 Gb/s holds.
const BYTES_A_MICROSECOND: usize = 1 << 10;
/// Longer paths are left to the kernel.
const MOST_AHEAD: usize = 32 << 20;
const MOST_UNSENT: u32 = 512 << 10;
const PROBES: u32 = 5;
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// With whom a socket has its port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Port {
    /// With nobody: one that is taken is an error.
    Own,
    /// With the sockets of this user that share theirs.
    Shared,
}

/// Binds, with `0.0.0.0` standing in for `[::]` where the kernel has no IPv6, unless that alone is asked for.
pub(crate) fn bind(kind: Type, listen: Listen, port: Port) -> io::Result<Socket> {
    let Listen {
        address, only_v6, ..
    } = listen;
    let lacks_ipv6 = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)
        )
    };
    match bind_exactly(kind, address, only_v6, port) {
        Err(error) if any_ipv6(address) && !only_v6 && lacks_ipv6(&error) => {
            let address = (Ipv4Addr::UNSPECIFIED, address.port()).into();
            bind_exactly(kind, address, false, port)
        }
        result => result,
    }
}

fn any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn bind_exactly(kind: Type, address: SocketAddr, only_v6: bool, port: Port) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if kind == Type::STREAM {
        // Connections of an earlier listener in TIME_WAIT must not keep the port. On UDP the same
        // option would let two sockets share it.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(port == Port::Shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6 || !any_ipv6(address))?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// One listening socket for each of `sockets` workers, all on one port, which nobody else may have
/// unless `port` says so. What they accept inherits what is set here.
pub(crate) fn listen(
    listen: Listen,
    options: &Options,
    port: Port,
    sockets: usize,
) -> io::Result<Vec<TcpListener>> {
    let open = |listen, port| {
        let socket = bind(Type::STREAM, listen, port)?;
        reset_on_close(&socket)?;
        socket.set_tcp_nodelay(true)?;
        watch_peer(&socket, options)?;
        Congestion::choose(&socket);
        socket.listen(BACKLOG)?;
        io::Result::Ok(socket)
    };
    // It listens before it shares: two who do this at once cannot both have the port.
    let first = open(listen, port)?;
    first.set_reuse_port(true)?;
    let mut listeners: Vec<TcpListener> = vec![first.into()];
    let local = Listen {
        address: listeners[0].local_addr()?,
        ..listen
    };
    while listeners.len() < sockets.max(1) {
        listeners.push(open(local, Port::Shared)?.into());
    }
    Ok(listeners)
}

/// A newcomer, and who it is. [`io::ErrorKind::WouldBlock`] if there is none.
pub(crate) fn accept<S: AsFd>(listener: &S) -> io::Result<(OwnedFd, SocketAddr)> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((socket, peer.try_into()?))
}

/// Who is known to send first on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FirstWord {
    Ours,
    Unknown,
}

/// Sends the SYN; the socket becomes writable when the handshake is over or has failed.
///
/// It has what every flow needs. [`watch_peer`] is for those that last. If there are bytes to send at
/// once, the last acknowledgement of the handshake waits for them (tcp(7), `TCP_QUICKACK`).
pub(crate) fn begin_connect(
    address: SocketAddr,
    congestion: Congestion,
    first_word: FirstWord,
) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    reset_on_close(&socket)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(congestion) = congestion.wanted() {
        let _ = socket.set_tcp_congestion(congestion);
    }
    if first_word == FirstWord::Ours {
        // Without it a packet more is sent.
        let _ = socket.set_tcp_quickack(false);
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Keeps the kernel from holding more and more for a reader that is slower than the writer: what
/// `from` receives ahead, and what waits in `to` unsent.
///
/// Left to itself the kernel lets both grow to `tcp_rmem` and `tcp_wmem`, which may be tens of
/// mebibytes. A path that is longer may hold more, or it could not be filled. Without
/// `CAP_NET_ADMIN` the kernel's bound stays: what `SO_RCVBUF` allows by itself is too little.
pub(crate) fn bound_buffers<F: AsFd, T: AsFd>(from: &F, to: &T) {
    let round_trip = info::least_round_trip(from.as_fd()).unwrap_or(Duration::MAX);
    let micros = usize::try_from(round_trip.as_micros()).unwrap_or(usize::MAX);
    let bytes = LEAST_AHEAD.saturating_add(micros.saturating_mul(BYTES_A_MICROSECOND));
    if bytes <= MOST_AHEAD {
        // The kernel doubles it, for its own bookkeeping.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(from, bytes);
    }
    let _ = SockRef::from(to).set_tcp_notsent_lowat(MOST_UNSENT);
}

/// Where a socket is bound.
pub(crate) fn local_address<S: AsFd>(socket: &S) -> io::Result<SocketAddr> {
    Ok(rustix::net::getsockname(socket)?.try_into()?)
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

/// Whether bytes wait to be read. Unlike [`peek`] it leaves a pending error to be found.
pub(crate) fn has_unread<S: AsFd>(socket: &S) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes > 0)
}

/// Sends what the kernel holds back, in the hope of more.
pub(crate) fn push<S: AsFd>(socket: &S) {
    // Setting it does that, even if it is set already. Can fail only on what is not a socket.
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
}

/// Closing the socket resets the connection: whatever ends a flow but the peers' own FINs, even a
/// killed process, must not look to a peer as if the other one had finished. [`close_orderly`]
/// takes that back.
fn reset_on_close(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

/// Lets the kernel find out when the peer is gone without a word.
pub(crate) fn watch_peer<S: AsFd>(socket: &S, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(options.keepalive)
            .with_interval(PROBE_INTERVAL)
            .with_retries(PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))
}

/// The congestion control that a relay's sockets get.
///
/// A host's default may be BBR, which over veth costs two thirds of the throughput. A namespace may
/// allow only reno; if it allows neither cubic nor that, its default has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Congestion {
    Default,
    Cubic,
    Reno,
}

impl Congestion {
    /// Gives `socket` what suits its network namespace.
    fn choose(socket: &Socket) -> Self {
        let fine = |name: Vec<u8>| name.starts_with(b"cubic") || name.starts_with(b"reno");
        if socket.tcp_congestion().is_ok_and(fine) {
            Self::Default
        } else if socket.set_tcp_congestion(b"cubic").is_ok() {
            Self::Cubic
        } else if socket.set_tcp_congestion(b"reno").is_ok() {
            Self::Reno
        } else {
            Self::Default
        }
    }

    /// What suits the network namespace of this thread. Costs a few calls: ask once.
    pub(crate) fn here() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)
            .or_else(|_| Socket::new(Domain::IPV6, Type::STREAM, None));
        socket.map_or(Self::Default, |socket| Self::choose(&socket))
    }

    fn wanted(self) -> Option<&'static [u8]> {
        match self {
            Self::Default => None,
            Self::Cubic => Some(b"cubic"),
            Self::Reno => Some(b"reno"),
        }
    }
}

/// Lets what was sent arrive, and the FIN after it, although the socket is closed.
pub(crate) fn close_orderly<S: AsFd>(socket: &S) {
    // Can fail only on what is not a socket.
    let _ = SockRef::from(socket).set_linger(None);
}

/// Why a socket has failed. The kernel tells that once.
pub(crate) fn failure<S: AsFd>(socket: &S) -> io::Error {
    match SockRef::from(socket).take_error() {
        Ok(Some(error)) | Err(error) => error,
        Ok(None) => io::ErrorKind::ConnectionReset.into(),
    }
}

/// Bytes that the peer's kernel has not acknowledged yet.
pub(crate) fn unacknowledged<S: AsFd>(socket: &S) -> io::Result<u64> {
    ioctl::outq(socket.as_fd())
}

/// Whether the host has `address`: one can bind to it.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Lets the runtime wait for a descriptor of which it has no type.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    registration::register(fd)
}

mod registration {
    #![allow(unsafe_code, reason = "the safe way to register is deprecated")]

    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::unix::AsyncFd;

    pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an OwnedFd always tells the same descriptor, and keeps it open until the AsyncFd
        // that owns it has taken it out of the runtime's epoll.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(registered?)
    }
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

mod info {
    #![allow(unsafe_code, reason = "no safe wrapper has TCP_INFO")]

    use std::io;
    use std::mem::{MaybeUninit, offset_of, size_of};
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::time::Duration;

    use nix::libc::{IPPROTO_TCP, TCP_INFO, getsockopt, socklen_t, tcp_info};

    /// The shortest round trip that the connection has seen.
    pub(super) fn least_round_trip(socket: BorrowedFd<'_>) -> io::Result<Duration> {
        let mut info = MaybeUninit::<tcp_info>::zeroed();
        let mut length = size_of::<tcp_info>() as socklen_t;
        // SAFETY: the descriptor is borrowed for the call, which writes `length` bytes at most.
        let done = unsafe {
            getsockopt(
                socket.as_raw_fd(),
                IPPROTO_TCP,
                TCP_INFO,
                info.as_mut_ptr().cast(),
                &mut length,
            )
        };
        nix::errno::Errno::result(done)?;
        // SAFETY: it is plain numbers, all of which zeroes are valid for.
        let info = unsafe { info.assume_init() };
        // Linux 4.6 and later tell it, and by all ones that none was seen.
        let told = length as usize > offset_of!(tcp_info, tcpi_min_rtt);
        match info.tcpi_min_rtt {
            micros if told && micros != u32::MAX => Ok(Duration::from_micros(micros.into())),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
