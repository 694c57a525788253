//! What a container was asked to be. It is stored with the container and never changes after `create`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::mount::{MountPoint, VolumesFrom};
use super::orchestrator::FileKind;

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
    /// Stands behind the hostname; empty: none.
    #[serde(default)]
    pub(crate) domainname: String,
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
    /// Seconds between the stop signal and SIGKILL; `None`: 10; negative: never.
    pub(crate) stop_timeout: Option<i64>,
    /// `None`: the image's, if it has one.
    #[serde(default)]
    pub(crate) healthcheck: Option<HealthCheck>,
    /// Where anonymous volumes are wanted, the image's among them.
    #[serde(default)]
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) host: HostOptions,
    /// It was taken out of the network that `host.network` names.
    #[serde(default)]
    pub(crate) left_first: bool,
    /// By the network's name or id, as asked; empty: `host.network` decides.
    pub(crate) endpoints: BTreeMap<String, EndpointRequest>,
    /// Secrets and configs of the service that it is a task of.
    #[serde(default)]
    pub(crate) files: Vec<TaskFile>,
}

/// A secret or config, as a task's container has it; its content is never written down with it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskFile {
    pub(crate) kind: FileKind,
    pub(crate) id: String,
    pub(crate) name: String,
    /// Absolute path in the container.
    pub(crate) target: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// How to find out whether a container is well. Times are in nanoseconds; what is 0 or empty is the image's, else
/// Docker's default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    /// `NONE`; `CMD` and the words of a command; `CMD-SHELL` and a line for the shell.
    pub(crate) test: Vec<String>,
    pub(crate) interval: i64,
    pub(crate) timeout: i64,
    pub(crate) start_period: i64,
    pub(crate) start_interval: i64,
    pub(crate) retries: u32,
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
    #[serde(default)]
    pub(crate) restart: RestartPolicy,
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
    /// Bytes it is to keep when memory is scarce; 0: none.
    #[serde(default)]
    pub(crate) memory_reservation: i64,
    /// 0 to 100; `None`: the kernel's default.
    #[serde(default)]
    pub(crate) memory_swappiness: Option<u8>,
    #[serde(default)]
    pub(crate) oom_kill_disable: bool,
    /// Microseconds; 0: the kernel's default.
    #[serde(default)]
    pub(crate) cpu_period: i64,
    /// Microseconds of processor time in each period; 0 or less: no limit.
    #[serde(default)]
    pub(crate) cpu_quota: i64,
    /// As `0-2,5`; empty: all.
    #[serde(default)]
    pub(crate) cpuset_cpus: String,
    #[serde(default)]
    pub(crate) cpuset_mems: String,
    /// Microseconds; 0: the kernel's default.
    #[serde(default)]
    pub(crate) cpu_rt_period: i64,
    /// Microseconds of real time in each period; 0: none.
    #[serde(default)]
    pub(crate) cpu_rt_runtime: i64,
    #[serde(default)]
    pub(crate) disks: DiskLimits,
    /// Below which its cgroups are; empty: the daemon's own.
    #[serde(default)]
    pub(crate) cgroup_parent: String,
    /// For other tools, in the container's OCI configuration.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`; 0: 64 MiB.
    #[serde(default)]
    pub(crate) shm_size: u64,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// As `c 10:200 rwm`.
    #[serde(default)]
    pub(crate) device_rules: Vec<String>,
    /// Further groups of its user, by name or number.
    #[serde(default)]
    pub(crate) group_add: Vec<String>,
    #[serde(default)]
    pub(crate) pid: Shared,
    #[serde(default)]
    pub(crate) ipc: Ipc,
    /// It has the host's name.
    #[serde(default)]
    pub(crate) host_uts: bool,
    /// It sees the whole machine's cgroups.
    #[serde(default)]
    pub(crate) host_cgroups: bool,
    #[serde(default)]
    pub(crate) no_new_privileges: bool,
    /// `None`: Docker's.
    #[serde(default)]
    pub(crate) masked_paths: Option<Vec<String>>,
    /// `None`: Docker's.
    #[serde(default)]
    pub(crate) readonly_paths: Option<Vec<String>>,
    /// `--log-driver none`.
    #[serde(default)]
    pub(crate) no_log: bool,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) oom_score_adj: i32,
    /// `max-size` in bytes of one log file; `None`: unlimited.
    pub(crate) log_max_size: Option<u64>,
    /// `max-file`; `None`: 1.
    pub(crate) log_max_file: Option<u32>,
}

/// `--restart`: whether a container that ended is started again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// When it fails, and no more than `retries` times in a row; 0: as often as it takes.
    OnFailure {
        retries: u32,
    },
}

/// Whose namespace a container is in.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shared {
    #[default]
    Own,
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Whose shared memory a container has.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ipc {
    #[default]
    Private,
    /// Its own, without `/dev/shm`.
    None,
    /// Its own, which others may join.
    Shareable,
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// A device of the host, as in `--device /dev/fuse:/dev/fuse:rwm`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub(crate) source: String,
    pub(crate) target: String,
    /// Of `r`, `w` and `m`.
    pub(crate) access: String,
}

/// How much a container may take of the host's disks, each by its device node.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct DiskLimits {
    /// Against other containers where a disk is busy, 10 to 1000; 0: the kernel's default.
    pub(crate) weight: u16,
    pub(crate) weights: Vec<(String, u16)>,
    /// Bytes a second.
    pub(crate) read_bps: Vec<(String, u64)>,
    pub(crate) write_bps: Vec<(String, u64)>,
    /// Requests a second.
    pub(crate) read_iops: Vec<(String, u64)>,
    pub(crate) write_iops: Vec<(String, u64)>,
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
    /// `None`: every address of the host, of either family.
    pub(crate) host_address: Option<IpAddr>,
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
    #[serde(default)]
    pub(crate) address_v6: Option<Ipv6Addr>,
    pub(crate) links: Vec<LinkRequest>,
    /// `None`: made of the address.
    #[serde(default)]
    pub(crate) mac: Option<[u8; 6]>,
    /// The network with the highest leads out of the container.
    #[serde(default)]
    pub(crate) gateway_priority: i64,
}
