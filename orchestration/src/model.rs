//! What there is: hosts, and with them services and tasks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Service, Task};

/// All that is wanted and all that there is, as the leader knows it.
///
/// Each map's key is the value's `id`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Cluster {
    /// The time, in milliseconds since the Unix epoch. All times are.
    pub now: u64,
    /// Most hosts were lost at once, so that it is likelier that we are the ones cut off: nothing is planned but reasons.
    pub frozen: bool,
    /// How long after a host's lease has ended its fenced tasks may still run there, in milliseconds: until then none of them
    /// is begun elsewhere. Zero, if hosts end them before their lease does. A host whose lease has ended ends them in that time
    /// also if it has another lease by then, for the leader may not know of that yet.
    pub fence_grace: u64,
    /// The hosts.
    pub nodes: BTreeMap<String, Node>,
    /// The services that are wanted. Tasks of others are ended and forgotten.
    pub services: BTreeMap<String, Service>,
    /// Tasks, those that have ended included, until they are [forgotten](crate::Action::Forget).
    pub tasks: BTreeMap<String, Task>,
}

/// A host that tasks may run on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its host name.
    pub name: String,
    /// Where others reach it.
    pub address: Option<IpAddr>,
    /// Whether its lease lives.
    pub alive: bool,
    /// Since when `alive` has been what it is.
    pub since: u64,
    /// Whether it is to have tasks.
    pub availability: Availability,
    /// Whether `node.role` is `manager`: it is, of every host that may become leader.
    pub role_manager: bool,
    /// Labels that operators gave it: `node.labels.X`.
    pub labels: BTreeMap<String, String>,
    /// Labels of its daemon: `engine.labels.X`.
    pub engine_labels: BTreeMap<String, String>,
    /// Operating system, as `linux`.
    pub os: String,
    /// Architecture, as `x86_64` or `amd64`.
    pub arch: String,
    /// CPUs, in billionths of one.
    pub cpus: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

/// Whether a host is to have tasks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// It may be given tasks.
    #[default]
    Active,
    /// It keeps what it has, and is given no more.
    Pause,
    /// What it has moves elsewhere.
    Drain,
}
