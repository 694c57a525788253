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
    ("/containers/{id}/attach/ws", "attach over a web socket"),
    ("/grpc", "build"),
    ("/plugins/{name}", "plugins"),
    ("/plugins/{name}/{what}", "plugins"),
    ("/session", "build"),
];

pub(crate) fn refuse(what: &str) -> ApiError {
    Refusal::unsupported(format!("not built: {what}")).into()
}
