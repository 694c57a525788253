//! The flags that `run` and `create` share.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use super::parse::{
    Cpus, DeviceSpec, EnvVar, Expose, HostEntry, KeyValue, Link, MountSpec, NetworkFlag, Publish,
    Reference, Restart, Size, Span, Tmpfs, Ulimit, VolumeSpec,
};
use super::rare_flags::{DiskFlags, RareFlags};

/// What a container is to be.
#[derive(Args, Debug)]
pub(super) struct ContainerFlags {
    /// Name of the container
    #[arg(long)]
    pub(super) name: Option<String>,

    /// Keep standard input open
    #[arg(short, long)]
    pub(super) interactive: bool,

    /// Give the container a terminal
    #[arg(short, long)]
    pub(super) tty: bool,

    /// Attach to STDIN, STDOUT or STDERR (may be repeated)
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"], ignore_case = true)]
    pub(super) attach: Vec<String>,

    /// Remove the container when it exits
    #[arg(long)]
    pub(super) rm: bool,

    /// Set a variable, or pass one on by its name
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<EnvVar>,

    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,

    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<String>,

    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,

    /// Supplementary groups
    #[arg(long, value_name = "GROUP")]
    pub(super) group_add: Vec<String>,

    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub(super) entrypoint: Option<String>,

    /// Run an init as process 1, which passes signals on and reaps
    #[arg(long)]
    pub(super) init: bool,

    /// Host name inside the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(super) hostname: Option<String>,

    /// Domain behind the host name
    #[arg(long, value_name = "NAME")]
    pub(super) domainname: Option<String>,

    /// Reach another container by a name, on this host or on another
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub(super) link: Vec<Link>,

    /// Ports that links may use
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    pub(super) expose: Vec<Expose>,

    /// Publish a port of the container on the host
    #[arg(short, long, value_name = "[[IP:]HOST_PORT:]PORT[/PROTOCOL]")]
    pub(super) publish: Vec<Publish>,

    /// Publish every exposed port on a free one of the host
    #[arg(short = 'P', long)]
    pub(super) publish_all: bool,

    /// Join a network
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub(super) network: Vec<NetworkFlag>,

    /// Another name for the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub(super) network_alias: Vec<String>,

    /// IPv4 address in its network
    #[arg(long, value_name = "IP")]
    pub(super) ip: Option<Ipv4Addr>,

    /// Name servers
    #[arg(long, value_name = "IP")]
    pub(super) dns: Vec<IpAddr>,

    /// Domains to complete names with
    #[arg(long, value_name = "DOMAIN")]
    pub(super) dns_search: Vec<String>,

    /// Options for /etc/resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(super) dns_option: Vec<String>,

    /// A line for /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    pub(super) add_host: Vec<HostEntry>,

    /// Mount a path of the host, or a volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub(super) volume: Vec<VolumeSpec>,

    /// Driver of the volumes; local is the one there is
    #[arg(long, value_name = "DRIVER")]
    pub(super) volume_driver: Option<String>,

    /// Mount, in words: type=bind,source=/a,target=/b
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub(super) mount: Vec<MountSpec>,

    /// Mount a tmpfs
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(super) tmpfs: Vec<Tmpfs>,

    /// Mount the volumes of another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub(super) volumes_from: Vec<String>,

    /// Mount the container's root read-only
    #[arg(long)]
    pub(super) read_only: bool,

    #[command(flatten)]
    pub(super) limits: LimitFlags,

    #[command(flatten)]
    pub(super) disks: DiskFlags,

    #[command(flatten)]
    pub(super) rare: RareFlags,

    #[command(flatten)]
    pub(super) rights: RightFlags,

    #[command(flatten)]
    pub(super) health: HealthFlags,

    /// Metadata
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(super) label: Vec<KeyValue>,

    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub(super) label_file: Vec<PathBuf>,

    /// What to do when the container exits: no, on-failure or on-failure:N, always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub(super) restart: Restart,

    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    pub(super) stop_signal: Option<String>,

    /// Seconds between that signal and SIGKILL
    #[arg(long, value_name = "SECONDS")]
    pub(super) stop_timeout: Option<i64>,

    /// Where the container's output is kept
    #[arg(long, value_name = "DRIVER")]
    pub(super) log_driver: Option<String>,

    /// Options of the log, as max-size=10m
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) log_opt: Vec<KeyValue>,

    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    pub(super) cidfile: Option<PathBuf>,

    /// When to pull the image
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(super) pull: String,

    /// Do not show how a pull goes
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// OS and architecture, as linux/amd64, if the image has several
    #[arg(long, value_name = "PLATFORM")]
    pub(super) platform: Option<String>,

    /// The image
    #[arg(value_name = "IMAGE", required = true)]
    pub(super) image: Reference,

    /// The command, instead of the image's own
    #[arg(value_name = "COMMAND")]
    pub(super) command: Vec<String>,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// How much a container may take.
