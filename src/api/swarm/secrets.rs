//! `/secrets` and `/configs`: what containers of services are given as files.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use nuncio_registry::DesiredRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::body::JsonBody;
use crate::api::containers::to_the_end;
use crate::api::filters::Filters;
use crate::api::query::Params;
use crate::api::{Answer, Server, json as answer};
use crate::daemon::Daemon;
use crate::daemon::orchestrator::{FileKind, FileSpec};

const FILTERS: &[&str] = &["id", "label", "name", "names"];

/// The routes of one kind.
pub(super) fn routes(kind: FileKind) -> Router<Arc<Daemon>> {
    let path = |rest: &str| format!("/{}s{rest}", kind.word());
    let list = move |daemon: Server, asked: Params<List>| list(kind, daemon, asked);
    let create = move |daemon: Server, body: JsonBody<FileSpec>| create(kind, daemon, body);
    let inspect = move |daemon: Server, id: Path<String>| inspect(kind, daemon, id);
    let remove = move |daemon: Server, id: Path<String>| remove(kind, daemon, id);
    let update =
        move |daemon: Server, id: Path<String>, asked: Params<Update>, body: JsonBody<FileSpec>| {
            update(kind, daemon, id, asked, body)
        };
    Router::new()
        .route(&path(""), get(list))
        .route(&path("/create"), post(create))
        .route(&path("/{id}"), get(inspect).delete(remove))
        .route(&path("/{id}/update"), post(update))
}

#[derive(Deserialize)]
struct List {
    filters: Option<String>,
}

async fn list(kind: FileKind, State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let catalog = daemon.catalog();
    let all = catalog.desired.all(kind.desired());
    let found = all.filter(|record| accepts(&filters, record));
    answer::sorted(found.map(|record| shown(record)).collect::<Vec<_>>())
}

fn accepts(filters: &Filters, record: &DesiredRecord) -> bool {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(record.spec["Labels"].clone()).unwrap_or_default();
    filters.any("id", |id| record.id.starts_with(id))
        && filters.any("name", |name| record.name.starts_with(name))
        && filters.any("names", |name| record.name == name)
        && filters.labels(&labels)
}

/// A secret's data is not in its specification.
fn shown(record: &DesiredRecord) -> Value {
    json!({
        "ID": record.id,
        "Version": { "Index": record.version },
        "CreatedAt": record.created,
        "UpdatedAt": record.updated,
        "Spec": record.spec,
    })
}

async fn create(
    kind: FileKind,
    State(daemon): Server,
    JsonBody(body): JsonBody<FileSpec>,
) -> Answer {
    let id = to_the_end(async move { daemon.file_create(kind, body).await }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id }))).into_response())
}

async fn inspect(kind: FileKind, State(daemon): Server, Path(id): Path<String>) -> Answer {
    answer::sorted(shown(&*daemon.file(kind, &id)?))
}

async fn remove(kind: FileKind, State(daemon): Server, Path(id): Path<String>) -> Answer {
    to_the_end(async move { daemon.file_remove(kind, &id).await }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
struct Update {
    version: u64,
}

async fn update(
    kind: FileKind,
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Update>,
    JsonBody(body): JsonBody<FileSpec>,
) -> Answer {
    let version = asked.version;
    to_the_end(async move { daemon.file_update(kind, &id, version, body).await }).await?;
    Ok(StatusCode::OK.into_response())
}
