//! What a service's author sets.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Constraint;

/// What is wanted of a service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Spec {
    /// Tasks of another version are replaced. Whoever changes anything that a running task would not notice, as the number of
    /// replicas or the settings of updates, leaves it; whoever changes anything else gives one that was never there before.
    pub version: u64,
    /// Earlier versions that differ from this one by their placement alone: a task of one of them is not replaced, if its host
    /// meets the constraints of this one.
    pub akin: BTreeSet<u64>,
    /// How many tasks, and where.
    pub mode: Mode,
    /// Which hosts, and what is kept of them.
    pub placement: Placement,
    /// What happens when a task ends of itself.
    pub restart: RestartPolicy,
    /// How tasks of another version are replaced.
    pub update: UpdateConfig,
    /// How they are replaced when an update is taken back.
    pub rollback: UpdateConfig,
    /// No two tasks of a slot may run at the same time, not even while a host is cut off: a task is begun only when its
    /// predecessor has ended, or its host has been dead for [`fence_grace`](crate::Cluster::fence_grace). Start-first is
    /// stop-first then.
    pub fence: bool,
    /// How long a process may take to end before it is killed, in milliseconds.
    pub stop_grace: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            version: 0,
            akin: BTreeSet::new(),
            mode: Mode::default(),
            placement: Placement::default(),
            restart: RestartPolicy::default(),
            update: UpdateConfig::default(),
            rollback: UpdateConfig::default(),
            fence: false,
            stop_grace: 10_000,
        }
    }
}

impl Spec {
    /// Whether it is done once its tasks have ended with 0.
    #[must_use]
    pub fn is_job(&self) -> bool {
        matches!(self.mode, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }
}

/// How many tasks, and where.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A number of tasks, wherever they fit.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on each host that meets the constraints.
    Global,
    /// A number of tasks that each end with 0, once.
    ReplicatedJob {
        /// How many.
        total: u64,
        /// How many at the same time at most; all, if zero.
        concurrent: u64,
    },
    /// One that ends with 0, once, on each host that meets the constraints.
    GlobalJob,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// Which hosts a task may be given to, and what it takes of them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Placement {
    /// All are met.
    pub constraints: Vec<Constraint>,
    /// Tasks are spread evenly over the first one's values, then within each over the second one's.
    pub preferences: Vec<Preference>,
    /// How many tasks of the service one host has at most; any number, if zero.
    pub max_per_node: u64,
    /// What is kept for it alone.
    pub reservations: Resources,
    /// One is the host's, unless there are none.
    pub platforms: Vec<Platform>,
    /// Ports of the host itself, each of which only one task has.
    pub host_ports: BTreeSet<HostPort>,
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Resources {
    /// CPUs, in billionths of one.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

/// An operating system and an architecture; an empty one is any.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Platform {
    /// As `linux`.
    pub os: String,
    /// As `amd64` or `x86_64`.
    pub arch: String,
}

/// A port that is published on the host that the task runs on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

/// That tasks be spread evenly over the values of a label.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Preference {
    /// Which: `node.labels.X` or `engine.labels.X`. Others are passed over, as Swarm does.
    pub spread: String,
}

impl Preference {
    /// Parses `spread=node.labels.X`, as `docker service create --placement-pref` does.
    ///
    /// # Errors
    ///
    /// Docker's words, if it is of another form.
    pub fn parse(text: &str) -> Result<Self, PreferenceError> {
        let (strategy, spread) = text.split_once('=').ok_or(PreferenceError::Form)?;
        if !strategy.trim().eq_ignore_ascii_case("spread") {
            return Err(PreferenceError::Strategy(strategy.to_owned()));
        }
        Ok(Self {
            spread: spread.trim().to_owned(),
        })
    }
}

/// Why a placement preference was refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum PreferenceError {
    /// There is no `=`.
    #[error("placement preference must be of the format \"<strategy>=<arg>\"")]
    Form,
    /// It is not `spread`.
    #[error("unsupported placement preference {0} (only spread is supported)")]
    Strategy(String),
}

/// What happens when a task ends of itself.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// After which ends another is begun.
    pub condition: Condition,
    /// How long after, in milliseconds. Each end in a row that came within ten seconds of the start doubles it, up to a
    /// minute, or to itself if that is longer.
    pub delay: u64,
    /// How many times at most; any number, if zero. More than 1,000 are as 1,000.
    pub max_attempts: u64,
    /// In what time, in milliseconds, they are counted; ever, if zero.
    pub window: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: Condition::Any,
            delay: 5_000,
            max_attempts: 0,
            window: 0,
        }
    }
}

/// After which ends of a task another is begun.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// None.
    None,
    /// Those with another code than 0.
    OnFailure,
    /// All.
    #[default]
    Any,
}

/// How tasks of one version are replaced by those of another. The default is Docker's.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct UpdateConfig {
    /// How many slots at the same time; all, if zero.
    pub parallelism: u64,
    /// How long after a batch is up the next one begins, in milliseconds.
    pub delay: u64,
    /// What happens when too many fail.
    pub on_failure: FailureAction,
    /// How long a new task is watched for failing, in milliseconds from its start.
    pub monitor: u64,
    /// Which share of all slots may fail, from 0 to 1.
    pub max_failure_ratio: f64,
    /// What comes first, a new task's start or an old one's end.
    pub order: Order,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: 0,
            on_failure: FailureAction::Pause,
            monitor: 5_000,
            max_failure_ratio: 0.0,
            order: Order::StopFirst,
        }
    }
}

/// What happens when too many new tasks of an update fail.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// It stands still.
    #[default]
    Pause,
    /// It goes on.
    Continue,
    /// It goes back. When it is already going back, it stands still.
    Rollback,
}

/// What comes first when a task takes another's place.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The old one ends, then the new one starts.
    #[default]
    StopFirst,
    /// The new one is up, then the old one is asked to end. As long as there is no room for both, the old one stays, also on a
    /// host that is drained.
    StartFirst,
}
