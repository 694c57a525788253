//! The UDP socket, which takes and gives trains of datagrams.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    time::Duration,
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force},
};
use socket2::{Domain, Protocol, Type};

/// What the kernel may keep for us while we are not scheduled: about 4 ms at 16 Gb/s.
const BUFFER: usize = 8 << 20;
/// How long the kernel may have no room for a train before it is dropped.
const ROOM: Duration = Duration::from_millis(50);
/// How long to wait for a train; only the end of the tunnel is noticed late for it.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Socket {
    socket: socket2::Socket,
    state: UdpSocketState,
}

impl Socket {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        // The usual limit is three trains. Who may not go beyond it has what it allows.
        if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(BUFFER);
        }
        if set_socket_send_buffer_size_force(&socket, BUFFER).is_err() {
            let _ = socket.set_send_buffer_size(BUFFER);
        }
        socket.bind(&address.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        // One call a train, and none to wait for it.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(ROOM))?;
        Ok(Self { socket, state })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?.as_socket();
        address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// How many datagrams of one size the kernel takes at once.
    pub(crate) fn longest_train(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends datagrams of `segment` bytes each, but for the last, which may be shorter.
    pub(crate) fn send(&self, to: SocketAddr, train: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: train,
            segment_size: (train.len() > segment).then_some(segment),
            src_ip: None,
        };
        self.state.try_send((&self.socket).into(), &transmit)
    }

    /// Waits for a train, for a while, and tells its length, that of its datagrams, and whose it is.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<RecvMeta>> {
        let mut meta = [RecvMeta::default()];
        loop {
            let buffers = &mut [IoSliceMut::new(buffer)];
            match self.state.recv((&self.socket).into(), buffers, &mut meta) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    let [meta] = meta;
                    return Ok(Some(meta));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // A peer refused what was sent to it. That is told once, and the socket goes on.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether `fd` becomes ready within `patience`.
pub(crate) fn wait(
    fd: &impl std::os::fd::AsFd,
    events: PollFlags,
    patience: Duration,
) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(fd, events)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
