//! Networks: made, shown, joined and removed.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bollard_stubs::models::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworkPruneResponse,
};
use serde::Deserialize;
use serde_json::Value;

use super::body::JsonBody;
use super::error::ApiError;
use super::filters::Filters;
use super::patterns::Patterns;
use super::query::Params;
use super::{Answer, Server, endpoint, json, network_view};
use crate::daemon::events::Kind;
use crate::daemon::networks::NetworkView;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
/// Networks that are always there.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

#[derive(Deserialize)]
pub(crate) struct List {
    filters: Option<String>,
}

pub(crate) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let (names, ids) = (Patterns::of(&filters, "name"), Patterns::of(&filters, "id"));
    let mut list = Vec::new();
    for view in daemon.networks() {
        if names.accept(&view.name) && ids.accept(&view.id) && accepts(&filters, &view) {
            list.push(network_view::network(view, false));
        }
    }
    json::sorted(list)
}

fn accepts(filters: &Filters, view: &NetworkView) -> bool {
    let predefined = PREDEFINED.contains(&view.name.as_str());
    let dangling = |wanted: &str| {
        matches!(wanted, "1" | "true" | "True") == (view.endpoints.is_empty() && !predefined)
    };
    filters.any("driver", |driver| view.driver == driver)
        && filters.any("scope", |scope| view.scope == scope)
        && filters.any("type", |kind| {
            kind == if predefined { "builtin" } else { "custom" }
        })
        && filters.any("dangling", dangling)
        && filters.labels(&view.labels)
}

pub(crate) async fn inspect(State(daemon): Server, Path(name): Path<String>) -> Answer {
    json::sorted(network_view::network(daemon.network(&name).await?, true))
}

pub(crate) async fn create(State(daemon): Server, JsonBody(body): JsonBody<Value>) -> Answer {
    let body: NetworkCreateRequest = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?;
    let id = daemon.network_create(network_view::parse(body)?).await?;
    Ok((
        StatusCode::CREATED,
        Json(NetworkCreateResponse {
            id,
            warning: String::new(),
        }),
    )
        .into_response())
}

pub(crate) async fn remove(State(daemon): Server, Path(name): Path<String>) -> Answer {
    daemon.network_remove(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn connect(
    State(daemon): Server,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<NetworkConnectRequest>,
) -> Answer {
    let container = daemon.container(&named(body.container)?)?;
    let request = endpoint::request(&name, body.endpoint_config.unwrap_or_default())?;
    daemon.network_connect(&name, &container, request).await?;
    Ok(StatusCode::OK.into_response())
}

pub(crate) async fn disconnect(
    State(daemon): Server,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<NetworkDisconnectRequest>,
) -> Answer {
    let container = daemon.container(&named(body.container)?)?;
    daemon
        .network_disconnect(&name, &container, body.force.unwrap_or_default())
        .await?;
    Ok(StatusCode::OK.into_response())
}

fn named(container: Option<String>) -> Result<String, ApiError> {
    let missing = || ApiError::bad_request("invalid body: Container names no container");
    container
        .filter(|name| !name.is_empty())
        .ok_or_else(missing)
}

/// Removes the networks without containers on any host; one that gains a container meanwhile stays.
pub(crate) async fn prune(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), &["label"])?;
    let mut deleted = Vec::new();
    for view in daemon.networks() {
        let unused = view.endpoints.is_empty() && !PREDEFINED.contains(&view.name.as_str());
        if !unused || !filters.labels(&view.labels) {
            continue;
        }
        match daemon.network_remove(&view.id).await {
            Ok(()) => deleted.push(view.name),
            Err(error) => tracing::info!(
                network = view.name,
                error = format!("{error:#}"),
                "not pruned"
            ),
        }
    }
    daemon.tell_pruned(Kind::Network, 0);
    Ok(Json(NetworkPruneResponse {
        networks_deleted: Some(deleted),
    })
    .into_response())
}
