//! `/swarm`: the mesh as a whole. A daemon is always part of one, if only of its own.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::StatusCode};
use bollard_stubs::models::{ClusterInfo, LocalNodeState, PeerNode, SwarmInfo};
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::{Answer, Server, json as answer};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

/// The id of the mesh: that of its default network, which there is one of in each registry.
fn id(daemon: &Daemon) -> String {
    daemon.mesh_id()
}

/// The part of `docker info`.
pub(in crate::api) fn info(daemon: &Daemon) -> SwarmInfo {
    let nodes = daemon.nodes();
    let count = i64::try_from(nodes.len()).unwrap_or(i64::MAX);
    let peers = nodes.iter().filter(|node| node.alive).map(|node| PeerNode {
        node_id: Some(node.id.clone()),
        addr: Some(node.address.to_string()),
    });
    SwarmInfo {
        node_id: Some(daemon.node.id.clone()),
        node_addr: Some(daemon.node.address.to_string()),
        local_node_state: Some(LocalNodeState::ACTIVE),
        control_available: Some(true),
        error: Some(String::new()),
        remote_managers: Some(peers.collect()),
        nodes: Some(count),
        managers: Some(count),
        cluster: Some(ClusterInfo {
            id: Some(id(daemon)),
            ..ClusterInfo::default()
        }),
    }
}

pub(super) async fn inspect(State(daemon): Server) -> Answer {
    answer::sorted(json!({
        "ID": id(&daemon),
        "Version": { "Index": 1 },
        "Spec": {
            "Name": "default",
            "Labels": {},
            "Orchestration": { "TaskHistoryRetentionLimit": 5 },
            "Raft": {},
            "Dispatcher": { "HeartbeatPeriod": 3_000_000_000_u64 },
            "CAConfig": {},
            "TaskDefaults": {},
            "EncryptionConfig": { "AutoLockManagers": false },
        },
        "JoinTokens": { "Worker": JOIN, "Manager": JOIN },
    }))
}

const JOIN: &str = "run `nuncio token create` for one";

/// A daemon is in a mesh from its start: this says who it is, as often as it is asked.
pub(super) async fn init(State(daemon): Server, body: Option<Json<Value>>) -> Response {
    drop(body);
    Json(daemon.node.id.clone()).into_response()
}

pub(super) async fn join() -> ApiError {
    refuse("a daemon joins a mesh before it starts: run `nuncio join TOKEN HOST` on that host")
}

pub(super) async fn leave() -> ApiError {
    refuse("a host leaves its mesh while its daemon is stopped: run `nuncio leave` on it")
}

pub(super) async fn update() -> ApiError {
    refuse("nothing of the mesh as a whole can be set")
}

pub(super) async fn unlock() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "swarm is not locked")
}

pub(super) async fn unlock_key() -> Response {
    Json(json!({ "UnlockKey": "" })).into_response()
}

fn refuse(what: &str) -> ApiError {
    Refusal::unsupported(format!("not built: {what}")).into()
}
