//! What a container shall be, as the caller says it.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A container to be made. Everything a run needs that the image does not decide by itself.
///
/// Start from [`ContainerSpec::new`], which gives Docker's defaults, and set what differs.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Names the cgroup and the runtime's state: letters, digits, `_`, `-`, `.`.
    pub id: String,
    /// The root file system, mounted already.
    pub rootfs: PathBuf,
    /// Network namespace to join, for example `/run/netns/web`; `None` shares the caller's.
    pub netns: Option<PathBuf>,
    /// The namespace of process numbers.
    pub pidns: Namespace,
    /// The namespace of shared memory and message queues. Sharing one does not share `/dev/shm`: mount it.
    pub ipcns: Namespace,
    /// The namespace of host and domain name. The container's `hostname` is set in one of its own only.
    pub utsns: Namespace,
    /// See the whole machine's cgroups instead of those below the container's own.
    pub host_cgroups: bool,
    /// Name in the UTS namespace, and `HOSTNAME` unless `env` has one.
    pub hostname: String,
    /// NIS domain name in the UTS namespace; empty leaves it.
    pub domainname: String,
    /// Put into `config.json`, where other tools read them.
    pub annotations: BTreeMap<String, String>,
    /// The process and its arguments; the first is looked up in `PATH` unless it has a slash.
    pub args: Vec<String>,
    /// `KEY=value`, in order. `PATH`, `HOME`, `HOSTNAME` and, with a terminal, `TERM` are added when absent.
    pub env: Vec<String>,
    /// Further groups of the process, by name or number.
    pub groups: Vec<String>,
    /// Working directory, made when absent. Empty is `/`.
    pub cwd: String,
    /// `""`, `user`, `uid`, `user:group` or `uid:gid`, looked up in the root file system's `/etc/passwd` and `/etc/group`.
    pub user: String,
    /// Give the process a terminal instead of pipes.
    pub tty: bool,
    /// Keep standard input open; otherwise it reads as empty.
    pub open_stdin: bool,
    /// Close standard input when the first client that attached to it leaves or half-closes.
    pub stdin_once: bool,
    /// A nuncio binary to put in as pid 1, which reaps orphans and forwards signals (`docker run --init`).
    pub init: Option<PathBuf>,
    /// Limits.
    pub resources: Resources,
    /// Mounts besides the default ones.
    pub mounts: Vec<Mount>,
    /// Capabilities to add to Docker's default set, `CAP_` or not, `ALL` for every one.
    pub cap_add: Vec<String>,
    /// Capabilities to take away, `ALL` for every one.
    pub cap_drop: Vec<String>,
    /// Every capability and device, no seccomp, nothing masked.
    pub privileged: bool,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Devices that may be used if there are nodes for them.
    pub device_rules: Vec<DeviceRule>,
    /// Bytes of `/dev/shm`; `None` is Docker's 64 MiB, and with 0 there is none.
    pub shm_size: Option<u64>,
    /// Paths that read as empty; `None` is Docker's list, or none if privileged.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that cannot be written; `None` is Docker's list, or none if privileged.
    pub readonly_paths: Option<Vec<String>>,
    /// Mount the root file system read-only.
    pub readonly_rootfs: bool,
    /// Install the default seccomp filter.
    pub seccomp: bool,
    /// Forbid gaining privileges by set-uid programs.
    pub no_new_privileges: bool,
    /// The cgroup is `<cgroup_parent>/<id>` in every hierarchy.
    pub cgroup_parent: String,
    /// Where output is written; `None` keeps none.
    pub log: Option<LogOptions>,
    /// The kernel's out-of-memory preference, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Kernel parameters of the container's namespaces, `net.core.somaxconn` for example.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
}

impl ContainerSpec {
    /// A container `id` that runs `args` in `rootfs`, with Docker's defaults for the rest.
    #[must_use]
    pub fn new(id: impl Into<String>, rootfs: impl Into<PathBuf>, args: Vec<String>) -> Self {
        let id = id.into();
        Self {
            hostname: id.chars().take(12).collect(),
            domainname: String::new(),
            annotations: BTreeMap::new(),
            id,
            rootfs: rootfs.into(),
            netns: None,
            pidns: Namespace::Own,
            ipcns: Namespace::Own,
            utsns: Namespace::Own,
            host_cgroups: false,
            args,
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            tty: false,
            open_stdin: false,
            stdin_once: false,
            init: None,
            resources: Resources::default(),
            mounts: Vec::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            devices: Vec::new(),
            device_rules: Vec::new(),
            shm_size: None,
            masked_paths: None,
            readonly_paths: None,
            readonly_rootfs: false,
            seccomp: true,
            no_new_privileges: false,
            cgroup_parent: "/nuncio".into(),
            log: None,
            oom_score_adj: 0,
            sysctls: BTreeMap::new(),
            ulimits: Vec::new(),
        }
    }
}

