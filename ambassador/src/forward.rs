//! What an ambassador is told to do: from which listener to which upstreams.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::{Balance, Edge, Failure};

/// The transport a listener speaks; its upstreams speak the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// A stream relay.
    Tcp,
    /// A session relay.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where newcomers arrive. Displayed and parsed as `tcp://ADDR:PORT`, or `tcp6://[::]:PORT` for those of IPv6 alone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Listen {
    /// The transport.
    pub protocol: Protocol,
    /// The local address. `[::]` takes IPv4 too, and stands for `0.0.0.0` where the kernel has no
    /// IPv6. Port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// `[::]` leaves IPv4 to others. Other addresses are of one family anyway.
    pub only_v6: bool,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let only = if self.only_v6 { "6" } else { "" };
        write!(f, "{}{only}://{}", self.protocol, self.address)
    }
}

/// How the bytes of a TCP flow are carried.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum RelayMode {
    /// Copies until a direction carries bulk, then splices that direction while it does.
    #[default]
    Auto,
    /// Always copies through user space.
    Copy,
    /// Splices from the first byte, as long as the pool has a pipe.
    Splice,
}

/// The upstreams that a forward may use at one moment.
///
/// Sets are equal if they say the same, however it became known.
#[derive(Clone, Debug, Default)]
pub struct EndpointSet {
    /// The addresses, in no order.
    pub endpoints: Vec<SocketAddr>,
    /// Their shares of newcomers, against each other; those that are not named here weigh 1.
    pub weights: BTreeMap<SocketAddr, NonZeroU16>,
    /// False until discovery has answered for the first time; newcomers are held meanwhile.
    pub resolved: bool,
    /// How this is known, to be shown.
    pub discovery: Discovery,
}

impl PartialEq for EndpointSet {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            endpoints,
            weights,
            resolved,
            discovery: _,
        } = self;
        *endpoints == other.endpoints && *weights == other.weights && *resolved == other.resolved
    }
}

impl Eq for EndpointSet {}

/// How a set of endpoints is known. All is none of addresses that are configured.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// When discovery answered last, with the same or with something new.
    pub answered: Option<SystemTime>,
    /// The registry's revision that the answer belongs to.
    pub revision: Option<i64>,
    /// What went wrong since the last answer.
    pub failure: Option<Failure>,
}

impl EndpointSet {
    /// A set that is known. All weigh 1.
    #[must_use]
    pub fn known(endpoints: Vec<SocketAddr>) -> Self {
        Self {
            endpoints,
            weights: BTreeMap::new(),
            resolved: true,
            discovery: Discovery::default(),
        }
    }

    /// A set that is known, of endpoints with weights.
    #[must_use]
    pub fn weighted(endpoints: impl IntoIterator<Item = (SocketAddr, NonZeroU16)>) -> Self {
        let mut weights: BTreeMap<_, _> = endpoints.into_iter().collect();
        let mut set = Self::known(weights.keys().copied().collect());
        weights.retain(|_, weight| *weight > NonZeroU16::MIN);
        set.weights = weights;
        set
    }

    /// An endpoint's share of newcomers, against the others' weights.
    #[must_use]
    pub fn weight(&self, endpoint: SocketAddr) -> NonZeroU16 {
        let weight = self.weights.get(&endpoint);
        weight.copied().unwrap_or(NonZeroU16::MIN)
    }

    /// A watch of a set that never changes.
    #[must_use]
    pub fn fixed(endpoints: Vec<SocketAddr>) -> watch::Receiver<Arc<Self>> {
        watch::channel(Arc::new(Self::known(endpoints))).1
    }
}

/// One listener and where its newcomers go.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Names the forward in errors, flows and metrics; unique within a configuration.
    pub name: String,
    /// Where newcomers arrive.
    pub listen: Listen,
    /// The upstreams, live.
    pub upstreams: watch::Receiver<Arc<EndpointSet>>,
    /// How bytes are carried, and how long things may take.
    pub limits: Limits,
    /// How newcomers are spread over the upstreams.
    pub balance: Balance,
    /// Directories of cgroup2. What processes in them connect to the listener's address goes
    /// straight to an upstream instead, where the kernel can do that; see [`crate::direct`]. The
    /// address must be a concrete one.
    pub direct: Vec<PathBuf>,
    /// What is said and asked at either end before bytes are carried. For TCP only.
    pub edge: Edge,
}

impl Forward {
    /// A forward with the default limits, balanced in the default way, which says and asks nothing.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        listen: Listen,
        upstreams: watch::Receiver<Arc<EndpointSet>>,
    ) -> Self {
        Self {
            name: name.into(),
            listen,
            upstreams,
            limits: Limits::default(),
            edge: Edge::default(),
            balance: Balance::default(),
            direct: Vec::new(),
        }
    }
}

/// What a forward may spend on its flows.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Limits {
    /// How TCP is carried.
    pub mode: RelayMode,
    /// How long a newcomer waits for an upstream, all attempts together.
    pub connect_timeout: Duration,
    /// A UDP session ends after this long without a datagram in either direction.
    pub idle: Duration,
    /// Flows at once. TCP newcomers beyond it wait in the backlog; a UDP newcomer takes the place
    /// of the session that has been silent longest, as it does when this host has no descriptor or
    /// port left for another.
    pub max_connections: usize,
    /// TCP newcomers that may wait for an upstream at once: for discovery, for one that is not
    /// full, for the connection. Those beyond it are reset at once, and counted as refused.
    /// `usize::MAX`, as by default, bounds them by `max_connections` alone.
    pub max_pending: usize,
    /// Flows to one endpoint at once. A full endpoint is not chosen; if all are full, TCP newcomers
    /// wait for at most the connect timeout, and UDP newcomers' datagrams are dropped.
    /// `usize::MAX`, as by default, is no bound.
    pub max_per_endpoint: usize,
    /// Other endpoints that a TCP newcomer tries after the first has failed. None is tried twice,
    /// so that `usize::MAX`, as by default, tries each endpoint once.
    pub retries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mode: RelayMode::Auto,
            connect_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            max_connections: 65_536,
            max_pending: usize::MAX,
            max_per_endpoint: usize::MAX,
            retries: usize::MAX,
        }
    }
}

/// What all forwards of an ambassador share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that carry TCP, each with an event loop of its own; at least one is started. By
    /// default one for each processor that the process may use.
    pub workers: usize,
    /// Pipes for splicing, at most. A direction uses one only while it carries bulk.
    pub max_pipes: usize,
    /// Bytes one pipe holds; the kernel may grant less.
    pub pipe_size: usize,
    /// Idle time before the first TCP keepalive probe; five more follow, 10 s apart.
    pub keepalive: Duration,
    /// How long sent data may stay unacknowledged, or a peer's window closed, before the flow is
    /// given up (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// How long a newcomer is held until the first discovery answer.
    pub hold: Duration,
    /// How long the data before a reset may take to arrive, before the reset is passed on.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            max_pipes: 256,
            pipe_size: 1 << 20,
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(300),
            hold: Duration::from_secs(10),
            linger: Duration::from_secs(5),
        }
    }
}
