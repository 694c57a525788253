//! Containers: made, listed, started, stopped and removed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use bollard_stubs::models::ContainerCreateResponse;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::JsonBody;
use super::container_view::Surroundings;
use super::error::ApiError;
use super::filters::Filters;
use super::patterns::Patterns;
use super::query::{Flag, Params, optional};
use super::version::{ApiVersion, GIVEN_ALIASES};
use super::{
    Answer, Server, container_create, container_summary, container_view, json, nulls, prune,
};
use crate::daemon::Daemon;
use crate::daemon::config::NetworkMode;
use crate::daemon::container::Container;
use crate::daemon::health::Health;
use crate::daemon::record::Record;
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct List {
    #[serde(default)]
    all: Flag,
    #[serde(default, deserialize_with = "optional")]
    limit: Option<i64>,
    #[serde(default)]
    size: Flag,
    filters: Option<String>,
}

pub(crate) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), container_summary::FILTERS)?;
    container_summary::check(&filters)?;
    let mut images = Vec::new();
    for ancestor in filters.values("ancestor") {
        // An image that is not there is no container's ancestor.
        images.extend(daemon.images().find(ancestor).ok().map(|image| image.id));
    }
    let (before, since) = (
        bound(&daemon, &filters, "before")?,
        bound(&daemon, &filters, "since")?,
    );
    let limit = asked
        .limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|&limit| limit > 0);
    let ended_too = asked.all.0
        || limit.is_some()
        || !filters.any("status", |_| false)
        || !filters.any("exited", |_| false);
    let (names, ids) = (Patterns::of(&filters, "name"), Patterns::of(&filters, "id"));
    let mut found: Vec<(Arc<Container>, Record, Option<Health>)> = Vec::new();
    for container in daemon.containers() {
        let (record, health) = (container.view(), container.health());
        let between = before.is_none_or(|before| record.created < before)
            && since.is_none_or(|since| record.created > since);
        if between
            && (ended_too || container_summary::is_running(&record))
            && ids.accept(&record.id)
            && (names.accept(&record.name) || names.accept(&format!("/{}", record.name)))
            && container_summary::accepts(&filters, &record, health.as_ref(), &images)
        {
            found.push((container, record, health));
        }
    }
    found.truncate(limit.unwrap_or(usize::MAX));
    let now = Timestamp::now();
    let volumes = daemon.volumes_root();
    let linking = daemon.linking();
    let mut list = Vec::with_capacity(found.len());
    for (container, record, health) in &found {
        let mut summary = container_summary::summary(record, health.as_ref(), now, &volumes);
        let linked = Daemon::link_names(&linking, record);
        summary.names.get_or_insert_default().extend(linked);
        list.push(match asked.size.0 {
            true => prune::with_sizes(&daemon, container, summary).await,
            false => summary,
        });
    }
    json::sorted(list)
}

/// When the container was made that a filter names; the first of several counts.
fn bound(daemon: &Daemon, filters: &Filters, key: &str) -> Result<Option<Timestamp>, ApiError> {
    let mut bound = None;
    for name in filters.values(key) {
        bound.get_or_insert(daemon.container(name)?.view().created);
    }
    Ok(bound)
}

#[derive(Deserialize)]
pub(crate) struct Create {
    name: Option<String>,
    platform: Option<String>,
}

pub(crate) async fn create(
    State(daemon): Server,
    Params(asked): Params<Create>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let name = asked
        .name
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(container_create::name)
        .transpose()?;
    let config = container_create::parse(body)?;
    let discarded = config.host.network == NetworkMode::Host && !config.host.publish.is_empty();
    let created = daemon.create(name, config, asked.platform.as_deref());
    let created = created
        .await
        .map_err(|error| only_images_missing(error.into()))?;
    let mut warnings = created.warnings;
    if discarded {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    Ok((
        StatusCode::CREATED,
        Json(ContainerCreateResponse {
            id: created.id,
            warnings,
        }),
    )
        .into_response())
}

/// To the docker client 404 means that the image is to be pulled: what else is missing is a wrong request.
fn only_images_missing(error: ApiError) -> ApiError {
    let is_image = error.message.contains("No such image");
    match error.status {
        StatusCode::NOT_FOUND if !is_image => ApiError::bad_request(error.message),
        _ => error,
    }
}

#[derive(Deserialize)]
pub(crate) struct Inspect {
    #[serde(default)]
    size: Flag,
}

pub(crate) async fn inspect(
    State(daemon): Server,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    Params(asked): Params<Inspect>,
) -> Answer {
    let container = daemon.container(&id)?;
    let health = container.health();
    let around = Surroundings {
        log: &container.log_path(),
        directory: &daemon.files_of(&container),
        netns: &container.netns,
        volumes: &daemon.volumes_root(),
        health: health.as_ref(),
    };
    let record = container.view();
    let mut shown = container_view::inspect(&record, &around);
    if asked.size.0 {
        let (written, whole) = prune::sizes(&daemon, &container).await;
        (shown.size_rw, shown.size_root_fs) = (Some(written), Some(whole));
    }
    if version < GIVEN_ALIASES {
        container_view::add_old_aliases(&mut shown);
    }
    let mut shown = json!(shown);
    nulls::container(&mut shown);
    json::sorted(shown)
}

/// Goes on with a change of a container even if the client does not wait for its end: half of one helps nobody.
pub(crate) async fn to_the_end<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let done = tokio::spawn(work).await.map_err(anyhow::Error::from)?;
    Ok(done?)
}

