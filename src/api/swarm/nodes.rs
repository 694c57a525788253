//! `/nodes`: the hosts of the mesh, and how they are to be used.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bollard_stubs::models::{NodeSpec, NodeSpecAvailabilityEnum, NodeSpecRoleEnum};
use nuncio_orchestration::Availability;
use nuncio_registry::NodeRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::body::JsonBody;
use crate::api::filters::Filters;
use crate::api::query::{Flag, Params};
use crate::api::{Answer, Server, json as answer};
use crate::daemon::Daemon;
use crate::daemon::orchestrator::{NodeWish, check_node_labels};
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &["id", "label", "membership", "name", "node.label", "role"];

#[derive(Deserialize)]
pub(in crate::api) struct List {
    filters: Option<String>,
}

pub(super) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let catalog = daemon.catalog();
    let mut nodes: Vec<Value> = Vec::new();
    for node in catalog.nodes.values() {
        let (_, wish) = daemon.node_wish(&node.id);
        let accepted = filters.any("id", |id| node.id.starts_with(id))
            && filters.any("name", |name| node.name.starts_with(name))
            && filters.any("role", |role| role == "manager")
            && filters.any("membership", |state| state == "accepted")
            && filters.labels(&wish.labels)
            && filters.labels_by("node.label", &wish.labels);
        if accepted {
            nodes.push(shown(&daemon, node));
        }
    }
    answer::sorted(nodes)
}

pub(super) async fn inspect(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let node = daemon.node_of_mesh(&id)?;
    answer::sorted(shown(&daemon, &node))
}

fn shown(daemon: &Daemon, node: &NodeRecord) -> Value {
    let catalog = daemon.catalog();
    let (version, wish) = daemon.node_wish(&node.id);
    // When hosts came nobody wrote down.
    let since = daemon.wished_at(&node.id);
    let machine = node.machine.clone().unwrap_or_default();
    let alive = catalog.alive.contains(&node.id);
    let leads = daemon.leader().is_some_and(|leader| leader == node.id);
    let reachability = if alive { "reachable" } else { "unreachable" };
    let mut manager = json!({ "Reachability": reachability, "Addr": node.address.to_string() });
    if leads {
        manager["Leader"] = true.into();
    }
    json!({
        "ID": node.id,
        "Version": { "Index": version },
        "CreatedAt": since,
        "UpdatedAt": since,
        "Spec": {
            "Labels": wish.labels,
            "Role": "manager",
            "Availability": wish.availability,
        },
        "Description": {
            "Hostname": node.name,
            "Platform": { "Architecture": machine.arch, "OS": machine.os },
            "Resources": { "NanoCPUs": machine.nano_cpus, "MemoryBytes": machine.memory },
            "Engine": { "EngineVersion": machine.version, "Labels": machine.labels, "Plugins": [] },
            "TLSInfo": {},
        },
        "Status": {
            "State": if alive { "ready" } else { "down" },
            "Message": if alive { "" } else { "it has not renewed its lease" },
            "Addr": node.address.to_string(),
        },
        "ManagerStatus": manager,
    })
}

#[derive(Deserialize)]
pub(in crate::api) struct Update {
    version: u64,
}

pub(super) async fn update(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Update>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let spec: NodeSpec = serde_json::from_value(body)
        .map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
    if spec.role == Some(NodeSpecRoleEnum::WORKER) {
        return Err(Refusal::unsupported(
            "not built: workers: every host of a mesh may lead it, and there is nothing to demote it from",
        )
        .into());
    }
    let wish = NodeWish {
        availability: match spec.availability {
            Some(NodeSpecAvailabilityEnum::PAUSE) => Availability::Pause,
            Some(NodeSpecAvailabilityEnum::DRAIN) => Availability::Drain,
            Some(NodeSpecAvailabilityEnum::ACTIVE | NodeSpecAvailabilityEnum::EMPTY) | None => {
                Availability::Active
            }
        },
        labels: spec.labels.into_iter().flatten().collect(),
    };
    check_node_labels(&wish.labels)?;
    daemon.node_update(&id, asked.version, wish).await?;
    Ok(StatusCode::OK.into_response())
}

#[derive(Deserialize)]
pub(in crate::api) struct Remove {
    #[serde(default)]
    force: Flag,
}

/// A host that is gone for good. One that lives goes on only with `force`.
pub(super) async fn remove(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Remove>,
) -> Answer {
    let node = daemon.node_of_mesh(&id)?;
    if daemon.catalog().alive.contains(&node.id) && !asked.force.0 {
        return Err(Refusal::invalid(format!(
            "rpc error: code = FailedPrecondition desc = node {} is not down and can't be removed",
            node.id
        ))
        .into());
    }
    crate::api::mesh::remove_from_mesh(&daemon, &node.id).await
}
