//! What Docker serves and this does not: it says so, with what to do instead where there is something.

use super::error::ApiError;
use crate::daemon::refusal::Refusal;

/// Paths, and what is asked for there.
pub(crate) const UNBUILT: &[(&str, &str)] = &[
    (
        "/build",
        "build: make the image with buildah, save it, and load it",
    ),
    ("/build/{what}", "build"),
    ("/configs", "configs"),
    ("/configs/{id}", "configs"),
    ("/containers/{id}/attach/ws", "attach over a web socket"),
    ("/grpc", "build"),
    ("/plugins/{name}", "plugins"),
    ("/plugins/{name}/{what}", "plugins"),
    ("/secrets", "secrets"),
    ("/secrets/{id}", "secrets"),
    ("/services", "services"),
    ("/services/{*path}", "services"),
    ("/session", "build"),
    (
        "/swarm",
        "swarm mode: daemons that share a registry are one mesh without it",
    ),
    (
        "/swarm/{what}",
        "swarm mode: daemons that share a registry are one mesh without it",
    ),
    (
        "/nodes",
        "swarm mode: the mesh's hosts are at /nuncio/v1/nodes",
    ),
    (
        "/nodes/{*path}",
        "swarm mode: the mesh's hosts are at /nuncio/v1/nodes",
    ),
    ("/tasks", "services"),
    ("/tasks/{*path}", "services"),
];

pub(crate) fn refuse(what: &str) -> ApiError {
    Refusal::unsupported(format!("not built: {what}")).into()
}
