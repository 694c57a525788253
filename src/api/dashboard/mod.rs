//! The dashboard's page, and what it asks for: all below one path, and nothing else of the API is within its reach.
//!
//! Who reaches the API's socket is let in. Browsers come by way of a door on loopback (`src/dashboard`).

mod live;
mod terminal;
mod there;
mod watched;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde_json::json;

use super::error::ApiError;
use super::query::Params;
use super::{Answer, Server};
use crate::daemon::Daemon;
use crate::dashboard::{ASSETS, Asset, PAGE, ROOT, headers};

/// All of it.
pub(super) fn routes() -> Router<std::sync::Arc<Daemon>> {
    let at = |path: &str| format!("{ROOT}{path}");
    Router::new()
        .route(ROOT, get(async || Redirect::permanent("dashboard/")))
        .route(&at("/"), get(async || asset(&PAGE)))
        .route(&at("/{name}"), get(part))
        .route(&at("/live"), get(live::live))
        .route(&at("/map"), get(map))
        .route(&at("/address"), get(address))
        .route(&at("/containers/{id}"), get(watched::container))
        .route(&at("/containers/{id}/terminal"), get(terminal::terminal))
        .layer(from_fn(same_origin))
        .layer(map_response(headers::secure))
}

fn asset(asset: &Asset) -> Response {
    ([(CONTENT_TYPE, asset.kind)], Body::from(asset.text)).into_response()
}

/// A file of the page.
async fn part(Path(name): Path<String>) -> Answer {
    let found = ASSETS.iter().find(|asset| asset.name == name);
    let missing = || {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("the dashboard has no {name}"),
        )
    };
    Ok(asset(found.ok_or_else(missing)?))
}

/// The map of all hosts.
async fn map(State(daemon): Server, Params(asked): Params<super::map::Asked>) -> Answer {
    let map = daemon.map_for_pages(asked.history.0).await?;
    let headers = [(CONTENT_TYPE, "application/json")];
    Ok((headers, map.to_string()).into_response())
}

/// Where the daemon itself serves the page to browsers of its machine, if it does.
async fn address(State(daemon): Server) -> Answer {
    Ok(Json(json!({ "url": daemon.pages.url() })).into_response())
}

/// A browser that has a certificate for the API shows it for pages of others, too.
async fn same_origin(request: Request, next: Next) -> Response {
    if is_foreign(request.headers()) {
        let message = "this is for the dashboard's own page, not for that of another site";
        return ApiError::new(StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let own = |origin: &str| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some() && host == text(HOST)
    };
    headers.contains_key(ORIGIN) && !text(ORIGIN).is_some_and(own)
}
