//! Both directions of a flow that is encrypted at one end or both.
//!
//! As the relay of plain flows: FIN goes over as FIN, which TLS says by close_notify, and anything
//! else ends both connections with RST; so does a FIN that no close_notify came before, for then
//! nobody knows whether all has come.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf, split};
use tokio_rustls::TlsStream;

use super::handshake::{Encrypted, Peer as Holder};
use super::live::forbidden;
use super::raw::Raw;
use super::verify::PeerError;
use crate::edge::Cause;
use crate::flow::{Entry, Meter};
use crate::running::Running;
use crate::sys;
use crate::tcp::{Broken, End, FAILED, Peer, Side, Socket, delivered};
use crate::time::{sleep_until, timeout_at};

/// What one TLS record holds at most.
const BUFFER: usize = 16 << 10;

thread_local! {
    /// Lent for one read and the write after it, so that an idle flow holds no buffer but those of
    /// TLS itself.
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// One end of a flow.
pub(crate) enum Stream {
    Plain(Socket),
    Encrypted(Box<Encrypted>),
}

impl Stream {
    /// The connection, or what is below it.
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(encrypted) => encrypted.socket(),
        }
    }

    fn into_parts(self) -> (Wire, Rc<Socket>, Option<Holder>) {
        match self {
            Self::Plain(socket) => {
                let socket = Rc::new(socket);
                (Wire::Plain(Raw(socket.clone())), socket, None)
            }
            Self::Encrypted(encrypted) => {
                let Encrypted {
                    stream,
                    socket,
                    peer,
                } = *encrypted;
                (Wire::Tls(Box::new(stream)), socket, Some(peer))
            }
        }
    }
}

/// Carries both ways until both peers have finished, one is lost, or one may not speak any more.
pub(crate) async fn relay(
    client: Stream,
    upstream: Stream,
    entry: &Entry,
    running: &Running,
) -> End {
    let linger = running.shared.options.linger;
    let (client, client_socket, client_peer) = client.into_parts();
    let (upstream, upstream_socket, upstream_peer) = upstream.into_parts();
    let sockets = (&*client_socket, &*upstream_socket);
    if let Err(error) = sys::watch_peer(sockets.1, &running.shared.options) {
        tracing::debug!(%error, "keepalive");
    }
    let ((client_reads, client_writes), (upstream_reads, upstream_writes)) =
        (split(client), split(upstream));
    let direction = |from, to, socket, meter| Direction {
        from,
        to,
        socket,
        meter,
        linger,
        pending: Vec::new(),
        written: 0,
    };
    let mut inward = direction(client_reads, upstream_writes, sockets.0, &entry.inward);
    let mut outward = direction(upstream_reads, client_writes, sockets.1, &entry.outward);
    let carried = tokio::select! {
        carried = carry_both(&mut inward, &mut outward, sockets) => carried,
        error = barred(running, client_peer.as_ref()) => return revoked(Peer::Client, error, running),
        error = barred(running, upstream_peer.as_ref()) => {
            return revoked(Peer::Upstream, error, running);
        }
    };
    let (peer, error) = match carried {
        Ok(first) => {
            sys::close_orderly(sockets.0);
            sys::close_orderly(sockets.1);
            return End::Finished { first };
        }
        Err(lost) => lost,
    };
    let deadline = Instant::now() + linger;
    let (last_words, survivor) = match peer {
        Peer::Client => (&mut inward, sockets.1),
        Peer::Upstream => (&mut outward, sockets.0),
    };
    // Whether they end well or not, what follows is the reset.
    if timeout_at(deadline, last_words.carry()).await.is_ok() {
        delivered(survivor, deadline).await;
    }
    End::Lost { peer, error }
}

async fn barred(running: &Running, peer: Option<&Holder>) -> PeerError {
    match peer {
        Some(peer) => forbidden(running, peer).await,
        None => std::future::pending().await,
    }
}

fn revoked(peer: Peer, error: PeerError, running: &Running) -> End {
    running.totals.edge.add(Cause::TlsRevoked);
    tracing::warn!(forward = %running.name, ?peer, %error, "may not speak any more: reset");
    let error = io::Error::new(ErrorKind::PermissionDenied, error);
    End::Lost { peer, error }
}

