//! Networks: made, shown, joined and removed.

use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bollard_stubs::models::{
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworkPruneResponse,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::body::JsonBody;
use super::error::ApiError;
use super::filters::Filters;
use super::patterns::Patterns;
use super::query::Params;
use super::{Answer, Server, endpoint, json, network_view, prune};
use crate::daemon::events::Kind;
use crate::daemon::networks::NetworkView;
use crate::daemon::refusal::Refusal;

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
    check(&filters)?;
    for view in daemon.networks() {
        if names.accept(&view.name) && ids.accept(&view.id) && accepts(&filters, &view) {
            list.push(network_view::network(view, false));
        }
    }
    json::sorted(list)
}

/// Refuses values that no network can have.
fn check(filters: &Filters) -> Result<(), Refusal> {
    filters.flag("dangling")?;
    let mut types = filters.values("type");
    match types.find(|kind| !["builtin", "custom"].contains(kind)) {
        Some(kind) => Err(Refusal::invalid(format!(
            "invalid filter 'type={kind}': expected builtin or custom"
        ))),
        None => Ok(()),
    }
}

fn accepts(filters: &Filters, view: &NetworkView) -> bool {
    let predefined = PREDEFINED.contains(&view.name.as_str());
    let is_dangling = view.endpoints.is_empty() && !predefined;
    let dangling = filters.flag("dangling").ok().flatten();
    filters.any("driver", |driver| view.driver == driver)
        && filters.any("scope", |scope| view.scope == scope)
        && filters.any("type", |kind| {
            kind == if predefined { "builtin" } else { "custom" }
        })
        && dangling.is_none_or(|wanted| wanted == is_dangling)
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
pub(crate) async fn prune_unused(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), &["label", "label!", "until"])?;
    let until = prune::until(&filters)?;
    let mut deleted = Vec::new();
    for view in daemon.networks() {
        let unused = view.endpoints.is_empty() && !PREDEFINED.contains(&view.name.as_str());
        let made = view.created.parse::<Timestamp>().ok();
        let made = made.and_then(|made| SystemTime::try_from(made).ok());
        let old = until.is_none_or(|until| made.is_some_and(|made| made <= until));
        if !unused || !old || !filters.labels(&view.labels) || !filters.no_labels(&view.labels) {
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
