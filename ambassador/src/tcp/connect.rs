//! Finds an upstream that takes the connection, before a byte of it was forwarded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::reactor::{FAILED, Socket, WRITABLE};
use crate::balance::Choice;
use crate::flow::{EndCause, EndSide, Ended};
use crate::running::Running;
use crate::sys::{self, Congestion, FirstWord};
use crate::time::{sleep, timeout_at};
use crate::tls::Stream;

const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Why a newcomer was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no upstream is known after {0:?}")]
    Unresolved(Duration),
    #[error("discovery has found no upstream")]
    NoEndpoint,
    #[error("{0} newcomers wait for an upstream already, which is max_pending")]
    Queue(usize),
    #[error("all upstreams have as many flows as max_per_endpoint allows, after {0:?}")]
    Full(Duration),
    #[error("{0} has left the set")]
    Left(SocketAddr),
    #[error("connect to {address}")]
    Failed {
        address: SocketAddr,
        source: io::Error,
    },
}

impl ConnectError {
    /// The endpoint that was tried last, and how the flow ended that never began.
    pub(crate) fn into_end(self) -> (Option<SocketAddr>, Ended) {
        let (endpoint, cause, side, error) = match self {
            Self::Unresolved(_) => (None, EndCause::Timeout, EndSide::Ambassador, None),
            Self::NoEndpoint => (None, EndCause::Unknown, EndSide::Ambassador, None),
            Self::Queue(_) => (None, EndCause::Refused, EndSide::Ambassador, None),
            Self::Full(_) => (None, EndCause::Timeout, EndSide::Ambassador, None),
            Self::Left(address) => (Some(address), EndCause::Removed, EndSide::Ambassador, None),
            Self::Failed { address, source } => {
                let cause = EndCause::from(&source);
                (Some(address), cause, EndSide::Upstream, Some(source))
            }
        };
        (endpoint, Ended { cause, side, error })
    }
}

/// Waits until discovery has answered once, for a bounded time that `sleep` measures.
pub(crate) async fn resolved<S: Future<Output = ()>>(
    running: &Running,
    sleep: impl FnOnce(Duration) -> S,
) -> Result<(), ConnectError> {
    if !*running.resolved.borrow() {
        let hold = running.shared.options.hold;
        let mut resolved = running.resolved.subscribe();
        tokio::select! {
            biased;
            _ = resolved.wait_for(|resolved| *resolved) => {}
            () = sleep(hold) => return Err(ConnectError::Unresolved(hold)),
        }
    }
    if running.balancer.is_empty() {
        return Err(ConnectError::NoEndpoint);
    }
    Ok(())
}

/// Tries each endpoint at most once, as many as the forward's retries allow, within its time.
///
/// `client` is what `stream` came from, or what its proxy says. Returns as well how long the one that
/// accepted took to.
pub(super) async fn connect(
    running: &Running,
    client: IpAddr,
    stream: &Stream,
) -> Result<(Socket, Choice, Duration), ConnectError> {
    let limits = *running.limits.borrow();
    let pending = running.pend();
    let _pending = pending.ok_or(ConnectError::Queue(limits.max_pending))?;
    resolved(running, sleep).await?;
    let deadline = Instant::now() + limits.connect_timeout;
    let mut tried = Vec::new();
    let mut last = None;
    loop {
        let choosing = running.balancer.choose_when_free(client, &tried);
        let choice = match timeout_at(deadline, choosing).await {
            Ok(Some(choice)) => choice,
            Ok(None) => return Err(last.unwrap_or(ConnectError::NoEndpoint)),
            Err(_) => return Err(ConnectError::Full(limits.connect_timeout)),
        };
        let address = choice.address;
        if last.is_some() {
            running.totals.retries.fetch_add(1, Relaxed);
        }
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        // One that swallows the SYN must leave time for another.
        let may_retry = tried.len() < limits.retries;
        let others = may_retry && (running.balancer).has_others(address, &tried, begun);
        let until = begun + if others { left / 2 } else { left };
        let error = match timeout_at(until, attempt(running, address, stream)).await {
            Ok(Ok(_)) if choice.is_over() => ConnectError::Left(address),
            Ok(Ok(stream)) => {
                let now = Instant::now();
                (running.balancer).succeeded(address, now - begun, now);
                return Ok((stream, choice, now - begun));
            }
            Ok(Err(source)) => failed(running, address, source),
            Err(_) => failed(running, address, io::ErrorKind::TimedOut.into()),
        };
        if !may_retry || Instant::now() >= deadline {
            return Err(error);
        }
        last = Some(error);
        tried.push(address);
    }
}

/// Counts a failure against the endpoint, which may eject it for a while.
pub(crate) fn failed(running: &Running, address: SocketAddr, source: io::Error) -> ConnectError {
    let name = &running.name;
    let ejected = (running.balancer).failed(address, &source, Instant::now());
    running.totals.failed(address, ejected.is_some());
    match ejected {
        Some(pause) => {
            warn!(forward = %name, %address, error = %source, ?pause, "endpoint is ejected");
            running.shared.direct.tell();
        }
        None => debug!(forward = %name, %address, error = %source, "connect"),
    }
    ConnectError::Failed { address, source }
}

/// Connects, waiting out a shortage on this host, for which the endpoint is not to blame.
async fn attempt(running: &Running, address: SocketAddr, stream: &Stream) -> io::Result<Socket> {
    loop {
        match connect_once(running, address, stream).await {
            Err(error) if is_shortage(&error) => {
                debug!(forward = %running.name, %address, %error, "connect waits");
                sleep(SHORTAGE_PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn connect_once(
    running: &Running,
    address: SocketAddr,
    stream: &Stream,
) -> io::Result<Socket> {
    let congestion = *(running.shared.congestion).get_or_init(Congestion::here);
    let upstream = sys::begin_connect(address, congestion, first_word(stream))?;
    let socket = Socket::new(upstream, stream.socket().reactor())?;
    if socket.ready(WRITABLE | FAILED).await & FAILED != 0 {
        // SO_ERROR would take an upstream that sent data and reset at once for one that never
        // answered.
        sys::peek(&socket)?;
    }
    // A connect to a free port of the ephemeral range can meet itself.
    if address.ip().is_loopback() && sys::local_address(&socket)? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

/// What the client has sent already is sent on as soon as there is a connection.
fn first_word(client: &Stream) -> FirstWord {
    match client {
        Stream::Plain(client) if sys::has_unread(client) => FirstWord::Ours,
        _ => FirstWord::Unknown,
    }
}

/// Returns when the client has reset and left nothing to forward.
pub(super) async fn gone(client: &Socket) {
    client.ready(FAILED).await;
    if sys::peek(client).is_ok_and(|waits| waits) {
        std::future::pending::<()>().await;
    }
}

/// Whether this host lacks descriptors, memory or ports.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | EADDRNOTAVAIL)
    )
}
