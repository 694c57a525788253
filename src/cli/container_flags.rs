//! The flags that `run` and `create` share.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

use super::parse::{
    Cpus, EnvVar, Expose, HostEntry, KeyValue, Link, MountSpec, NetworkFlag, Publish, Reference,
    Restart, Size, Tmpfs, Ulimit, VolumeSpec,
};

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
    pub(super) rights: RightFlags,

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

fn swap(text: &str) -> Result<i64, <Size as std::str::FromStr>::Err> {
    if text == "-1" {
        Ok(-1)
    } else {
        text.parse().map(Size::bytes)
    }
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

    /// As seccomp=unconfined or no-new-privileges
    #[arg(long, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,

    /// A kernel parameter, as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) sysctl: Vec<KeyValue>,
}
