//! The figures of the ambassador, and the paths they are measured on.

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Better {
    More,
    Less,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Its name in the samples.
    pub(crate) id: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    /// A sample divided by this is in `unit`.
    pub(crate) scale: f64,
    pub(crate) digits: usize,
    pub(crate) better: Better,
}

pub(super) const fn more(
    id: &'static str,
    label: &'static str,
    unit: &'static str,
    scale: f64,
    digits: usize,
) -> Figure {
    Figure {
        id,
        label,
        unit,
        scale,
        digits,
        better: Better::More,
    }
}

pub(super) const fn less(
    id: &'static str,
    label: &'static str,
    unit: &'static str,
    scale: f64,
    digits: usize,
) -> Figure {
    Figure {
        better: Better::Less,
        ..more(id, label, unit, scale, digits)
    }
}

pub(super) const MEBI: f64 = (1 << 20) as f64;

/// All figures, in the order of the table.
pub(crate) const FIGURES: [Figure; 21] = [
    more("bulk1", "bulk, 1 stream", "Gb/s", 1e9, 2),
    more("bulk8", "bulk, 8 streams", "Gb/s", 1e9, 2),
    less("cpu", "CPU of the forwarder", "s/GB", 1.0, 3),
    more("redis1.ops", "redis c=1", "k/s", 1e3, 1),
    less("redis1.p50", "redis c=1, p50", "ms", 1.0, 3),
    less("redis1.p99", "redis c=1, p99", "ms", 1.0, 3),
    more("redis50.ops", "redis c=50", "k/s", 1e3, 1),
    less("redis50.p50", "redis c=50, p50", "ms", 1.0, 3),
    less("redis50.p99", "redis c=50, p99", "ms", 1.0, 3),
    more("redis50p16.ops", "redis c=50 P=16", "k/s", 1e3, 0),
    less("redis50p16.p50", "redis c=50 P=16, p50", "ms", 1.0, 3),
    less("redis50p16.p99", "redis c=50 P=16, p99", "ms", 1.0, 3),
    more("connect", "new connections", "k/s", 1e3, 2),
    more("udp64x1", "UDP 64 B, 1 flow", "k/s", 1e3, 0),
    more("udp64x64", "UDP 64 B, 64 flows", "k/s", 1e3, 0),
    more("udp1400x1", "UDP 1400 B, 1 flow", "k/s", 1e3, 0),
    more("udp1400x64", "UDP 1400 B, 64 flows", "k/s", 1e3, 0),
    more("udpgso", "UDP bulk, GSO sender", "Gb/s", 1e9, 2),
    less("idle", "memory of an idle flow", "B", 1.0, 0),
    less("stall", "held for a stalled reader", "MiB", MEBI, 2),
    less("size", "program, stripped", "MiB", MEBI, 2),
];

/// How the bytes go from client to server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Its name in the samples.
    pub(crate) id: &'static str,
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
}

/// What a path is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// No forwarder at all.
    Direct,
    Ours,
    Peer,
}

pub(super) const fn path(id: &'static str, label: &'static str, kind: Kind) -> Path {
    Path { id, label, kind }
}

pub(crate) const DIRECT: &str = "direct";
pub(crate) const RELAY: &str = "nuncio";

/// All paths, in the order of the table.
pub(crate) const PATHS: [Path; 9] = [
    path(DIRECT, "direct", Kind::Direct),
    path("rewrite", "nuncio rewrite", Kind::Ours),
    path("nat", "nuncio NAT", Kind::Ours),
    path(RELAY, "nuncio relay", Kind::Ours),
    path("haproxy", "HAProxy", Kind::Peer),
    path("haproxy-splice", "HAProxy splice", Kind::Peer),
    path("nginx", "nginx", Kind::Peer),
    path("docker-proxy", "docker-proxy", Kind::Peer),
    path("socat", "socat", Kind::Peer),
];
