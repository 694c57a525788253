//! `/services`: what is to run somewhere, and how often.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use nuncio_registry::{DesiredKind, DesiredRecord};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::body::JsonBody;
use crate::api::containers::to_the_end;
use crate::api::filters::Filters;
use crate::api::query::{Flag, Params};
use crate::api::registry_auth::to_keep;
use crate::api::{Answer, Server, json as answer};
use crate::daemon::orchestrator::accounts::AccountFrom;
use crate::daemon::orchestrator::services::ServiceChange;
use crate::daemon::orchestrator::{spec, view};
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &["id", "label", "mode", "name"];
const MODES: [&str; 4] = ["replicated", "global", "replicated-job", "global-job"];

#[derive(Deserialize)]
pub(in crate::api) struct List {
    filters: Option<String>,
    #[serde(default)]
    status: Flag,
}

pub(super) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    if let Some(mode) = filters.values("mode").find(|mode| !MODES.contains(mode)) {
        let message = format!(
            "invalid filter 'mode={mode}': expected one of {}",
            MODES.join(", ")
        );
        return Err(Refusal::invalid(message).into());
    }
    let catalog = daemon.catalog();
    let services = catalog.desired.all(DesiredKind::Service);
    let found = services.filter(|service| accepts(&filters, service));
    let shown = found.map(|service| view::service(&daemon, &catalog, service, asked.status.0));
    answer::sorted(shown.collect::<Vec<_>>())
}

fn accepts(filters: &Filters, service: &DesiredRecord) -> bool {
    let parsed = spec::parse(&service.spec).unwrap_or_default();
    filters.any("id", |id| service.id.starts_with(id))
        && filters.any("name", |name| service.name.starts_with(name))
        && filters.any("mode", |wanted| wanted == mode(&service.spec))
        && filters.labels(&spec::labels(&parsed))
}

fn mode(spec: &Value) -> &'static str {
    let has = |mode: &str| !spec["Mode"][mode].is_null();
    match () {
        () if has("Global") => "global",
        () if has("ReplicatedJob") => "replicated-job",
        () if has("GlobalJob") => "global-job",
        () => "replicated",
    }
}

pub(super) async fn create(
    State(daemon): Server,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let account = to_keep(&headers)?.flatten();
    let id = to_the_end(async move { daemon.service_create(body, account).await }).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ID": id }))).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Inspect {
    #[serde(default)]
    insert_defaults: Flag,
}

pub(super) async fn inspect(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Inspect>,
) -> Answer {
    let service = daemon.service(&id)?;
    let mut shown = view::service(&daemon, &daemon.catalog(), &service, false);
    if asked.insert_defaults.0 {
        insert_defaults(&mut shown["Spec"]);
    }
    answer::sorted(shown)
}

/// What holds where nothing was said, as Docker tells it.
fn insert_defaults(spec: &mut Value) {
    let steps = json!({
        "Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0, "Order": "stop-first",
    });
    let restart = json!({ "Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0 });
    for (field, default) in [("UpdateConfig", &steps), ("RollbackConfig", &steps)] {
        fill(&mut spec[field], default);
    }
    fill(&mut spec["TaskTemplate"]["RestartPolicy"], &restart);
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    fill(
        container,
        &json!({ "StopGracePeriod": 10_000_000_000_u64, "DNSConfig": {}, "Isolation": "default" }),
    );
}

fn fill(value: &mut Value, default: &Value) {
    let Value::Object(default) = default else {
        return;
    };
    if value.is_null() {
        *value = json!({});
    }
    if let Some(fields) = value.as_object_mut() {
        for (field, default) in default {
            fields
                .entry(field.clone())
                .or_insert_with(|| default.clone());
        }
    }
}

pub(super) async fn remove(State(daemon): Server, Path(id): Path<String>) -> Answer {
    to_the_end(async move { daemon.service_remove(&id).await }).await?;
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Update {
    version: u64,
    #[serde(default)]
    rollback: String,
    /// Whose account is kept, where none is sent.
    #[serde(default)]
    registry_auth_from: String,
    /// Ours: the tasks are to be spread anew.
    #[serde(default)]
    rebalance: Flag,
}

pub(super) async fn update(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Update>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    if !["", "previous"].contains(&asked.rollback.as_str()) {
        let message = format!("invalid rollback {:?}: expected previous", asked.rollback);
        return Err(Refusal::invalid(message).into());
    }
    let account = match (to_keep(&headers)?, asked.registry_auth_from.as_str()) {
        (Some(account), _) => AccountFrom::Given(account),
        (None, "" | "spec") => AccountFrom::Spec,
        (None, "previous-spec") => AccountFrom::PreviousSpec,
        (None, other) => {
            let message = format!(
                "unsupported registryAuthFrom value {other:?}: expected spec or previous-spec"
            );
            return Err(Refusal::invalid(message).into());
        }
    };
    let change = ServiceChange {
        version: asked.version,
        spec: asked.rollback.is_empty().then_some(body),
        rebalance: asked.rebalance.0,
        account,
    };
    to_the_end(async move { daemon.service_update(&id, change).await }).await?;
    answer::sorted(json!({ "Warnings": null }))
}
