//! Has each change that is asked for written down.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::daemon::Daemon;
use crate::daemon::audit::Entry;
use crate::daemon::caller::Caller;

/// Bytes of a path that are written; more could only be somebody's rubbish.
const LONGEST: usize = 4096;

pub(super) async fn write_down(
    State(daemon): State<Arc<Daemon>>,
    ConnectInfo(peer): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    ) {
        return next.run(request).await;
    }
    let (method, uri, began) = (
        request.method().clone(),
        request.uri().clone(),
        Instant::now(),
    );
    let answer = next.run(request).await;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    daemon.audit.write(&Entry {
        time: jiff::Timestamp::now(),
        peer: &peer,
        method: method.as_str(),
        path: path.get(..LONGEST).unwrap_or(path),
        status: answer.status().as_u16(),
        duration: began.elapsed().as_secs_f64(),
    });
    answer
}
