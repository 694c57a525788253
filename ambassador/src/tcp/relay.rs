//! Both directions of a TCP flow, and how it ends.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::debug;

use super::direction::{Broken, Direction, Lane, Side};
use super::listener::Begun;
use super::reactor::{AGED, FAILED, Socket};
use crate::sys;
use crate::time::{sleep, timeout_at};

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    Client,
    Upstream,
}

/// How a flow ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both peers had finished.
    Finished {
        /// Who finished first.
        first: Peer,
    },
    /// A peer reset the connection or could not be reached any more.
    Lost { peer: Peer, error: io::Error },
}

/// Both directions, as far as they have come.
#[derive(Default)]
pub(super) struct Relay {
    inward: Half,
    outward: Half,
    /// The client finished while the upstream had not.
    client_first: bool,
    /// The upstream's socket is watched by keepalive and time-out.
    armed: bool,
}

#[derive(Default)]
struct Half {
    direction: Direction,
    /// The FIN was read.
    over: bool,
}

impl Begun {
    fn inward(&self) -> Lane<'_> {
        Lane {
            from: &self.client,
            to: &self.upstream,
            mode: self.mode,
            meter: &self.open.entry.inward,
            shared: self.shared(),
        }
    }

    fn outward(&self) -> Lane<'_> {
        Lane {
            from: &self.upstream,
            to: &self.client,
            mode: self.mode,
            meter: &self.open.entry.outward,
            shared: self.shared(),
        }
    }
}

impl Relay {
    /// Carries both ways until both peers have finished or one is lost. Then both connections can
    /// be dropped, which closes them alike: with FIN after FIN, with RST after anything else.
    pub(super) async fn run(begun: &Begun) -> End {
        begun.upstream.tell_age();
        let mut relay = Self::default();
        match poll_fn(|cx| relay.poll(begun, cx)).await {
            Ok(first) => {
                sys::close_orderly(&begun.client);
                sys::close_orderly(&begun.upstream);
                End::Finished { first }
            }
            Err((peer, error)) => {
                // Boxed: a flow that goes on must not pay for it.
                Box::pin(relay.last_words(peer, begun)).await;
                End::Lost { peer, error }
            }
        }
    }

    /// Who was the first to finish, once both peers have; else who is lost.
    fn poll(
        &mut self,
        begun: &Begun,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Peer, (Peer, io::Error)>> {
        let (client, upstream) = (&begun.client, &begun.upstream);
        if !self.armed && upstream.poll_ready(cx, AGED).is_ready() {
            self.armed = true;
            if let Err(error) = sys::watch_peer(upstream, &begun.shared().options) {
                debug!(%error, "keepalive");
            }
        }
        let (there, back) = (begun.inward(), begun.outward());
        if let Poll::Ready(Err(Broken { side, error })) =
            self.inward.poll(&there, self.outward.over, cx)
        {
            return Poll::Ready(Err((Peer::Client.or_other(side), error)));
        }
        if let Poll::Ready(Err(Broken { side, error })) =
            self.outward.poll(&back, self.inward.over, cx)
        {
            return Poll::Ready(Err((Peer::Upstream.or_other(side), error)));
        }
        self.client_first |= self.inward.over && !self.outward.over;
        if self.inward.over && self.outward.over {
            let first = if self.client_first {
                Peer::Client
            } else {
                Peer::Upstream
            };
            return Poll::Ready(Ok(first));
        }
        // Nobody reads from a peer that has finished, but it may still reset.
        if self.inward.over && client.poll_ready(cx, FAILED).is_ready() {
            return Poll::Ready(Err((Peer::Client, sys::failure(client))));
        }
        if self.outward.over && upstream.poll_ready(cx, FAILED).is_ready() {
            return Poll::Ready(Err((Peer::Upstream, sys::failure(upstream))));
        }
        Poll::Pending
    }

    /// Whether what the lost peer sent arrives or not, what follows is the reset.
    async fn last_words(&mut self, lost: Peer, begun: &Begun) {
        let deadline = Instant::now() + begun.shared().options.linger;
        let (lane, half) = match lost {
            Peer::Client => (begun.inward(), &mut self.inward),
            Peer::Upstream => (begun.outward(), &mut self.outward),
        };
        let carry = poll_fn(|cx| half.direction.poll_carry(&lane, cx));
        if let Ok(Ok(())) = timeout_at(deadline, carry).await {
            // What was to leave with a FIN: none will come.
            sys::push(lane.to);
            delivered(lane.to, deadline).await;
        }
    }
}

impl Half {
    /// Carries, and sends the FIN on; unless the other half is over too, for then both are closed.
    fn poll(
        &mut self,
        lane: &Lane<'_>,
        other_is_over: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(self.direction.poll_carry(lane, cx))?;
        self.over = true;
        if other_is_over {
            return Poll::Ready(Ok(()));
        }
        let shut = rustix::net::shutdown(lane.to, rustix::net::Shutdown::Write);
        Poll::Ready(match shut.map_err(io::Error::from) {
            // The peer has reset meanwhile; watching the socket tells so.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(Broken {
                side: Side::To,
                error,
            }),
            Ok(()) => Ok(()),
        })
    }
}

impl Peer {
    /// The one at `side` of the direction that comes from this one.
    fn or_other(self, side: Side) -> Self {
        match (self, side) {
            (peer, Side::From) => peer,
            (Self::Client, Side::To) => Self::Upstream,
            (Self::Upstream, Side::To) => Self::Client,
        }
    }
}

/// Waits until the peer's kernel has all that was sent, for a reset discards what is under way.
pub(crate) async fn delivered(survivor: &Socket, deadline: Instant) {
    // The kernel tells of room in the send queue, but not of its being empty: so ask.
    let mut pause = Duration::from_millis(1);
    while Instant::now() < deadline && !matches!(sys::unacknowledged(survivor), Ok(0) | Err(_)) {
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(50)),
            _ = survivor.ready(FAILED) => return,
        }
    }
}
