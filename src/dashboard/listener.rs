//! Serves browsers on loopback: a bounded number of connections, each of which must take in time what it is sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, Shared};
use super::patient::Patient;

/// Connections at once. A browser opens six for a page at most, and one for each WebSocket.
const CONNECTIONS: usize = 512;
/// What the next one is told.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 5\r\nconnection: close\r\n\r\n\
     512 connections to the dashboard are open already: close some pages\n";
/// How long one may take to ask, and be idle between two questions.
const QUESTION: Duration = Duration::from_secs(15);
/// How long a browser may take nothing of what it is sent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that wait for a browser within this process.
const WAITING: usize = 64 << 10;
/// After a failure such as EMFILE, which passes.
const BACKOFF: Duration = Duration::from_millis(200);

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, gate: Arc<Gate>, stop: CancellationToken) {
    let mut open = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept a browser");
                    sleep(BACKOFF).await;
                    continue;
                }
            },
        };
        if open.len() < CONNECTIONS {
            open.spawn(talk(Arc::clone(&gate), stream, peer));
        } else {
            // It fits into the socket's buffer; who has gone already need not be told.
            let _ = stream.writable().await;
            let _ = stream.try_write(FULL.as_bytes());
        }
    }
}

async fn talk(gate: Shared, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true); // no more than a delay if it fails
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let gate = Arc::clone(&gate);
        async move { Ok::<_, Infallible>(gate.answer(request.map(Body::new), peer).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(QUESTION)
        .max_buf_size(WAITING);
    let stream = TokioIo::new(Patient::new(stream, PATIENCE));
    if let Err(error) = http.serve_connection(stream, service).with_upgrades().await {
        // Whoever takes nothing is told of at warn, whoever just leaves is not.
        let stuck = std::error::Error::source(&error)
            .and_then(|source| source.downcast_ref::<std::io::Error>())
            .is_some_and(|source| source.kind() == std::io::ErrorKind::TimedOut);
        match stuck {
            true => tracing::warn!(%peer, error = %error, "a page did not keep up and is let go"),
            false => tracing::debug!(%peer, %error, "a browser"),
        }
    }
}
