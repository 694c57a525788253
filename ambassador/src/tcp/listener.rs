//! Accepts newcomers and gives each a task of its own, on the thread that accepts it.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable, FutureExt};
use tokio::task::yield_now;
use tracing::{debug, error, info, warn};

use super::connect::{ConnectError, connect, gone};
use super::reactor::{READABLE, Reactor, Socket};
use super::relay::{End, Peer, Relay};
use crate::balance::Choice;
use crate::edge::{self, EdgeError};
use crate::flow::{EndCause, EndSide, Ended, Joined, OpenFlow, Way};
use crate::running::{Entered, Running, Shared};
use crate::time::timeout;
use crate::tls::{self, Stream};
use crate::{RelayMode, sys};

const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Newcomers accepted before other tasks get their turn.
const TURN: u32 = 64;

/// Accepts until the forward is closed, and then whoever waits already. Its flows go on.
pub(super) async fn serve(listener: TcpListener, running: &Arc<Running>, reactor: &Rc<Reactor>) {
    let listener = match Socket::new(listener.into(), reactor) {
        Ok(listener) => listener,
        Err(error) => return error!(forward = %running.name, %error, "listen"),
    };
    tokio::select! {
        () = running.closed.cancelled() => {}
        () = accept(&listener, running, reactor) => {}
    }
    take_the_rest(&listener, running, reactor);
    // The socket may be open elsewhere: closing it here would not end the events.
    listener.forget();
}

/// Those who wait would be reset with the listener. Not more than the backlog holds, for others
/// may come all the time.
fn take_the_rest(listener: &Socket, running: &Arc<Running>, reactor: &Rc<Reactor>) {
    for _ in 0..sys::BACKLOG {
        let Some(entered) = running.try_enter() else {
            return;
        };
        match sys::accept(listener) {
            Ok((client, peer)) => start(client, peer, running, reactor, entered),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => return,
        }
    }
}