/// Who was the first to finish, once both peers have; else who is lost.
async fn carry_both(
    inward: &mut Direction<'_>,
    outward: &mut Direction<'_>,
    (client, upstream): (&Socket, &Socket),
) -> Result<Peer, (Peer, io::Error)> {
    let mut first = None;
    let mut inward = pin!(inward.run());
    let mut outward = pin!(outward.run());
    let (mut inward_open, mut outward_open) = (true, true);
    while inward_open || outward_open {
        tokio::select! {
            biased;
            ended = &mut inward, if inward_open => match ended {
                Ok(()) => {
                    inward_open = false;
                    first.get_or_insert(Peer::Client);
                }
                Err(Broken { side: Side::From, error }) => return Err((Peer::Client, error)),
                Err(Broken { side: Side::To, error }) => return Err((Peer::Upstream, error)),
            },
            ended = &mut outward, if outward_open => match ended {
                Ok(()) => {
                    outward_open = false;
                    first.get_or_insert(Peer::Upstream);
                }
                Err(Broken { side: Side::From, error }) => return Err((Peer::Upstream, error)),
                Err(Broken { side: Side::To, error }) => return Err((Peer::Client, error)),
            },
            // Nobody reads from a peer that has finished, but it may still reset.
            _ = client.ready(FAILED), if !inward_open => {
                return Err((Peer::Client, sys::failure(client)));
            }
            _ = upstream.ready(FAILED), if !outward_open => {
                return Err((Peer::Upstream, sys::failure(upstream)));
            }
        }
    }
    Ok(first.unwrap_or(Peer::Client))
}

/// What follows when all is written.
type Last = fn(Pin<&mut WriteHalf<Wire>>, &mut Context<'_>) -> Poll<io::Result<()>>;

/// From one end to the other, until FIN or failure.
struct Direction<'a> {
    from: ReadHalf<Wire>,
    to: WriteHalf<Wire>,
    /// What is below `from`.
    socket: &'a Socket,
    meter: &'a Meter,
    linger: Duration,
    /// What was read and could not be written at once; empty otherwise.
    pending: Vec<u8>,
    written: usize,
}

impl Direction<'_> {
    /// Carries until `from` finishes, and finishes towards `to`.
    async fn run(&mut self) -> Result<(), Broken> {
        self.carry().await?;
        self.write_out(AsyncWrite::poll_shutdown).await
    }

    /// Carries until nothing more comes. Can be called after `run` was cancelled, and goes on with
    /// what was read and not yet written.
    async fn carry(&mut self) -> Result<(), Broken> {
        loop {
            self.write_out(AsyncWrite::poll_flush).await?;
            if std::future::poll_fn(|cx| self.poll_copy(cx)).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Reads into the thread's buffer, and writes what can be written; keeps the rest.
    fn poll_copy(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        SHARED.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            let came = Pin::new(&mut self.from).poll_read(cx, &mut read);
            if came.is_pending() {
                self.pending = Vec::new();
            }
            ready!(came).map_err(|error| broken(Side::From, error))?;
            let bytes = read.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let wrote = match Pin::new(&mut self.to).poll_write(cx, bytes) {
                Poll::Ready(Ok(wrote)) => wrote,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(Side::To, error))),
                Poll::Pending => 0,
            };
            self.meter.add(wrote);
            self.pending.extend_from_slice(&bytes[wrote..]);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Writes out whatever was read, and then does the `last` thing. Nobody reads `from` meanwhile,
    /// so its reset is watched for: what it sent before still gets the time to arrive, but not
    /// forever.
    async fn write_out(&mut self, last: Last) -> Result<(), Broken> {
        let mut give_up = None;
        loop {
            let socket = self.socket;
            let done = std::future::poll_fn(|cx| self.poll_write_out(cx, last));
            tokio::select! {
                biased;
                done = done => return done.map_err(|error| broken(Side::To, error)),
                _ = socket.ready(FAILED), if give_up.is_none() => {
                    give_up = Some(Instant::now() + self.linger);
                }
                () = async { sleep_until(give_up.expect("checked")).await }, if give_up.is_some() => {
                    return Err(broken(Side::From, ErrorKind::ConnectionReset.into()));
                }
            }
        }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>, last: Last) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let wrote = ready!(Pin::new(&mut self.to).poll_write(cx, rest))?;
            self.meter.add(wrote);
            self.written += wrote;
        }
        self.pending.clear();
        self.written = 0;
        last(Pin::new(&mut self.to), cx)
    }
}

fn broken(side: Side, error: io::Error) -> Broken {
    Broken { side, error }
}

/// Something to read and write, encrypted or not.
enum Wire {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(raw) => Pin::new(raw).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
