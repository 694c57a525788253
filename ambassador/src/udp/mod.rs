//! The UDP side: sessions between clients and upstreams.

mod batch;
mod maglev;
mod packet;
mod picker;
mod session;
mod sessions;
mod unreachable;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use crate::running::Running;
use crate::sys::mmsg::{BATCH, Inbox, Outbox};
use crate::tcp;
use batch::Batch;
pub(crate) use packet::listen;
use packet::receive;
use session::Key;
use sessions::Sessions;

/// Messages that are asked for first. Only where there are as many, a whole batch is asked for,
/// since preparing one takes as long as a small datagram.
const FIRST_LOOK: usize = 8;

/// A thread's buffers, lent for one turn, so that sessions hold none. They may grow to 4 MiB.
struct Buffers {
    inbox: Inbox,
    outbox: Outbox,
    /// Whose the messages of the inbox are; none if that is not known, or they have been sent on.
    keys: Vec<Option<Key>>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        inbox: Inbox::new(),
        outbox: Outbox::new(),
        keys: Vec::with_capacity(BATCH),
    });
}

/// Carries datagrams until the forward is closed and its last session has ended.
pub(crate) async fn serve(socket: Arc<UdpSocket>, running: Arc<Running>) {
    let closed = &running.closed;
    let mut left = running.left.subscribe();
    let mut sessions = Sessions::new(socket.clone(), running.clone());
    // Until discovery has answered, newcomers wait in the socket's queue.
    tokio::select! {
        resolved = tcp::resolved(&running, sleep) => if let Err(error) = resolved {
            debug!(forward = %running.name, %error, "datagrams are dropped");
        },
        () = closed.cancelled() => {}
    }
    loop {
        if closed.is_cancelled() && sessions.is_over() {
            return;
        }
        // After a hand-over what comes is a successor's; replies go on.
        let handed_over = || running.handed_over.load(Ordering::Relaxed);
        tokio::select! {
            ready = socket.readable(), if !handed_over() => match ready {
                Ok(()) if handed_over() => {}
                Ok(()) => take_turn(&socket, &mut sessions, !closed.is_cancelled()),
                Err(error) => return debug!(forward = %running.name, %error, "socket is gone"),
            },
            _ = left.changed() => sessions.drop_strays(),
            () = expiry(sessions.next_expiry()) => sessions.expire(),
            () = closed.cancelled(), if !closed.is_cancelled() => {}
        }
        tokio::task::yield_now().await;
    }
}

async fn expiry(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Forwards what waits in the socket, up to a turn's worth.
fn take_turn(socket: &UdpSocket, sessions: &mut Sessions, newcomers: bool) {
    BUFFERS.with_borrow_mut(|buffers| {
        for most in [FIRST_LOOK, BATCH] {
            match receive(socket, Interest::READABLE, &mut buffers.inbox, most) {
                Ok(count) => {
                    forward(buffers, count, sessions, newcomers);
                    if count < most {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error of some reply: it says nothing about this socket.
                Err(error) => debug!(%error, "receive"),
            }
        }
    });
}

/// Sends on what came, all of a session together, and in order within it.
fn forward(buffers: &mut Buffers, count: usize, sessions: &mut Sessions, newcomers: bool) {
    let Buffers {
        inbox,
        outbox,
        keys,
    } = buffers;
    keys.clear();
    keys.extend((0..count).map(|index| {
        let arrival = inbox.arrival(index)?;
        Some((arrival.from?, arrival.to?))
    }));
    let mut batch = Batch::new();
    for first in 0..count {
        let Some(key) = keys[first] else {
            continue;
        };
        batch.clear();
        for (index, other) in keys.iter_mut().enumerate().skip(first) {
            if *other == Some(key)
                && let Some(arrival) = inbox.arrival(index)
            {
                *other = None;
                batch.push_all(arrival.bytes, arrival.segment, |batch| {
                    sessions.forward(key, batch, outbox, newcomers);
                });
            }
        }
        sessions.forward(key, &batch, outbox, newcomers);
    }
}

/// Whether the upstream told by ICMP that nobody takes the datagrams.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}
