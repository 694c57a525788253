//! Volumes: made, listed, shown, removed.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use bollard_stubs::models::{VolumeCreateOptions, VolumePruneResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::JsonBody;
use super::error::ApiError;
use super::filters::Filters;
use super::patterns::Patterns;
use super::query::{Flag, Params};
use super::version::{ANONYMOUS_PRUNE, ApiVersion};
use super::{Answer, Server, json};
use crate::daemon::events::Kind;
use crate::daemon::refusal::Refusal;
use crate::daemon::volumes::{ANONYMOUS, LOCAL, VolumeRequest, VolumeView};

const FILTERS: &[&str] = &["dangling", "driver", "label", "label!", "name"];
const PRUNE_FILTERS: &[&str] = &["all", "label", "label!"];

/// A volume as Docker shows it; `usage` is its size.
pub(crate) fn view(view: &VolumeView, usage: Option<u64>) -> Value {
    let volume = &view.volume;
    let map = |map: &BTreeMap<String, String>| match map.is_empty() {
        true => Value::Null,
        false => json!(map),
    };
    let mut shown = json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": LOCAL,
        "Labels": map(&volume.labels),
        "Mountpoint": view.mountpoint,
        "Name": volume.name,
        "Options": map(&volume.options),
        "Scope": "local",
    });
    if let Some(size) = usage {
        shown["UsageData"] = json!({ "RefCount": view.users, "Size": size });
    }
    shown
}

#[derive(Deserialize)]
pub(crate) struct List {
    filters: Option<String>,
}

pub(crate) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let names = Patterns::of(&filters, "name");
    let mut volumes = Vec::new();
    for volume in daemon.volume_list() {
        if dangling.is_none_or(|wanted| wanted == (volume.users == 0))
            && names.accept(&volume.volume.name)
            && accepts(&filters, &volume)
        {
            volumes.push(view(&volume, None));
        }
    }
    Ok(Json(json!({ "Volumes": volumes, "Warnings": null })).into_response())
}

fn accepts(filters: &Filters, view: &VolumeView) -> bool {
    filters.any("driver", |driver| driver == LOCAL)
        && filters.labels(&view.volume.labels)
        && filters.no_labels(&view.volume.labels)
}

pub(crate) async fn inspect(State(daemon): Server, Path(name): Path<String>) -> Answer {
    json::sorted(view(&daemon.volume(&name)?, None))
}

pub(crate) async fn create(State(daemon): Server, JsonBody(body): JsonBody<Value>) -> Answer {
    let made = daemon.volume_create(parse(body)?)?;
    Ok((StatusCode::CREATED, Json(view(&made, None))).into_response())
}

pub(super) fn parse(body: Value) -> Result<VolumeRequest, ApiError> {
    let body: VolumeCreateOptions = match body {
        Value::Null => VolumeCreateOptions::default(),
        body => serde_json::from_value(body)
            .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))?,
    };
    if body.cluster_volume_spec.is_some() {
        return Err(Refusal::unsupported("not built: cluster volumes").into());
    }
    Ok(VolumeRequest {
        name: body.name.unwrap_or_default(),
        driver: body.driver.unwrap_or_default(),
        options: body.driver_opts.into_iter().flatten().collect(),
        labels: body.labels.into_iter().flatten().collect(),
    })
}

#[derive(Deserialize)]
pub(crate) struct Remove {
    #[serde(default)]
    force: Flag,
}

pub(crate) async fn remove(
    State(daemon): Server,
    Path(name): Path<String>,
    Params(asked): Params<Remove>,
) -> Answer {
    if asked.force.0 && daemon.volume(&name).is_err() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    super::containers::to_the_end(async move { daemon.volume_remove(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Removes the volumes that no container mounts; with names only if asked for `all`.
pub(crate) async fn prune(
    State(daemon): Server,
    Extension(version): Extension<ApiVersion>,
    Params(asked): Params<List>,
) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), PRUNE_FILTERS)?;
    let all = filters.flag("all")?;
    let all = all.unwrap_or(version < ANONYMOUS_PRUNE);
    let (mut deleted, mut reclaimed) = (Vec::new(), 0u64);
    for view in daemon.volume_list() {
        let wanted = all || view.volume.labels.contains_key(ANONYMOUS);
        if view.users > 0
            || !wanted
            || !filters.labels(&view.volume.labels)
            || !filters.no_labels(&view.volume.labels)
        {
            continue;
        }
        let name = view.volume.name;
        let size = daemon.volume_size(&name).await.unwrap_or_default();
        match daemon.volume_remove(&name).await {
            Ok(()) => {
                reclaimed = reclaimed.saturating_add(size);
                deleted.push(name);
            }
            Err(error) => {
                tracing::info!(volume = name, error = format!("{error:#}"), "not pruned");
            }
        }
    }
    daemon.tell_pruned(Kind::Volume, reclaimed);
    Ok(Json(VolumePruneResponse {
        volumes_deleted: Some(deleted),
        space_reclaimed: Some(i64::try_from(reclaimed).unwrap_or(i64::MAX)),
    })
    .into_response())
}
