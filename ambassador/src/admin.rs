//! Shows and changes what an ambassador does, over HTTP.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::direct::{DirectCgroup, DirectForward};
use crate::{Control, Flow, PutError, metrics, spec};

const LARGEST_CONFIG: usize = 4 << 20;

/// `GET /metrics` (OpenMetrics), `GET /ready` (200 or 503), `GET /flows` (JSON), `GET /direct`
/// (JSON: what goes without a relay, or why not), `GET /config` and
/// `PUT /config` (JSON, as [`spec::to_json`] writes it; applied as a whole or not at all).
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/ready", get(ready))
        .route("/flows", get(flows))
        .route("/direct", get(direct))
        .route("/config", get(config).put(put_config))
        .layer(DefaultBodyLimit::max(LARGEST_CONFIG))
        .with_state(control)
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    match metrics::text(control.ambassador()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "metrics", None, &error),
    }
}

async fn ready(State(control): State<Arc<Control>>) -> (StatusCode, &'static str) {
    if control.ambassador().is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn flows(State(control): State<Arc<Control>>) -> Json<Value> {
    let direct = control.ambassador().direct();
    let flows = control.ambassador().flows();
    Json(flows.iter().map(|open| flow(open, &direct)).collect())
}

fn flow(flow: &Flow, direct: &[DirectForward]) -> Value {
    let since = flow.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let direct = direct.iter().find(|known| known.forward == flow.forward);
    json!({
        "not_direct": direct.map(DirectForward::reason),
        "id": flow.id,
        "forward": flow.forward,
        "client": flow.client,
        "upstream": flow.upstream,
        "datapath": flow.datapath.name(),
        "reason": flow.reason,
        "bytes_in": flow.bytes_in,
        "bytes_out": flow.bytes_out,
        "since": since.as_secs_f64(),
    })
}

async fn direct(State(control): State<Arc<Control>>) -> Json<Value> {
    let forwards = control.ambassador().direct();
    Json(forwards.iter().map(direct_forward).collect())
}

fn direct_forward(forward: &DirectForward) -> Value {
    let cgroup =
        |cgroup: &DirectCgroup| json!({ "path": cgroup.path, "unavailable": cgroup.unavailable });
    let connects = |(endpoint, connects): &(SocketAddr, u64)| json!({ "endpoint": endpoint, "connects": connects });
    json!({
        "forward": forward.forward,
        "service": forward.service,
        "unavailable": forward.unavailable,
        "cgroups": forward.cgroups.iter().map(cgroup).collect::<Value>(),
        "connects": forward.connects.iter().map(connects).collect::<Value>(),
    })
}

async fn config(State(control): State<Arc<Control>>) -> Json<Value> {
    Json(spec::to_json(&control.specs().await))
}

async fn put_config(State(control): State<Arc<Control>>, body: Bytes) -> Response {
    let specs = match spec::from_json(&body) {
        Ok(specs) => specs,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "malformed", None, &error),
    };
    let error = match control.put(specs).await {
        Ok(()) => return StatusCode::NO_CONTENT.into_response(),
        Err(error) => error,
    };
    match &error {
        PutError::Resolve(source) => {
            refusal(StatusCode::BAD_REQUEST, "unknown-service", None, source)
        }
        PutError::Apply(source) => refusal(
            StatusCode::CONFLICT,
            source.kind(),
            source.forward(),
            source,
        ),
    }
}

/// The message is the whole chain of causes.
fn refusal(status: StatusCode, kind: &str, forward: Option<&str>, error: &dyn Error) -> Response {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    let body = json!({ "message": message, "kind": kind, "forward": forward });
    (status, Json(body)).into_response()
}
