//! The UDP side: sessions between clients and upstreams.

mod packet;
mod session;
mod sessions;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::running::Running;
use crate::tcp;
pub(crate) use packet::listen;
use packet::{Datagram, receive};
use sessions::Sessions;

/// Datagrams taken before other tasks get their turn.
const TURN: usize = 64;
const LARGEST: usize = 65_535;

thread_local! {
    /// Lent for one datagram, so that sessions hold no buffers.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into());
}

/// Carries datagrams until the forward is closed and its last session has ended.
pub(crate) async fn serve(socket: Arc<UdpSocket>, running: Arc<Running>) {
    let closed = &running.closed;
    let mut left = running.left.subscribe();
    let mut sessions = Sessions::new(socket.clone(), running.clone());
    // Until discovery has answered, newcomers wait in the socket's queue.
    tokio::select! {
        resolved = tcp::resolved(&running) => if let Err(error) = resolved {
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
    SHARED.with_borrow_mut(|buffer| {
        for _ in 0..TURN {
            match receive(socket, buffer) {
                Ok(Datagram {
                    bytes,
                    client,
                    local,
                }) => {
                    sessions.forward((client, local), &buffer[..bytes], newcomers);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error of some reply: it says nothing about this socket.
                Err(error) => debug!(%error, "receive"),
            }
        }
    });
}

/// Whether the upstream told by ICMP that nobody takes the datagrams.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}
