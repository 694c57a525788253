//! `GET /nuncio/v1/registry`: how the members of the registry are; `GET /nuncio/v1/registry/quarantine`: what in it cannot be
//! read.

use axum::extract::State;
use axum::response::{IntoResponse as _, Json};
use nuncio_registry::{Health, MemberStatus};
use serde::Serialize;

use super::{Answer, Server};

/// A member, at the endpoint by which this host reaches it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    endpoint: String,
    /// Why it does not answer.
    error: Option<String>,
    #[serde(flatten)]
    health: Option<MemberHealth>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemberHealth {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    version: String,
    /// Absent while the cluster has no leader.
    leader: Option<bool>,
    revision: i64,
    /// By how many entries of the log some other member is ahead.
    lag: u64,
    leases: usize,
    /// Bytes of its store.
    size: i64,
    errors: Vec<String>,
}

pub(crate) async fn status(State(daemon): Server) -> Answer {
    let members = daemon.registry_status().await;
    let members: Vec<Member> = members.into_iter().map(member).collect();
    Ok(Json(members).into_response())
}

/// Values that cannot be read.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Quarantine {
    count: usize,
    /// The first of them: keys, and why.
    values: Vec<(String, String)>,
}

pub(crate) async fn quarantine(State(daemon): Server) -> Answer {
    let (count, values) = daemon.registry_quarantine();
    Ok(Json(Quarantine { count, values }).into_response())
}

fn member(status: MemberStatus) -> Member {
    let (health, error) = match status.health {
        Ok(health) => (Some(member_health(health)), None),
        Err(error) => (None, Some(error)),
    };
    Member {
        endpoint: status.endpoint,
        error,
        health,
    }
}

fn member_health(health: Health) -> MemberHealth {
    MemberHealth {
        id: format!("{:x}", health.id),
        name: health.name,
        version: health.version,
        leader: health.leader,
        revision: health.revision,
        lag: health.lag,
        leases: health.leases,
        size: health.size,
        errors: health.errors,
    }
}
