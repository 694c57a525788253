//! Why a configuration cannot run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::direct::{NotAService, ServiceKey};
use crate::{Forward, Listen, loops};

/// Why a configuration was not applied. What ran before goes on unchanged.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Names tell forwards apart.
    #[error("two forwards are named {name:?}; give each a name of its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A listener can have one forward.
    #[error("forwards {first:?} and {second:?} both listen on {listen}; let one listen elsewhere")]
    DuplicateListen {
        /// The forward that comes first.
        first: String,
        /// The other one.
        second: String,
        /// What both ask for.
        listen: Listen,
    },
    /// A flow would be forwarded for ever.
    #[error("forwards lead in a circle: {}; point one at an upstream beyond this ambassador", .path.join(" -> "))]
    Loop {
        /// The names along the circle; the first one comes again at the end.
        path: Vec<String>,
    },
    /// The threads that carry TCP cannot be had.
    #[error(
        "start {workers} workers, one thread and a few descriptors each; allow more, or ask for fewer"
    )]
    Workers {
        /// How many were asked for.
        workers: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Only one address can be rewritten.
    #[error("forward {forward:?} cannot be direct")]
    Direct {
        /// The forward.
        forward: String,
        /// What is wrong with its listener.
        source: NotAService,
    },
    /// What goes straight to an upstream passes no edge.
    #[error(
        "forward {forward:?} has both direct and {key}; what is direct would get around {key}, so leave one out"
    )]
    DirectEdge {
        /// The forward.
        forward: String,
        /// What is asked for at an edge, as configurations name it.
        key: &'static str,
    },
    /// The kernel does not grant the listener.
    #[error("listen on {listen} for forward {forward:?}: {}", advice(.source))]
    Bind {
        /// The forward.
        forward: String,
        /// What it asks for.
        listen: Listen,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ApplyError {
    /// A word for machines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DuplicateName { .. } => "duplicate-name",
            Self::DuplicateListen { .. } => "duplicate-listen",
            Self::Loop { .. } => "loop",
            Self::Workers { .. } => "workers",
            Self::Direct { .. } => "direct-address",
            Self::DirectEdge { .. } => "direct-edge",
            Self::Bind { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => "address-in-use",
                io::ErrorKind::AddrNotAvailable => "address-not-local",
                io::ErrorKind::PermissionDenied => "permission-denied",
                _ => "bind",
            },
        }
    }

    /// The forward that is to blame.
    #[must_use]
    pub fn forward(&self) -> Option<&str> {
        match self {
            Self::DuplicateName { name: forward }
            | Self::DuplicateListen {
                second: forward, ..
            }
            | Self::Direct { forward, .. }
            | Self::DirectEdge { forward, .. }
            | Self::Bind { forward, .. } => Some(forward),
            Self::Loop { path } => path.first().map(String::as_str),
            Self::Workers { .. } => None,
        }
    }
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "choose another port, or stop what holds this one",
        io::ErrorKind::AddrNotAvailable => "this host does not have the address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "the kernel refuses",
    }
}

/// Refuses what would get around an edge, of which `key` asks for something.
pub(crate) fn direct_or_edge(
    forward: &str,
    direct: &[PathBuf],
    key: Option<&'static str>,
) -> Result<(), ApplyError> {
    match key.filter(|_| !direct.is_empty()) {
        Some(key) => Err(ApplyError::DirectEdge {
            forward: forward.to_owned(),
            key,
        }),
        None => Ok(()),
    }
}

/// What can be said without the kernel.
pub(crate) fn check(forwards: &[Forward]) -> Result<(), ApplyError> {
    for (index, second) in forwards.iter().enumerate() {
        let before = &forwards[..index];
        if before.iter().any(|first| first.name == second.name) {
            let name = second.name.clone();
            return Err(ApplyError::DuplicateName { name });
        }
        let listen = second.listen;
        if !second.direct.is_empty() {
            // The kernel will choose a port.
            let port = listen.address.port().max(1);
            let service = SocketAddr::new(listen.address.ip(), port);
            ServiceKey::new(listen.protocol, service).map_err(|source| ApplyError::Direct {
                forward: second.name.clone(),
                source,
            })?;
        }
        let (direct, edge) = (&second.direct, second.edge.asks());
        direct_or_edge(&second.name, direct, edge)?;
        let same = before.iter().find(|first| first.listen == listen);
        if let Some(first) = same.filter(|_| listen.address.port() != 0) {
            return Err(ApplyError::DuplicateListen {
                first: first.name.clone(),
                second: second.name.clone(),
                listen,
            });
        }
    }
    loops::find(forwards).map_or(Ok(()), |path| Err(ApplyError::Loop { path }))
}
