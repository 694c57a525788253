//! Walks what the kernel holds on the way between a container and somewhere else, and says where it breaks.

mod judge;
mod listeners;
mod look;
mod lookup;
mod rules;

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;

use crate::{AttachRequest, Peer, Protocol, Segment, Standing};

pub use self::{
    listeners::{Listener, listeners},
    lookup::resolve,
};

/// A way to be walked, from a container to what is outside of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WalkRequest {
    /// How the container was attached.
    pub attached: AttachRequest,
    /// Its address, with the prefix of its block: what is walked is of this family.
    pub address: IpNetwork,
    /// The whole network's addresses of that family.
    pub subnet: IpNetwork,
    /// Its network.
    pub segment: Segment,
    /// The other end's address, of the same family.
    pub other: IpAddr,
    /// The host that the other end is on, if that is not this one and one of the network's.
    pub peer: Option<Peer>,
    /// Who opens connections: the container, or the other end.
    pub outward: bool,
    /// Bytes of the greatest IP packet inside the tunnel that gets to the peer, if that is known.
    pub fits: Option<u16>,
    /// What for, if that is known.
    pub port: Option<(Protocol, u16)>,
}

/// A place on the way.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Hop {
    /// The container's end of its link.
    Link,
    /// Its address.
    Address,
    /// Its route.
    Route,
    /// The host's end of the link.
    Port,
    /// The bridge.
    Bridge,
    /// The shorter way between containers of two hosts, past settings, rules and the host's route.
    Shortcut,
    /// The kernel's settings.
    Forwarding,
    /// The rules of nft.
    Rules,
    /// The host's route to the other end.
    PeerRoute,
    /// The neighbour that this names.
    Neighbour,
    /// Behind which host that is.
    Fdb,
    /// The VXLAN device.
    Tunnel,
    /// The way to that host.
    Underlay,
    /// How long packets that go there may be.
    Mtu,
}

impl Hop {
    /// Its name, in a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Route => "route",
            Self::Port => "port",
            Self::Bridge => "bridge",
            Self::Shortcut => "shortcut",
            Self::Forwarding => "forwarding",
            Self::Rules => "rules",
            Self::PeerRoute => "peer-route",
            Self::Neighbour => "neighbour",
            Self::Fdb => "fdb",
            Self::Tunnel => "vxlan",
            Self::Underlay => "underlay",
            Self::Mtu => "mtu",
        }
    }
}

/// Whether a place is as it ought to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is.
    Fine,
    /// It is not, and nothing gets through.
    Broken,
    /// That cannot be told.
    Unclear,
}

/// What was found at one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Where.
    pub hop: Hop,
    /// Whether it is as it ought to be.
    pub verdict: Verdict,
    /// What is there, and what is wrong with it.
    pub detail: String,
    /// A command that would mend it.
    pub mend: Option<String>,
}

impl Finding {
    fn fine(hop: Hop, detail: impl fmt::Display) -> Self {
        Self::new(hop, Verdict::Fine, detail, None)
    }

    fn broken(hop: Hop, detail: impl fmt::Display, mend: impl Into<String>) -> Self {
        Self::new(hop, Verdict::Broken, detail, Some(mend.into()))
    }

    fn unclear(hop: Hop, detail: impl fmt::Display) -> Self {
        Self::new(hop, Verdict::Unclear, detail, None)
    }

    fn new(hop: Hop, verdict: Verdict, detail: impl fmt::Display, mend: Option<String>) -> Self {
        Self {
            hop,
            verdict,
            detail: detail.to_string(),
            mend,
        }
    }
}

/// Walks from the container outwards, in the calling thread's network namespace. `standing` is how the rules are, see
/// [`Kernel::standing`](crate::Kernel::standing).
pub async fn walk(request: &WalkRequest, standing: &Standing) -> Vec<Finding> {
    let inside = look::inside(request).await;
    let host = look::host(request).await;
    judge::judge(request, &inside, &host, standing)
}
