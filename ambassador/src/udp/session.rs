//! One client's session: a connected socket to its upstream, and the way back.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, info};

use super::packet::reply;
use super::{SHARED, TURN, is_refusal};
use crate::balance::Choice;
use crate::flow::{EndCause, EndSide, OpenFlow};
use crate::running::{Entered, Running};

/// Who a session belongs to: the client, and the local address it sends to.
pub(super) type Key = (SocketAddr, IpAddr);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) upstream: UdpSocket,
    pub(super) choice: Choice,
    /// Nanoseconds from the listener's beginning to the last datagram in either direction.
    pub(super) last: AtomicU64,
    pub(super) dead: AtomicBool,
    pub(super) begun: Instant,
}

/// A socket connected to `address`, so that ICMP errors come back to it.
pub(super) fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

impl Session {
    /// Sends at once or not at all. Not by tokio, which holds a socket for full until it was told
    /// otherwise, and has been told nothing about a fresh one.
    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(
            &self.upstream,
            datagram,
            SendFlags::DONTWAIT,
        )?)
    }

    /// What came, or the refusal that came instead; each makes the socket ready in its own way.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut receive = || {
            let (bytes, _) = rustix::net::recv(&self.upstream, &mut *buffer, RecvFlags::DONTWAIT)?;
            Ok(bytes)
        };
        // One after the other, for tokio never finds a socket ready for both at once.
        match self.upstream.try_io(Interest::READABLE, &mut receive) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.upstream.try_io(Interest::ERROR, receive)
            }
            received => received,
        }
    }

    pub(super) fn touch(&self) {
        let since = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    /// Remembers that the upstream does not take datagrams. The next one finds another session.
    pub(super) fn refused(&self, running: &Running, error: &io::Error) {
        self.dead.store(true, Ordering::Relaxed);
        let address = self.choice.address;
        let ejected = running.balancer.failed(address, error, Instant::now());
        running.totals.failed(address, ejected.is_some());
        info!(forward = %running.name, %address, %error, ?ejected, "session ends");
    }
}

/// Marks the session dead however its task ends.
struct Ending(Arc<Session>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.dead.store(true, Ordering::Relaxed);
    }
}

/// Sends replies back to the client until the upstream refuses.
pub(super) async fn replies(
    session: Arc<Session>,
    key: Key,
    socket: Arc<UdpSocket>,
    running: Arc<Running>,
    flow: OpenFlow,
    _entered: Entered,
) {
    let ending = Ending(session);
    let session = &ending.0;
    let begun = Instant::now();
    let mut answered = false;
    let awaited = Interest::READABLE | Interest::ERROR;
    while session.upstream.ready(awaited).await.is_ok() {
        match back(session, key, &socket, &flow) {
            Ok(()) if !answered => {
                answered = true;
                let now = Instant::now();
                let address = session.choice.address;
                running.balancer.succeeded(address, now - begun, now);
            }
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if is_refusal(&error) => {
                session.refused(&running, &error);
                let cause = EndCause::from(&error);
                return flow.entry.end(cause, EndSide::Upstream, Some(error));
            }
            Err(error) => debug!(forward = %running.name, %error, "receive from upstream"),
        }
        tokio::task::yield_now().await;
    }
}

/// Sends back what waits in the session's socket, up to a turn's worth.
fn back(
    session: &Session,
    (client, local): Key,
    socket: &UdpSocket,
    flow: &OpenFlow,
) -> io::Result<()> {
    SHARED.with_borrow_mut(|buffer| {
        for turn in 0..TURN {
            let bytes = match session.receive(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && turn > 0 => return Ok(()),
                received => received?,
            };
            session.touch();
            match reply(socket, &buffer[..bytes], client, local) {
                Ok(sent) => flow.entry.outward.add(sent),
                // A full queue or a client that is gone: datagrams may be lost.
                Err(error) => debug!(%client, %error, "reply is lost"),
            }
        }
        Ok(())
    })
}
