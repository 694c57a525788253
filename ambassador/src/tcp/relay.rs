//! Both directions of a TCP flow, and how it ends.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::direction::{Broken, Direction, Side, failure};
use super::pipe::PipePool;
use crate::flow::Entry;
use crate::{RelayMode, sys};

/// One of the two ends of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    Client,
    Upstream,
}

/// How a flow ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both peers had finished.
    Finished,
    /// A peer reset the connection or could not be reached any more.
    Lost { peer: Peer, error: io::Error },
}

/// Carries both ways until both peers have finished or one is lost, then closes both connections
/// alike: with FIN after FIN, with RST after anything else.
pub(super) async fn relay(
    client: TcpStream,
    upstream: TcpStream,
    mode: RelayMode,
    entry: &Entry,
    pool: &Arc<PipePool>,
    linger: Duration,
) -> End {
    let there = (&client, &upstream);
    let back = (&upstream, &client);
    let mut inward = Direction::new(there, mode, &entry.inward, pool, linger);
    let mut outward = Direction::new(back, mode, &entry.outward, pool, linger);
    let Some((peer, error)) = carry_both(&mut inward, &mut outward, there).await else {
        sys::close_orderly(&client);
        sys::close_orderly(&upstream);
        return End::Finished;
    };
    let deadline = Instant::now() + linger;
    let (last_words, survivor) = match peer {
        Peer::Client => (&mut inward, &upstream),
        Peer::Upstream => (&mut outward, &client),
    };
    // Whether they end well or not, what follows is the reset.
    if let Ok(Ok(())) = timeout_at(deadline, last_words.carry()).await {
        delivered(survivor, deadline).await;
    }
    End::Lost { peer, error }
}

/// None once both peers have finished; else who is lost.
async fn carry_both(
    inward: &mut Direction<'_>,
    outward: &mut Direction<'_>,
    (client, upstream): (&TcpStream, &TcpStream),
) -> Option<(Peer, io::Error)> {
    let mut inward = pin!(inward.run());
    let mut outward = pin!(outward.run());
    let (mut inward_open, mut outward_open) = (true, true);
    while inward_open || outward_open {
        tokio::select! {
            biased;
            ended = &mut inward, if inward_open => match ended {
                Ok(()) => inward_open = false,
                Err(Broken { side: Side::From, error }) => return Some((Peer::Client, error)),
                Err(Broken { side: Side::To, error }) => return Some((Peer::Upstream, error)),
            },
            ended = &mut outward, if outward_open => match ended {
                Ok(()) => outward_open = false,
                Err(Broken { side: Side::From, error }) => return Some((Peer::Upstream, error)),
                Err(Broken { side: Side::To, error }) => return Some((Peer::Client, error)),
            },
            // Nobody reads from a peer that has finished, but it may still reset.
            () = failure(client), if !inward_open => {
                return Some((Peer::Client, cause(client)));
            }
            () = failure(upstream), if !outward_open => {
                return Some((Peer::Upstream, cause(upstream)));
            }
        }
    }
    None
}

fn cause(failed: &TcpStream) -> io::Error {
    match failed.take_error() {
        Ok(Some(error)) | Err(error) => error,
        Ok(None) => io::ErrorKind::ConnectionReset.into(),
    }
}

/// Waits until the peer's kernel has all that was sent, for a reset discards what is under way.
async fn delivered(survivor: &TcpStream, deadline: Instant) {
    // The kernel tells of room in the send queue, but not of its being empty: so ask.
    let mut pause = Duration::from_millis(1);
    while Instant::now() < deadline && !matches!(sys::unacknowledged(survivor), Ok(0) | Err(_)) {
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(50)),
            () = failure(survivor) => return,
        }
    }
}