#[derive(Args, Debug)]
pub(super) struct LimitFlags {
    /// Most memory, as 512m
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<Size>,

    /// Most memory and swap together; -1 is without limit
    #[arg(long, value_name = "BYTES", value_parser = swap)]
    pub(super) memory_swap: Option<i64>,

    /// Most processors, as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub(super) cpus: Option<Cpus>,

    /// Weight against other containers (1024 is ordinary)
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    pub(super) cpu_shares: Option<i64>,

    /// The processors to run on, as 0-3 or 0,1
    #[arg(long, value_name = "CPUS")]
    pub(super) cpuset_cpus: Option<String>,

    /// The memory nodes to use, as 0-1
    #[arg(long, value_name = "NODES")]
    pub(super) cpuset_mems: Option<String>,

    /// Microseconds in which --cpu-quota is counted
    #[arg(long, value_name = "MICROSECONDS")]
    pub(super) cpu_period: Option<i64>,

    /// Microseconds of processor time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    pub(super) cpu_quota: Option<i64>,

    /// Memory to keep when it is scarce
    #[arg(long, value_name = "BYTES")]
    pub(super) memory_reservation: Option<Size>,

    /// How readily memory is swapped, 0 to 100
    #[arg(long, value_name = "NUMBER")]
    pub(super) memory_swappiness: Option<i64>,

    /// Wait instead of being killed when there is no memory left
    #[arg(long)]
    pub(super) oom_kill_disable: bool,

    /// Whom the kernel kills first for want of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(super) oom_score_adj: Option<i64>,

    /// Most processes; -1 is without limit
    #[arg(long, value_name = "NUMBER")]
    pub(super) pids_limit: Option<i64>,

    /// A limit of each process, as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) ulimit: Vec<Ulimit>,

    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<Size>,
}

pub(super) fn swap(text: &str) -> Result<i64, <Size as std::str::FromStr>::Err> {
    if text == "-1" {
        Ok(-1)
    } else {
        text.parse().map(Size::bytes)
    }
}

/// How a container's health is checked.
#[derive(Args, Debug)]
pub(super) struct HealthFlags {
    /// Command that tells whether the container is well, run by its shell
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    pub(super) health_cmd: Option<String>,

    /// Time between two checks (30s)
    #[arg(long, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub(super) health_interval: Option<Span>,

    /// Time after which a check has failed (30s)
    #[arg(long, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub(super) health_timeout: Option<Span>,

    /// Failures in a row that make it unhealthy (3)
    #[arg(long, value_name = "NUMBER", conflicts_with = "no_healthcheck")]
    pub(super) health_retries: Option<u32>,

    /// Time to start in, during which failures do not count
    #[arg(long, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub(super) health_start_period: Option<Span>,

    /// Time between two checks during that (5s)
    #[arg(long, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub(super) health_start_interval: Option<Span>,

    /// Do not check, even if the image says how
    #[arg(long)]
    pub(super) no_healthcheck: bool,
}

/// What a container may do.
#[derive(Args, Debug)]
pub(super) struct RightFlags {
    /// Give a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_add: Vec<String>,

    /// Take a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_drop: Vec<String>,

    /// Give the container all of the host's rights
    #[arg(long)]
    pub(super) privileged: bool,

    /// A device of the host
    #[arg(long, value_name = "PATH[:TARGET][:rwm]")]
    pub(super) device: Vec<DeviceSpec>,

    /// Devices that may be used, as 'c 10:229 rwm'
    #[arg(long, value_name = "RULE")]
    pub(super) device_cgroup_rule: Vec<String>,

    /// Whose processes to see: host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(super) pid: Option<String>,

    /// Whose shared memory to use: none, private, shareable, host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub(super) ipc: Option<String>,

    /// Whose host name to have: host
    #[arg(long, value_name = "MODE")]
    pub(super) uts: Option<String>,

    /// Whose user numbers to have: host
    #[arg(long, value_name = "MODE")]
    pub(super) userns: Option<String>,

    /// Whose cgroups to see: private or host
    #[arg(long, value_name = "MODE", value_parser = ["private", "host"])]
    pub(super) cgroupns: Option<String>,

    /// As seccomp=unconfined, systempaths=unconfined or no-new-privileges
    #[arg(long, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,

    /// A kernel parameter, as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) sysctl: Vec<KeyValue>,
}
