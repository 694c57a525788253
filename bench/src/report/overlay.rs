//! The figures of the networks, what they are measured beside, and what is wanted.

use super::figures::{Figure, Kind, Path, less, more, path};
use super::targets::{Target, target};

pub(super) const OVERLAY: &str = "overlay";
pub(super) const VXLAN: &str = "vxlan";
const SEALED: &str = "sealed";

/// All figures, in the order of the table.
pub(super) const FIGURES: [Figure; 13] = [
    more("bulk1", "bulk, 1 stream", "Gb/s", 1e9, 2),
    more("bulk8", "bulk, 8 streams", "Gb/s", 1e9, 2),
    more("redis50.ops", "redis c=50", "k/s", 1e3, 1),
    less("redis50.p50", "redis c=50, p50", "ms", 1.0, 3),
    less("redis50.p99", "redis c=50, p99", "ms", 1.0, 3),
    more("connect", "new connections", "k/s", 1e3, 2),
    less(
        "attach",
        "network connect, to the first answer",
        "ms",
        1.0,
        0,
    ),
    less(
        "network",
        "network create, to the first answer",
        "ms",
        1.0,
        0,
    ),
    less("repair.route", "a route is back after", "ms", 1.0, 0),
    less("repair.neighbour", "a neighbour", "ms", 1.0, 0),
    less("repair.fdb", "an FDB entry", "ms", 1.0, 0),
    less("repair.link", "a VXLAN device", "ms", 1.0, 0),
    less("repair.rules", "the rules", "ms", 1.0, 0),
];

/// What is measured, in the order of the table.
pub(super) const PATHS: [Path; 9] = [
    path(VXLAN, "VXLAN by hand", Kind::Direct),
    path("veth", "plain underlay", Kind::Direct),
    path(OVERLAY, "nuncio overlay", Kind::Ours),
    path(SEALED, "nuncio overlay, encrypted", Kind::Ours),
    path("around", "nuncio overlay, by TLS", Kind::Ours),
    path("openssl", "openssl seals, one core", Kind::Direct),
    path(
        "openssl2",
        "openssl seals and opens, two cores",
        Kind::Direct,
    ),
    path("docker", "docker's bridge", Kind::Peer),
    path("bridge", "nuncio's bridge", Kind::Ours),
];

const BY_HAND: &[&str] = &[VXLAN];
const UNDERLAY: &[&str] = &["veth"];
const OPENSSL: &[&str] = &["openssl"];
const DOCKERS: &[&str] = &["docker"];

/// All targets. A figure of which more is better must reach its bound, others must not exceed it.
pub(super) const TARGETS: [Target; 12] = [
    target(OVERLAY, "bulk1", 0.95, BY_HAND, "VXLAN by hand"),
    target(OVERLAY, "bulk8", 0.95, BY_HAND, "VXLAN by hand"),
    target(OVERLAY, "bulk1", 0.75, UNDERLAY, "the plain underlay"),
    target(OVERLAY, "redis50.ops", 0.95, BY_HAND, "VXLAN by hand"),
    target(OVERLAY, "redis50.p50", 1.05, BY_HAND, "VXLAN by hand"),
    target(OVERLAY, "connect", 0.9, BY_HAND, "VXLAN by hand"),
    target(OVERLAY, "network", 250.0, &[], ""),
    target(SEALED, "bulk1", 0.5, OPENSSL, "openssl on one core"),
    target("bridge", "bulk1", 0.98, DOCKERS, "docker's bridge"),
    target("bridge", "bulk8", 0.98, DOCKERS, "docker's bridge"),
    target("bridge", "redis50.ops", 0.98, DOCKERS, "docker's bridge"),
    target("bridge", "connect", 0.98, DOCKERS, "docker's bridge"),
];
