//! Docker's Swarm: services, tasks and hosts of the mesh in the words of the Engine API.

mod cluster;
mod logs;
mod nodes;
mod secrets;
mod services;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::daemon::Daemon;
use crate::daemon::orchestrator::FileKind;

pub(super) use self::cluster::info;

pub(super) fn routes() -> Router<Arc<Daemon>> {
    Router::new()
        .route("/swarm", get(cluster::inspect))
        .route("/swarm/init", post(cluster::init))
        .route("/swarm/join", post(cluster::join))
        .route("/swarm/leave", post(cluster::leave))
        .route("/swarm/update", post(cluster::update))
        .route("/swarm/unlock", post(cluster::unlock))
        .route("/swarm/unlockkey", get(cluster::unlock_key))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route(
            "/services/{id}",
            get(services::inspect).delete(services::remove),
        )
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(logs::of_service))
        .route("/tasks/{id}/logs", get(logs::of_task))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/nuncio/v1/tasks/{id}/why-pending", get(tasks::why_pending))
        .merge(secrets::routes(FileKind::Secret))
        .merge(secrets::routes(FileKind::Config))
}
