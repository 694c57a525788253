//! The figures of the container runtime, who else is measured, and what is wanted.

use super::figures::{Figure, Kind, MEBI, Path, less, more, path};
use super::targets::{Target, target};

pub(super) const NUNCIO: &str = "nuncio";
pub(super) const DOCKER: &str = "docker";

/// All figures, in the order of the table.
pub(super) const FIGURES: [Figure; 13] = [
    less("run-none", "run --rm --network none", "ms", 1.0, 1),
    less("run-bridge", "run --rm on the bridge", "ms", 1.0, 1),
    less("life", "create, start, exit, remove", "ms", 1.0, 1),
    less("exec", "exec", "ms", 1.0, 1),
    less("ps", "ps -a of 500 containers", "ms", 1.0, 1),
    less("pull", "pull of 300 MB", "s", 1e3, 2),
    less("pull-memory", "daemon while it pulls", "MiB", MEBI, 1),
    more("load", "load, gzip", "MB/s", 1e6, 0),
    more("load-plain", "load, not compressed", "MB/s", 1e6, 0),
    more("save", "save", "MB/s", 1e6, 0),
    less("idle", "idle daemon", "MiB", MEBI, 1),
    less("shim", "shim of a container, private", "MiB", MEBI, 2),
    less("size", "programs", "MiB", MEBI, 1),
];

/// Who is measured, in the order of the table.
pub(super) const PATHS: [Path; 6] = [
    path(NUNCIO, "nuncio", Kind::Ours),
    path("nuncio-docker", "nuncio, docker's client", Kind::Ours),
    path(DOCKER, "docker", Kind::Peer),
    path("podman", "podman", Kind::Peer),
    path("crun", "crun alone", Kind::Peer),
    path("bare", "gzip, tar or cat, and sync", Kind::Peer),
];

const DOCKERS: &[&str] = &[DOCKER];

/// All targets. A figure of which more is better must reach its bound, others must not exceed it.
pub(super) const TARGETS: [Target; 12] = [
    target(NUNCIO, "run-none", 0.25, DOCKERS, "docker"),
    target(NUNCIO, "run-bridge", 0.333, DOCKERS, "docker"),
    target(NUNCIO, "life", 1.5, &["crun"], "crun alone"),
    target(NUNCIO, "exec", 0.333, DOCKERS, "docker"),
    target(NUNCIO, "ps", 50.0, &[], ""),
    target(NUNCIO, "pull", 1.0, DOCKERS, "docker"),
    target(NUNCIO, "pull-memory", 40.0 * MEBI, &[], ""),
    target(NUNCIO, "load", 0.8, &["bare"], "gzip"),
    target(NUNCIO, "load-plain", 0.8, &["bare"], "tar and sync"),
    target(NUNCIO, "save", 0.8, &["bare"], "cat"),
    target(NUNCIO, "idle", 25.0 * MEBI, &[], ""),
    target(NUNCIO, "shim", MEBI, &[], ""),
];
