//! What hosts tell each other: the router that other hosts reach, and the way to them for clients of this one.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode, Uri};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tower::ServiceExt as _;

use super::error::{self, ApiError};
use super::version::CURRENT;
use super::{Answer, Server, containers, events, log_lines, map, not_found, stats};
use crate::daemon::Daemon;
use crate::daemon::api_connection::Caller;

/// What the members of a mesh are told, which is nothing that changes anything or shows a container's configuration.
pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/containers/json", get(containers::list))
        .route("/events", get(events::events))
        .route("/nuncio/v1/stats", get(stats::all))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/nuncio/v1/flows", get(flows))
        .route("/nuncio/v1/map", get(map::map))
        .route("/nuncio/v1/containers/{id}/logs", get(log_lines::logs))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .layer(Extension(CURRENT))
        .layer(map_response(error::in_form))
        .with_state(daemon)
}

/// `GET /nuncio/v1/flows`: what this host's ambassador carries now.
pub(crate) async fn flows(State(daemon): Server) -> Answer {
    let flows = daemon.flows().await?;
    Ok(([(CONTENT_TYPE, "application/json")], flows).into_response())
}

/// `GET /nuncio/v1/nodes/{id}/peek/{path}`: what the host tells, which may be this one.
pub(crate) async fn other(
    State(daemon): Server,
    Path((host, _)): Path<(String, String)>,
    request: Request,
) -> Answer {
    // As it came: what stands in it escaped is for the other host to read.
    let asked = request.uri().to_string();
    let wanted = asked.split_once("/peek/").map_or("", |(_, wanted)| wanted);
    let wanted: Uri = format!("/{wanted}")
        .parse()
        .map_err(|error| ApiError::bad_request(format!("/{wanted}: {error}")))?;
    let unreachable = |error: anyhow::Error| {
        let told = ApiError::from(error);
        match told.status {
            StatusCode::INTERNAL_SERVER_ERROR => {
                ApiError::new(StatusCode::BAD_GATEWAY, told.message)
            }
            _ => told,
        }
    };
    let answer = daemon.peek(&host, &wanted.to_string()).await;
    let Some(answer) = answer.map_err(unreachable)? else {
        // Without what was found out about the path that it came by.
        let mut own = Request::new(Body::empty());
        *own.uri_mut() = wanted;
        if let Some(caller) = request.extensions().get::<ConnectInfo<Caller>>() {
            own.extensions_mut().insert(caller.clone());
        }
        let answered = router(daemon).oneshot(own).await;
        return Ok(answered.unwrap_or_else(|never| match never {}));
    };
    let (parts, body) = answer.into_parts();
    let mut passed = Response::new(Body::new(body));
    *passed.status_mut() = parts.status;
    for name in [CONTENT_TYPE, CONTENT_LENGTH] as [HeaderName; 2] {
        if let Some(value) = parts.headers.get(&name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    Ok(passed)
}
