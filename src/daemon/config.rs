//! What a container was asked to be. It is stored with the container and never changes after `create`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::mount::{MountPoint, VolumesFrom};

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
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

/// A port of a container, written `6379/tcp`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// A port that is not `NUMBER[/tcp|udp]`.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid containerPort: {0}: expected a number from 1 to 65535, optionally with /tcp or /udp"
)]
pub(crate) struct InvalidPort(String);

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(InvalidPort(text.to_owned())),
        };
        match number.parse() {
            Ok(number) if number != 0 => Ok(Self { number, protocol }),
            _ => Err(InvalidPort(text.to_owned())),
        }
    }
}

/// What a container was asked to be, as given (the image's defaults are merged in by [`super::Daemon::create`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ContainerConfig {
    /// The image as the user wrote it.
    pub(crate) image: String,
    /// Empty: the first 12 digits of the container's id.
    pub(crate) hostname: String,
    pub(crate) user: String,
    pub(crate) env: Vec<String>,
    /// `None`: the image's.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// `None`: the image's, unless the entrypoint is given.
    pub(crate) cmd: Option<Vec<String>>,
    /// Empty: the image's, else `/`.
    pub(crate) working_dir: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) exposed: Vec<Port>,
    pub(crate) tty: bool,
    /// Rows and columns the terminal starts with; `None`: whatever the kernel gives it.
    #[serde(default)]
    pub(crate) terminal_size: Option<(u16, u16)>,
    pub(crate) open_stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) attach_stdin: bool,
    pub(crate) attach_stdout: bool,
    pub(crate) attach_stderr: bool,
    /// Empty: the image's, else SIGTERM.
    pub(crate) stop_signal: String,
    /// Seconds between the stop signal and SIGKILL; `None`: 10.
    pub(crate) stop_timeout: Option<u32>,
    /// Where anonymous volumes are wanted, the image's among them.
    #[serde(default)]
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) host: HostOptions,
    /// By the network's name or id, as asked; empty: `host.network` decides.
    pub(crate) endpoints: BTreeMap<String, EndpointRequest>,
}

/// The part of a container's configuration that ties it to its host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HostOptions {
    /// As asked by `-v` and `--mount`; what became of it stands in the container's record.
    #[serde(default)]
    pub(crate) mounts: Vec<MountPoint>,
    #[serde(default)]
    pub(crate) volumes_from: Vec<VolumesFrom>,
    /// The driver of volumes that say none; empty: `local`.
    #[serde(default)]
    pub(crate) volume_driver: String,
    /// Mount point → options, as in `--tmpfs /run:size=64m`.
    pub(crate) tmpfs: BTreeMap<String, String>,
    pub(crate) auto_remove: bool,
    pub(crate) privileged: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) read_only: bool,
    pub(crate) init: bool,
    pub(crate) seccomp_unconfined: bool,
    pub(crate) publish: Vec<PortBinding>,
    pub(crate) publish_all: bool,
    pub(crate) links: Vec<LinkRequest>,
    pub(crate) network: NetworkMode,
    pub(crate) dns: Vec<String>,
    pub(crate) dns_search: Vec<String>,
    pub(crate) dns_options: Vec<String>,
    /// `name:address`, as in `--add-host`.
    pub(crate) extra_hosts: Vec<String>,
    /// Bytes; 0: no limit.
    pub(crate) memory: i64,
    /// Bytes of memory and swap together; 0: twice the memory; -1: no limit.
    pub(crate) memory_swap: i64,
    /// Billionths of a core; 0: no limit.
    pub(crate) nano_cpus: i64,
    /// 0: the kernel's default.
    pub(crate) cpu_shares: i64,
    /// 0 or less: no limit.
    pub(crate) pids_limit: i64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) oom_score_adj: i32,
    /// `max-size` in bytes of one log file; `None`: unlimited.
    pub(crate) log_max_size: Option<u64>,
    /// `max-file`; `None`: 1.
    pub(crate) log_max_file: Option<u32>,
}

/// A resource limit as in `--ulimit nofile=1024:2048`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ulimit {
    pub(crate) name: String,
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

/// A port wanted on the host, as in `-p 127.0.0.1:8080:80/tcp`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct PortBinding {
    pub(crate) port: Port,
    /// `None`: every address of the host.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// First and last allowed; `None`: one of the daemon's range.
    pub(crate) host_ports: Option<(u16, u16)>,
}

/// `--link target:alias`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct LinkRequest {
    pub(crate) target: String,
    pub(crate) alias: String,
}

/// `--network`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NetworkMode {
    /// The network named `bridge`.
    #[default]
    Default,
    /// Loopback alone.
    None,
    /// The daemon's own network namespace.
    Host,
    /// The namespace of another container, by name or id.
    Container(String),
    /// A network by name or id.
    Named(String),
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(other) => write!(f, "container:{other}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// How a container wants to stand in one network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EndpointRequest {
    pub(crate) aliases: Vec<String>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) links: Vec<LinkRequest>,
}
