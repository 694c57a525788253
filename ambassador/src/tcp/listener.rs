//! Accepts newcomers and gives each a task of its own.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::connect::{ConnectError, connect, gone};
use super::relay::{End, relay};
use crate::RelayMode;
use crate::flow::Way;
use crate::running::{Entered, Running};

const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Accepts until the forward is closed. Its flows go on.
pub(crate) async fn serve(listener: Arc<TcpListener>, running: Arc<Running>) {
    tokio::select! {
        () = running.closed.cancelled() => {}
        () = accept(&listener, &running) => {}
    }
}

async fn accept(listener: &TcpListener, running: &Arc<Running>) {
    let mut pause = FIRST_PAUSE;
    loop {
        running.room().await;
        match listener.accept().await {
            Ok((client, peer)) => {
                pause = FIRST_PAUSE;
                start(client, peer, running);
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "accept"),
            Err(error) => {
                // Such as EMFILE: the newcomer waits in the backlog, and a flow that ends helps.
                warn!(forward = %running.name, %error, ?pause, "accept pauses");
                let mut open = running.open.subscribe();
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    _ = open.changed() => {}
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

fn start(client: TcpStream, peer: SocketAddr, running: &Arc<Running>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let entered = running.enter();
    let (end, ended) = AbortHandle::new_pair();
    let flow = flow(client, peer, running.clone(), end, entered);
    tokio::spawn(Abortable::new(flow, ended));
}

async fn flow(
    client: TcpStream,
    peer: SocketAddr,
    running: Arc<Running>,
    end: AbortHandle,
    _entered: Entered,
) {
    let connected = tokio::select! {
        connected = connect(&running, peer.ip()) => connected,
        () = gone(&client) => return,
        () = running.shared.stopped.cancelled() => return,
    };
    let (upstream, choice) = match connected {
        Ok(connected) => connected,
        Err(error) => return refuse(&error, peer, &running),
    };
    let (name, shared) = (&running.name, &running.shared);
    let mode = running.limits.borrow().mode;
    let way = match mode {
        RelayMode::Auto => Way::Small,
        RelayMode::Copy => Way::CopyMode,
        RelayMode::Splice => Way::SpliceMode,
    };
    let ends = (peer, choice.address);
    let open = shared.flows.open(name, &running.totals, ends, way, end);
    if choice.is_over() {
        return debug!(forward = %name, client = %peer, upstream = %choice.address, "has left");
    }
    let linger = shared.options.linger;
    let end = relay(client, upstream, mode, &open.entry, &shared.pipes, linger).await;
    match end {
        End::Finished => debug!(forward = %name, client = %peer, "finished"),
        End::Lost { peer: lost, error } => {
            debug!(forward = %name, client = %peer, upstream = %choice.address, ?lost, %error, "reset");
        }
    }
}

/// Dropping the client's socket resets it, as the upstream itself would have.
fn refuse(error: &ConnectError, client: SocketAddr, running: &Running) {
    running.totals.refused.fetch_add(1, Relaxed);
    let cause = error.source().map(ToString::to_string);
    info!(forward = %running.name, %client, %error, cause, "refused");
}
