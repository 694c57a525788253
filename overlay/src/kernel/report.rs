use std::{fmt, io, net::IpAddr};

use ipnetwork::IpNetwork;

use crate::{MacAddr, nft::NftError};

/// How many things one reconciliation changed; none of a state that already stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Were not there and had not been, or are wanted otherwise now.
    pub created: usize,
    /// Were there once, or otherwise: drift.
    pub repaired: usize,
    /// Were not wanted any more.
    pub removed: usize,
}

impl Report {
    /// All changes together.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.created + self.repaired + self.removed
    }
}

/// One thing in the kernel.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Object {
    /// The setting that lets this namespace route.
    Forwarding,
    /// The same of IPv6.
    ForwardingV6,
    /// A bridge, a VXLAN device or a container's link.
    Link(String),
    /// An address of a link.
    Address(IpNetwork, String),
    /// A route to a peer's block.
    Route(IpNetwork, String),
    /// A permanent neighbour: the next hop to a peer's block.
    Neighbour(IpAddr, String),
    /// A row of a VXLAN device's forwarding table.
    Fdb(MacAddr, String),
    /// Whether a VXLAN device leaves checksums to others.
    Offload(String, bool),
    /// The nft table.
    Table,
    /// The nft table of shorter ways between containers of two hosts.
    Shortcut,
}

impl Object {
    /// Its kind, in a word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Forwarding | Self::ForwardingV6 | Self::Offload(..) => "setting",
            Self::Link(_) => "link",
            Self::Address(..) => "address",
            Self::Route(..) => "route",
            Self::Neighbour(..) => "neighbour",
            Self::Fdb(..) => "fdb",
            Self::Table | Self::Shortcut => "table",
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarding => write!(f, "net.ipv4.ip_forward"),
            Self::ForwardingV6 => write!(f, "net.ipv6.conf.all.forwarding"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Address(address, link) => write!(f, "address {address} of {link}"),
            Self::Route(block, link) => write!(f, "route to {block} over {link}"),
            Self::Neighbour(address, link) => write!(f, "neighbour {address} on {link}"),
            Self::Fdb(mac, link) => write!(f, "forwarding of {mac} on {link}"),
            Self::Offload(link, on) => {
                write!(
                    f,
                    "tx-checksumming {} of {link}",
                    if *on { "on" } else { "off" }
                )
            }
            Self::Table => write!(f, "nft table {}", crate::firewall::TABLE),
            Self::Shortcut => write!(f, "nft table {}", crate::firewall::shortcut::TABLE),
        }
    }
}

/// One thing that could not be as wanted.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileFailure {
    /// A name that the kernel, or nft, would not take.
    #[error("`{0}` is no link name: 1 to 15 of letters, digits, `-`, `_` and `.` are")]
    LinkName(String),
    /// A bridge that somebody else was to make.
    #[error("there is no bridge {0}: make it first, or let one be made by naming none")]
    NoBridge(String),
    /// A link of a wanted name that is neither ours nor said to be adopted.
    #[error("link {0} was not made by nuncio: remove it, or adopt it if it is a bridge")]
    Foreign(String),
    /// What is there could not be listed.
    #[error("list {what}")]
    List {
        /// Links, addresses, routes, ..
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something could not be made or mended.
    #[error("make {object}")]
    Make {
        /// What.
        object: Object,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something could not be removed.
    #[error("remove {object}")]
    Remove {
        /// What.
        object: Object,
        /// What the kernel said.
        source: io::Error,
    },
    /// The rules could not be read or written.
    #[error("rules")]
    Nft(#[from] NftError),
}

/// All that a reconciliation could not do; what it could is done.
#[derive(Debug)]
pub struct ReconcileError {
    /// Never empty.
    pub failures: Vec<ReconcileFailure>,
    /// What was changed nevertheless.
    pub report: Report,
}

impl fmt::Display for ReconcileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.failures.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
            let mut source = std::error::Error::source(failure);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

/// The sources stand in the message, one for each failure.
impl std::error::Error for ReconcileError {}