/// Limits of a container; `None` is no limit.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, -1 for no limit. Twice `memory` when not given, as Docker does.
    pub memory_swap: Option<i64>,
    /// Billionths of a processor.
    pub nano_cpus: Option<i64>,
    /// Weight against other containers, 1024 being usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds in which `cpu_quota` is counted; not beside `nano_cpus`.
    pub cpu_period: Option<i64>,
    /// Microseconds of processor time in each period; not beside `nano_cpus`.
    pub cpu_quota: Option<i64>,
    /// Processors the container may use, `0-2,5` for example.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes the container may use.
    pub cpuset_mems: Option<String>,
    /// Bytes of memory that it is to keep when memory is scarce.
    pub memory_reservation: Option<i64>,
    /// How readily its memory is swapped, 0 to 100; cgroup v1 only.
    pub memory_swappiness: Option<u64>,
    /// Let it wait instead of killing it when there is no memory left; cgroup v1 only.
    pub oom_kill_disable: bool,
    /// Number of processes and threads.
    pub pids_limit: Option<i64>,
    /// Weight against other containers where a disk is busy, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// The same for single disks.
    pub blkio_weight_devices: Vec<(PathBuf, u16)>,
    /// How fast disks may be read and written.
    pub throttles: Vec<Throttle>,
    /// Microseconds in which `cpu_rt_runtime` is counted; cgroup v1 only.
    pub cpu_rt_period: Option<i64>,
    /// Microseconds of real time in each period; cgroup v1 only.
    pub cpu_rt_runtime: Option<i64>,
}

/// A bound on what is done with a disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Throttle {
    /// Its device node on the host; a whole disk, not a partition.
    pub disk: PathBuf,
    /// What is bounded.
    pub what: Throttled,
    /// How much of it a second.
    pub rate: u64,
}

/// What a [`Throttle`] bounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Throttled {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Requests that read.
    Reads,
    /// Requests that write.
    Writes,
}

/// Where a container stands for its processes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Namespace {
    /// In a namespace of its own.
    #[default]
    Own,
    /// In the caller's.
    Host,
    /// In the one at this path, `/proc/<pid>/ns/<kind>` for example.
    Of(PathBuf),
}

/// A device of the host, or a directory of devices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// What may be done: of `r`, `w` and `m`.
    pub access: String,
}

/// Devices that may be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None` is any.
    pub major: Option<i64>,
    /// `None` is any.
    pub minor: Option<i64>,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// A mount to make in the container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path in the container; made when absent.
    pub target: String,
    /// Refuse writes.
    pub read_only: bool,
}

/// What a [`Mount`] mounts.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// With all that is mounted below it and out of touch with the host's later mounts, unless this says other.
        options: BindOptions,
    },
    /// Memory.
    Tmpfs {
        /// Upper bound in bytes; half of the machine's memory if not given.
        size: Option<u64>,
        /// Mode of its root, 0o1777 if not given.
        mode: Option<u32>,
    },
}

/// How a [`MountKind::Bind`] is made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BindOptions {
    /// Leave out what is mounted below the source.
    pub non_recursive: bool,
    /// Where the mount is read-only, what is mounted below it is not.
    pub writable_below: bool,
    /// What the host mounts below the source later appears in the container too.
    pub slave: bool,
}

/// Where a container's output goes, and how much of it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogOptions {
    /// The newest file; older ones are `<path>.1`, `<path>.2` and so on.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; `None` never begins one.
    pub max_size: Option<u64>,
    /// Number of files kept, at least 1.
    pub max_file: u32,
}

/// One resource limit of a process (setrlimit(2)).
#[derive(Clone, Debug)]
pub struct Ulimit {
    /// `nofile`, `nproc`, `core` and so on.
    pub name: String,
    /// The limit in force.
    pub soft: u64,
    /// The highest the process may raise it to.
    pub hard: u64,
}

/// A further process to run in a container that runs.
#[derive(Clone, Debug, Default)]
pub struct ExecSpec {
    /// The process and its arguments.
    pub args: Vec<String>,
    /// The whole environment: what the container has is not added.
    pub env: Vec<String>,
    /// Working directory; empty is the container's.
    pub cwd: String,
    /// As in [`ContainerSpec::user`]; empty is the container's.
    pub user: String,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep standard input open until the attached client half-closes.
    pub open_stdin: bool,
    /// Every capability.
    pub privileged: bool,
}
