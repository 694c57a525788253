//! Shows and changes what an ambassador does, over HTTP.

mod explain;
mod flows;
mod tap;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::direct::{DirectCgroup, DirectForward};
use crate::edge::chain;
use crate::{Control, PutError, metrics, spec};

/// More than the cgroups of a thousand containers take, each in forty forwards.
const LARGEST_CONFIG: usize = 16 << 20;

/// What an ambassador can be asked.
///
/// - `GET /metrics`: OpenMetrics
/// - `GET /totals`: what each forward has carried to each endpoint, as JSON
/// - `GET /ready`: 200 or 503
/// - `GET /flows`: the open flows, as JSON; of these, `?id=N`, `?forward=NAME`,
///   `?endpoint=ADDR:PORT` and `?client=ADDR` pick those for which all that is given holds
/// - `DELETE /flows`: resets the flows that are picked in the same way, of which something must be
///   given, and answers `{"ended":N}`
/// - `GET /tap`: flows as they begin and end, a line of JSON each; `?forward=NAME` picks. Who reads
///   too slowly to keep within 1024 events is told how many passed by, as `{"missed":N}`; the
///   65th who listens is answered 503
/// - `GET /explain`: for each forward its listener, target and endpoints, what is known of these and
///   since when, and which would be chosen now and why; `?forward=NAME` picks those of that name,
///   or with it in their path-like name, listener, port or target, and answers 404 if there are none
/// - `GET /direct`: which forwards spare cgroups the relay, or why not
/// - `GET /config`, `PUT /config`: JSON as [`spec::to_json`] writes it; applied as a whole or not
///   at all. With `?available=true` what cannot be had keeps none of the rest from being served, and is
///   told: `{"unavailable":[{"message":TEXT,"kind":WORD,"forward":NAME}]}`
///
/// What is refused is answered with `{"message":TEXT,"kind":WORD,"forward":NAME}`.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/totals", get(totals))
        .route("/ready", get(ready))
        .route("/flows", get(flows::list).delete(flows::end))
        .route("/direct", get(direct))
        .route("/tap", get(tap::tap))
        .route("/explain", get(explain::explain))
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

async fn totals(State(control): State<Arc<Control>>) -> Json<Value> {
    Json(metrics::carried(control.ambassador()))
}

async fn ready(State(control): State<Arc<Control>>) -> (StatusCode, &'static str) {
    if control.ambassador().is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
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

#[derive(Deserialize)]
struct PutHow {
    #[serde(default)]
    available: bool,
}

async fn put_config(State(control): State<Arc<Control>>, uri: Uri, body: Bytes) -> Response {
    let Query(how) = match Query::<PutHow>::try_from_uri(&uri) {
        Ok(how) => how,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "malformed", None, &error),
    };
    let specs = match spec::from_json(&body) {
        Ok(specs) => specs,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "malformed", None, &error),
    };
    let put = if how.available {
        control.put_available(specs).await.map(Some)
    } else {
        control.put(specs).await.map(|()| None)
    };
    match put {
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(unavailable)) => {
            let told = unavailable
                .iter()
                .map(|one| wrong(one.error.kind(), Some(&one.forward), &one.error));
            Json(json!({ "unavailable": told.collect::<Value>() })).into_response()
        }
        Err(error) => {
            let (status, forward) = match &error {
                PutError::Resolve(_) => (StatusCode::BAD_REQUEST, None),
                PutError::Apply(source) => (StatusCode::CONFLICT, source.forward()),
            };
            refusal(status, error.kind(), forward, &error)
        }
    }
}

fn refusal(status: StatusCode, kind: &str, forward: Option<&str>, error: &dyn Error) -> Response {
    (status, Json(wrong(kind, forward, error))).into_response()
}

/// The message is the whole chain of causes.
fn wrong(kind: &str, forward: Option<&str>, error: &dyn Error) -> Value {
    json!({ "message": chain(error), "kind": kind, "forward": forward })
}