async fn accept(listener: &Socket, running: &Arc<Running>, reactor: &Rc<Reactor>) {
    let (mut pause, mut turn) = (FIRST_PAUSE, 0);
    loop {
        listener.ready(READABLE).await;
        // Before it is accepted: beyond the bound it waits in the backlog.
        let entered = running.enter_when_there_is_room().await;
        match listener.try_io(READABLE, || sys::accept(listener)) {
            Ok((client, peer)) => {
                pause = FIRST_PAUSE;
                start(client, peer, running, reactor, entered);
                turn += 1;
                if turn % TURN == 0 {
                    yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if is_of_one_connection(&error) => debug!(%error, "accept"),
            Err(error) => {
                drop(entered);
                // Such as EMFILE: the newcomer waits in the backlog, and a flow that ends helps.
                warn!(forward = %running.name, %error, ?pause, "accept pauses");
                let before = running.open.now();
                let fewer = running.open.wait(|now| now < before);
                if timeout(pause, fewer).await.is_err() {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

fn start(
    client: OwnedFd,
    peer: SocketAddr,
    running: &Arc<Running>,
    reactor: &Rc<Reactor>,
    entered: Entered,
) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let client = match Socket::new(client, reactor) {
        Ok(client) => client,
        // The kernel lacks memory or allows no more watches: dropping the socket resets it.
        Err(error) => return warn!(forward = %running.name, client = %peer, %error, "refused"),
    };
    let (end, ended) = AbortHandle::new_pair();
    let begin = Box::pin(begin(client, peer, end, entered));
    let flow = Abortable::new(flow(begin), ended);
    // Who aborts it has said why. Not by an async block, which would keep room for it twice.
    reactor.spawn(flow.map(drop));
}

/// Its future is what an idle flow costs: what comes before is boxed, and gone by then.
async fn flow(begin: Pin<Box<impl Future<Output = Option<Box<Begun>>>>>) {
    if let Some(begun) = begin.await {
        let end = Relay::run(&begun).await;
        finish(end, &begun.open, begun.choice.address);
    }
}

/// A flow that has an upstream.
pub(super) struct Begun {
    pub(super) client: Socket,
    pub(super) upstream: Socket,
    pub(super) open: OpenFlow,
    pub(super) mode: RelayMode,
    /// Counts as active there.
    choice: Choice,
    /// Knows the endpoint, if a server name led there.
    _route: Option<Arc<Running>>,
    entered: Entered,
}

impl Begun {
    pub(super) fn shared(&self) -> &Shared {
        &self.entered.running.shared
    }
}

/// None if it has ended already. So have those that speak TLS by then, which are carried from here:
/// those that do not are not to keep room for that.
async fn begin(
    client: Socket,
    peer: SocketAddr,
    end: AbortHandle,
    entered: Entered,
) -> Option<Box<Begun>> {
    let running = &*entered.running;
    let mut arrived = Arrived::new(&client, peer);
    let admitted = match edge::admit(client, peer, running).await {
        Ok(admitted) => admitted,
        Err(error) => {
            arrived.turn_away(error, running);
            return None;
        }
    };
    let (client, peer) = (admitted.stream.socket(), admitted.client);
    arrived.joined.client = peer;
    let upstreams = admitted.upstreams(running);
    let connected = tokio::select! {
        connected = connect(upstreams, peer.ip(), &admitted.stream) => connected,
        () = gone(client) => {
            arrived.left(EndCause::Reset, EndSide::Client, running);
            return None;
        }
    };
    let (upstream, choice, connect_time) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            arrived.refuse(error, running);
            return None;
        }
    };
    arrived.joined.upstream = Some(choice.address);
    arrived.joined.connect_time = Some(connect_time);
    let upstream = match edge::depart(upstream, choice.address, &admitted, running).await {
        Ok(upstream) => upstream,
        Err(error) => {
            arrived.turn_away(error, running);
            return None;
        }
    };
    let mode = running.limits.borrow().mode;
    let way = match mode {
        _ if edge::is_encrypted(&admitted.stream, &upstream) => Way::Tls,
        RelayMode::Auto => Way::Small,
        RelayMode::Copy => Way::CopyMode,
        RelayMode::Splice => Way::SpliceMode,
    };
    let flows = &running.shared.flows;
    let open = flows.open(&running.name, &running.totals, arrived.joined, way, end);
    if choice.is_over() {
        open.entry.end(EndCause::Removed, EndSide::Ambassador, None);
        let (forward, upstream) = (&running.name, choice.address);
        debug!(%forward, client = %peer, %upstream, "has left");
        return None;
    }
    match (admitted.stream, upstream) {
        (Stream::Plain(client), Stream::Plain(upstream)) => Some(Box::new(Begun {
            client,
            upstream,
            open,
            mode,
            choice,
            _route: admitted.route,
            entered,
        })),
        (client, upstream) => {
            let end = Box::pin(tls::relay(client, upstream, &open.entry, running)).await;
            finish(end, &open, choice.address);
            None
        }
    }
}

/// Enters how it ended into its record.
fn finish(end: End, open: &OpenFlow, upstream: SocketAddr) {
    let entry = &open.entry;
    let forward = entry.forward();
    match end {
        End::Finished { first } => {
            debug!(%forward, %upstream, "finished");
            entry.end(EndCause::Finished, first.into(), None);
        }
        End::Lost { peer: lost, error } => {
            debug!(%forward, %upstream, ?lost, %error, "reset");
            entry.end(EndCause::from(&error), lost.into(), Some(error));
        }
    }
}

impl From<Peer> for EndSide {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Client => Self::Client,
            Peer::Upstream => Self::Upstream,
        }
    }
}

/// A newcomer that is not joined to an upstream yet.
struct Arrived {
    joined: Joined,
    at: Instant,
}

impl Arrived {
    fn new(client: &Socket, peer: SocketAddr) -> Self {
        let canonical = |local: SocketAddr| (local.ip().to_canonical(), local.port()).into();
        Self {
            joined: Joined {
                client: peer,
                local: sys::local_address(client).ok().map(canonical),
                upstream: None,
                connect_time: None,
            },
            at: Instant::now(),
        }
    }

    /// Dropping the client's socket resets it, as the upstream itself would have.
    fn refuse(mut self, error: ConnectError, running: &Running) {
        running.totals.refused.fetch_add(1, Relaxed);
        let (name, client) = (&running.name, self.joined.client);
        let cause = error.source().map(ToString::to_string);
        info!(forward = %name, %client, %error, cause, "refused");
        let (endpoint, ended) = error.into_end();
        self.joined.upstream = endpoint;
        self.close(ended, running);
    }

    /// What is wrong has been told already.
    fn turn_away(self, error: EdgeError, running: &Running) {
        self.close(error.into_end(), running);
    }

    fn left(self, cause: EndCause, side: EndSide, running: &Running) {
        let error = None;
        self.close(Ended { cause, side, error }, running);
    }

    fn close(self, ended: Ended, running: &Running) {
        let (name, totals, flows) = (&running.name, &running.totals, &running.shared.flows);
        let waited = (Way::Small, self.at.elapsed());
        flows.never_opened(name, totals, self.joined, waited, ended);
    }
}