fn changed(changed: bool) -> Answer {
    Ok(if changed {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_MODIFIED
    }
    .into_response())
}

pub(crate) async fn start(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = daemon.container(&id)?;
    changed(to_the_end(async move { daemon.start(&container).await }).await?)
}

#[derive(Deserialize)]
pub(crate) struct Stop {
    #[serde(default, deserialize_with = "optional")]
    t: Option<i64>,
    signal: Option<String>,
}

impl Stop {
    fn signal(&self) -> Option<&str> {
        self.signal.as_deref().filter(|signal| !signal.is_empty())
    }
}

pub(crate) async fn stop(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Stop>,
) -> Answer {
    let container = daemon.container(&id)?;
    let stopping = async move { daemon.stop(&container, asked.t, asked.signal()).await };
    changed(to_the_end(stopping).await?)
}

pub(crate) async fn restart(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Stop>,
) -> Answer {
    let container = daemon.container(&id)?;
    let restarting = async move { daemon.restart(&container, asked.t, asked.signal()).await };
    to_the_end(restarting).await?;
    changed(true)
}

pub(crate) async fn pause(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = daemon.container(&id)?;
    to_the_end(async move { daemon.pause(&container).await }).await?;
    changed(true)
}

pub(crate) async fn unpause(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = daemon.container(&id)?;
    to_the_end(async move { daemon.unpause(&container).await }).await?;
    changed(true)
}

#[derive(Deserialize)]
pub(crate) struct Kill {
    signal: Option<String>,
}

pub(crate) async fn kill(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Kill>,
) -> Answer {
    let container = daemon.container(&id)?;
    let signal = asked.signal.unwrap_or_default();
    to_the_end(async move { daemon.kill(&container, &signal).await }).await?;
    changed(true)
}

#[derive(Deserialize)]
pub(crate) struct Remove {
    #[serde(default)]
    force: Flag,
    #[serde(default)]
    v: Flag,
    #[serde(default)]
    link: Flag,
}

pub(crate) async fn remove(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Remove>,
) -> Answer {
    if asked.link.0 {
        let message = "Conflict, cannot remove the default link name of the container";
        return Err(Refusal::conflict(message).into());
    }
    let container = daemon.container(&id)?;
    to_the_end(async move { daemon.remove(&container, asked.force.0, asked.v.0).await }).await?;
    changed(true)
}

/// `{consumer}/{alias}`, the name of a link.
pub(crate) async fn remove_link(
    State(daemon): Server,
    Path((consumer, alias)): Path<(String, String)>,
    Params(asked): Params<Remove>,
) -> Answer {
    if !asked.link.0 {
        let message = format!("No such container: {consumer}/{alias}");
        return Err(Refusal::not_found(message).into());
    }
    let container = daemon.container(&consumer).map_err(|_| {
        Refusal::not_found(format!(
            "Cannot get parent /{consumer} for link name /{consumer}/{alias}"
        ))
    })?;
    to_the_end(async move { daemon.unlink(&container, &alias).await }).await?;
    changed(true)
}

#[derive(Deserialize)]
pub(crate) struct Rename {
    #[serde(default)]
    name: String,
}

pub(crate) async fn rename(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Rename>,
) -> Answer {
    let container = daemon.container(&id)?;
    if asked.name.is_empty() {
        return Err(ApiError::bad_request(
            "Neither old nor new names may be empty",
        ));
    }
    let name = container_create::name(&asked.name)?.to_owned();
    to_the_end(async move { daemon.rename(&container, &name).await }).await?;
    changed(true)
}

#[derive(Deserialize)]
pub(crate) struct Resize {
    pub(crate) h: u16,
    pub(crate) w: u16,
}

pub(crate) async fn resize(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Resize>,
) -> Answer {
    let container = daemon.container(&id)?;
    daemon.resize(&container, asked.w, asked.h).await?;
    Ok(StatusCode::OK.into_response())
}
