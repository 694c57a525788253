//! One client's session: a connected socket to its upstream, and the way back.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, info};

use super::batch::{Batch, LargestSegment, Sent, Way};
use super::packet::receive;
use super::unreachable::{Cause, Unreachable};
use super::{BUFFERS, Buffers, FIRST_LOOK, is_refusal};
use crate::balance::Choice;
use crate::flow::{EndCause, EndSide, Meter, OpenFlow};
use crate::running::{Entered, Running};
use crate::sys::mmsg::{BATCH, Inbox, Outbox};

/// Who a session belongs to: the client, and the local address it sends to.
pub(super) type Key = (SocketAddr, IpAddr);

/// What the sessions of a listener share.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) running: Arc<Running>,
    pub(super) unreachable: Unreachable,
    pub(super) begun: Instant,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) home: Arc<Home>,
    pub(super) key: Key,
    pub(super) upstream: UdpSocket,
    pub(super) choice: Choice,
    /// Nanoseconds from the listener's beginning to the last datagram in either direction.
    last: AtomicU64,
    dead: AtomicBool,
    there: LargestSegment,
    back: LargestSegment,
}

impl Home {
    /// Tells a client that its datagrams went nowhere.
    pub(super) fn tell(&self, (client, local): Key, cause: Cause) {
        let local = (local, self.running.local.port()).into();
        self.unreachable.tell(client, local, cause);
    }
}

impl Session {
    pub(super) fn new(home: Arc<Home>, key: Key, upstream: UdpSocket, choice: Choice) -> Self {
        let session = Self {
            home,
            key,
            upstream,
            choice,
            last: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            there: LargestSegment::unknown(),
            back: LargestSegment::unknown(),
        };
        session.touch();
        session
    }

    /// Sends to the upstream, from a message of the batch on. Not by tokio, which holds a socket
    /// for full until it was told otherwise, and has been told nothing about a fresh one.
    pub(super) fn send(&self, batch: &Batch<'_>, from: usize, outbox: &mut Outbox) -> Sent {
        let way = Way {
            socket: self.upstream.as_fd(),
            ends: None,
            largest: &self.there,
        };
        batch.send(from, &way, outbox)
    }

    /// Sends to the client. There is nobody to choose instead, so what is refused is lost.
    fn reply(&self, batch: &Batch<'_>, outbox: &mut Outbox) -> usize {
        let way = Way {
            socket: self.home.socket.as_fd(),
            ends: Some(self.key),
            largest: &self.back,
        };
        let sent = batch.send(0, &way, outbox);
        if let Some((_, error)) = sent.refused {
            debug!(client = %self.key.0, %error, "reply is lost");
        }
        sent.bytes
    }

    /// Sends back what waits in the session's socket, up to a turn's worth, or tells of the refusal
    /// that came instead.
    fn back(&self, meter: &Meter) -> io::Result<()> {
        BUFFERS.with_borrow_mut(|Buffers { inbox, outbox, .. }| {
            let first = self.receive(inbox, FIRST_LOOK)?;
            self.reply_all(first, inbox, outbox, meter);
            if first == FIRST_LOOK {
                let more = match self.receive(inbox, BATCH) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                    more => more?,
                };
                self.reply_all(more, inbox, outbox, meter);
            }
            Ok(())
        })
    }

    /// A batch, or a refusal; each makes the socket ready in its own way.
    fn receive(&self, inbox: &mut Inbox, most: usize) -> io::Result<usize> {
        // One after the other, for tokio never finds a socket ready for both at once.
        let received = receive(&self.upstream, Interest::READABLE, inbox, most);
        let received = match received {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                receive(&self.upstream, Interest::ERROR, inbox, most)
            }
            received => received,
        };
        received.inspect(|_| self.touch())
    }

    fn reply_all(&self, count: usize, inbox: &Inbox, outbox: &mut Outbox, meter: &Meter) {
        let mut batch = Batch::new();
        for arrival in (0..count).filter_map(|index| inbox.arrival(index)) {
            batch.push_all(arrival.bytes, arrival.segment, |batch| {
                meter.add(self.reply(batch, outbox));
            });
        }
        meter.add(self.reply(&batch, outbox));
    }

    pub(super) fn touch(&self) {
        let since = u64::try_from(self.home.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    pub(super) fn last_use(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Remembers that the upstream does not take datagrams. The next one finds another session;
    /// if there is no other endpoint, the client is told.
    pub(super) fn refused(&self, error: &io::Error) {
        let running = &self.home.running;
        self.dead.store(true, Ordering::Relaxed);
        let address = self.choice.address;
        let ejected = running.balancer.failed(address, error, Instant::now());
        running.totals.failed(address, ejected.is_some());
        info!(forward = %running.name, %address, %error, ?ejected, "session ends");
        if !running.balancer.has_alternative(address, Instant::now()) {
            self.home.tell(self.key, error.into());
        }
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
pub(super) async fn replies(session: Arc<Session>, flow: OpenFlow, _entered: Entered) {
    let ending = Ending(session);
    let session = &ending.0;
    let begun = Instant::now();
    let mut answered = false;
    let awaited = Interest::READABLE | Interest::ERROR;
    while session.upstream.ready(awaited).await.is_ok() {
        match session.back(&flow.entry.outward) {
            Ok(()) if !answered => {
                answered = true;
                let now = Instant::now();
                let balancer = &session.home.running.balancer;
                balancer.succeeded(session.choice.address, now - begun, now);
            }
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if is_refusal(&error) => {
                session.refused(&error);
                let cause = EndCause::from(&error);
                return flow.entry.end(cause, EndSide::Upstream, Some(error));
            }
            Err(error) => {
                let forward = &session.home.running.name;
                debug!(%forward, %error, "receive from upstream");
            }
        }
        tokio::task::yield_now().await;
    }
}
