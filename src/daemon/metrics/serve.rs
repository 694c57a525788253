//! Serving the figures by HTTP, to a bounded number of readers that get a bounded time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plain::plain;
use crate::daemon::Daemon;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Readers at once; further ones wait to be accepted.
const READERS: usize = 64;
/// How long one may take to ask.
const QUESTION: Duration = Duration::from_secs(5);
/// How long one may take to ask and to take the answer; then it is let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a failure such as EMFILE, which passes.
const BACKOFF: Duration = Duration::from_millis(200);

/// Listens where the figures are to be served.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("listen on --metrics-addr {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "serving metrics");
    Ok(listener)
}

/// Serves figures until `stop`.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: TcpListener, stop: CancellationToken) {
    let turn = Arc::new(Mutex::new(()));
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = readers.join_next() => {}
            accepted = listener.accept(), if readers.len() < READERS => match accepted {
                Ok((stream, peer)) => {
                    readers.spawn(answer(Arc::clone(&daemon), Arc::clone(&turn), stream, peer));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a reader of metrics");
                    sleep(BACKOFF).await;
                }
            },
        }
    }
}

/// One request and its answer. Who takes too long is let go.
async fn answer(daemon: Arc<Daemon>, turn: Arc<Mutex<()>>, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(|request| {
        let (daemon, turn) = (Arc::clone(&daemon), Arc::clone(&turn));
        async move { Ok::<_, std::convert::Infallible>(respond(&daemon, &turn, &request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(QUESTION)
        .keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a reader of metrics"),
        Err(_) => {
            tracing::warn!(%peer, "a reader of metrics did not keep up within {PATIENCE:?} and is let go");
        }
    }
}

async fn respond<B>(
    daemon: &Arc<Daemon>,
    turn: &Mutex<()>,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let say = |status, text: &str| {
        let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return say(
            StatusCode::NOT_FOUND,
            "there is /metrics here, and nothing else",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = say(
            StatusCode::METHOD_NOT_ALLOWED,
            "metrics can be read, with GET",
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // One after the other: many readers cost no more at once than one.
    let _turn = turn.lock().await;
    let Ok(text) = daemon.figures().await else {
        return say(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the figures cannot be written",
        );
    };
    let accepted = request.headers().get_all(ACCEPT).into_iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    let (kind, text) = match accepted.any(|value| value.contains("application/openmetrics-text")) {
        true => (OPENMETRICS, text),
        false => (PLAIN, plain(&text)),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
