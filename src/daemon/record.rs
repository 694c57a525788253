//! A container as it lies on disk: what was asked, and what became of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{ContainerConfig, Port};
use super::health::Health;
use super::mount::MountPoint;

/// Everything the daemon must remember of a container to go on after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this format, 1.
    pub(crate) v: u32,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Without a leading slash.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// `sha256:…` of the image's configuration.
    pub(crate) image_id: String,
    /// With the image's defaults merged in.
    pub(crate) config: ContainerConfig,
    pub(crate) phase: Phase,
    /// Where it stands in its networks, by network name; kept while it is stopped.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// Host ports it holds while it runs.
    pub(crate) published: Vec<PublishedPort>,
    /// Links of the default bridge, resolved at the last start.
    pub(crate) links: Vec<Link>,
    /// What is mounted into it, by its path: decided once, when it is created.
    #[serde(default)]
    pub(crate) mounts: Vec<MountPoint>,
    /// Whether its volumes may not all be there yet, or not filled: so it is until its creation is complete.
    #[serde(default)]
    pub(crate) unprepared: bool,
    /// How often its restart policy started it since somebody last did.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// It was ended by request, and its restart policy lets it be.
    #[serde(default)]
    pub(crate) stopped: bool,
    /// It is being removed, and its anonymous volumes with it.
    #[serde(default)]
    pub(crate) removing: bool,
    /// Why its last start failed, if it did.
    #[serde(default)]
    pub(crate) failure: Option<StartFailure>,
    /// What was known of its health when it last ended.
    #[serde(default)]
    pub(crate) health: Option<Health>,
}

/// A start of which nothing came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// As which exit code it is shown.
    pub(crate) code: i32,
    pub(crate) error: String,
}

/// Where a container is in its life.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub(crate) enum Phase {
    Created,
    Running {
        pid: u32,
        started: Timestamp,
        /// Frozen, by request.
        #[serde(default)]
        paused: bool,
    },
    /// It has ended, and its restart policy is about to start it again.
    Restarting {
        code: i32,
        started: Option<Timestamp>,
        finished: Timestamp,
        oom: bool,
    },
    Exited {
        code: i32,
        started: Option<Timestamp>,
        finished: Timestamp,
        oom: bool,
        error: String,
    },
}

impl Phase {
    /// As Docker calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running { paused: true, .. } => "paused",
            Self::Running { .. } => "running",
            Self::Restarting { .. } => "restarting",
            Self::Exited { .. } => "exited",
        }
    }
}

impl Record {
    /// The network that leads out of the container: of those with a gateway the one with the highest priority, and of
    /// several the one that it joined first.
    pub(crate) fn way_out(&self) -> Option<(&str, &Endpoint)> {
        self.leading(|endpoint| endpoint.gateway.is_some())
    }

    /// The same of IPv6, which not every network carries.
    pub(crate) fn way_out_v6(&self) -> Option<(&str, &Endpoint)> {
        self.leading(|endpoint| endpoint.v6.is_some_and(|v6| v6.gateway.is_some()))
    }

    fn leading(&self, leads_out: impl Fn(&Endpoint) -> bool) -> Option<(&str, &Endpoint)> {
        let out = |(_, endpoint): &(&String, &Endpoint)| leads_out(endpoint);
        let rank = |(_, endpoint): &(&String, &Endpoint)| {
            (std::cmp::Reverse(endpoint.gateway_priority), endpoint.index)
        };
        let (name, endpoint) = self.endpoints.iter().filter(out).min_by_key(rank)?;
        Some((name, endpoint))
    }
}

/// A container's place in one network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) network_id: String,
    pub(crate) address: Ipv4Addr,
    /// The host's block that the address is out of.
    pub(crate) block: Ipv4Network,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Of a network that carries IPv6.
    #[serde(default)]
    pub(crate) v6: Option<EndpointV6>,
    pub(crate) mac: [u8; 6],
    pub(crate) aliases: Vec<String>,
    /// Its link is `eth<index>` inside.
    #[serde(default)]
    pub(crate) index: u8,
    /// Of the networks with a way out, the one with the highest is it.
    #[serde(default)]
    pub(crate) gateway_priority: i64,
}

impl Endpoint {
    /// Its addresses, that of IPv4 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.v6.map(|v6| IpAddr::V6(v6.address));
        std::iter::once(IpAddr::V4(self.address)).chain(v6)
    }
}

/// A container's IPv6 address in one network.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct EndpointV6 {
    pub(crate) address: Ipv6Addr,
    /// The host's block that the address is out of.
    pub(crate) block: Ipv6Network,
    pub(crate) gateway: Option<Ipv6Addr>,
}

/// A host port that leads to a container's port.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct PublishedPort {
    pub(crate) port: Port,
    /// `None`: every IPv4 address of the host.
    pub(crate) host_address: Option<IpAddr>,
    pub(crate) host_port: u16,
}

impl PublishedPort {
    /// The host's address, `0.0.0.0` or `::` for all of its family.
    pub(crate) fn at(&self) -> IpAddr {
        self.host_address
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// A resolved `--link`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The target's name.
    pub(crate) target: String,
    pub(crate) alias: String,
    /// Where the consumer finds it: the target's own address, or that of the ambassador placed for it.
    pub(crate) address: Ipv4Addr,
    /// Whether the target runs on another host, so that an ambassador carries the link.
    pub(crate) remote: bool,
    /// Whether it goes unencrypted to another host, though this one is in a mesh: somebody has said so.
    #[serde(default)]
    pub(crate) plain: bool,
    pub(crate) ports: Vec<Port>,
    /// The target's id, hostname and environment when it is on this host.
    pub(crate) local: Option<LinkedContainer>,
}

/// What a link tells of a target on the same host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkedContainer {
    pub(crate) id: String,
    pub(crate) hostname: String,
    pub(crate) env: Vec<String>,
}
