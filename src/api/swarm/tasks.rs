//! `/tasks`: which container of which service runs where.

use axum::extract::{Path, State};
use serde::Deserialize;

use crate::api::filters::Filters;
use crate::api::query::Params;
use crate::api::{Answer, Server, json as answer};
use crate::daemon::Daemon;
use crate::daemon::orchestrator::services::ServiceState;
use crate::daemon::orchestrator::view::TaskView;
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &[
    "_up-to-date",
    "desired-state",
    "id",
    "label",
    "name",
    "node",
    "runtime",
    "service",
];
const DESIRED: [&str; 3] = ["running", "shutdown", "accepted"];

#[derive(Deserialize)]
pub(in crate::api) struct List {
    filters: Option<String>,
}

pub(super) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let wrong = filters
        .values("desired-state")
        .find(|state| !DESIRED.contains(state));
    if let Some(state) = wrong {
        let message = format!(
            "Invalid filter 'desired-state={state}': expected one of {}",
            DESIRED.join(", ")
        );
        return Err(Refusal::invalid(message).into());
    }
    let services = ids(&filters, "service", |name| {
        Ok(daemon.service(name)?.id.clone())
    })?;
    let nodes = ids(&filters, "node", |name| {
        Ok(daemon.node_of_mesh(name)?.id.clone())
    })?;
    let up_to_date = filters.flag("_up-to-date")?;
    let catalog = daemon.catalog();
    let tasks = daemon.tasks(&catalog).into_iter().filter(|task| {
        let labels = task.record.spec["TaskTemplate"]["ContainerSpec"]["Labels"].clone();
        let labels = serde_json::from_value(labels).unwrap_or_default();
        filters.any("id", |id| task.record.id.starts_with(id))
            && filters.any("name", |name| task.name.starts_with(name))
            && filters.any("desired-state", |state| task.desired() == state)
            && filters.labels(&labels)
            && services
                .as_ref()
                .is_none_or(|ids| ids.contains(&task.record.service))
            && nodes.as_ref().is_none_or(|ids| {
                task.record
                    .node
                    .as_ref()
                    .is_some_and(|node| ids.contains(node))
            })
            && up_to_date.is_none_or(|wanted| wanted == is_up_to_date(&daemon, task))
    });
    answer::sorted(tasks.map(|task| task.shown()).collect::<Vec<_>>())
}

/// What the filter's values mean; `None`: it is not asked for.
fn ids(
    filters: &Filters,
    key: &str,
    find: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<Option<Vec<String>>> {
    if !filters.has(key) {
        return Ok(None);
    }
    filters
        .values(key)
        .map(find)
        .collect::<anyhow::Result<_>>()
        .map(Some)
}

/// Whether it is what its service wants now.
fn is_up_to_date(daemon: &Daemon, task: &TaskView) -> bool {
    let service = daemon.service(&task.record.service);
    service.is_ok_and(|service| ServiceState::of(&service).spec_version == task.task.spec_version)
}

pub(super) async fn inspect(State(daemon): Server, Path(id): Path<String>) -> Answer {
    answer::sorted(daemon.task(&id)?.shown())
}

pub(super) async fn why_pending(State(daemon): Server, Path(id): Path<String>) -> Answer {
    answer::sorted(daemon.why_pending(&id)?)
}
