//! What a container is given at its start: process, limits, namespace, and the files laid into it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use nuncio_runtime::{BindOptions, ContainerSpec, LogOptions, Mount, MountKind, Resources, Ulimit};

use super::config::{HostOptions, NetworkMode};
use super::container::Container;
use super::files::{self, NAME_SERVER, Resolving};
use super::networks::DEFAULT_NETWORK;
use super::record::Record;
use super::refusal::Refusal;
use super::{Daemon, link};

/// Parent of all containers' cgroups, in every hierarchy.
pub(super) const CGROUP_PARENT: &str = "/nuncio";

/// More containers than anybody has led to each other by `--network container:…`; they might do so in a circle.
const LONGEST_CHAIN: usize = 16;

impl Daemon {
    pub(super) fn spec(
        &self,
        container: &Container,
        rootfs: PathBuf,
        mounts: Vec<Mount>,
    ) -> anyhow::Result<ContainerSpec> {
        let record = container.view();
        let (config, host) = (&record.config, &record.config.host);
        let args = config
            .entrypoint
            .iter()
            .chain(&config.cmd)
            .flatten()
            .cloned()
            .collect();
        let mut spec = ContainerSpec::new(&record.id, rootfs, args);
        spec.cgroup_parent = CGROUP_PARENT.into();
        spec.hostname = hostname_of(&record);
        spec.netns = self.namespace_of(container, &host.network)?;
        spec.env = environment(&record);
        spec.cwd.clone_from(&config.working_dir);
        spec.user.clone_from(&config.user);
        (spec.tty, spec.open_stdin, spec.stdin_once) =
            (config.tty, config.open_stdin, config.stdin_once);
        spec.init = host.init.then(|| self.binary.clone());
        spec.resources = resources(host);
        spec.mounts = own_mounts(container, &record, self.namespace_holder(&record).as_ref())?;
        spec.mounts.extend(mounts);
        (spec.cap_add, spec.cap_drop) = (host.cap_add.clone(), host.cap_drop.clone());
        (spec.privileged, spec.readonly_rootfs) = (host.privileged, host.read_only);
        spec.seccomp = !host.seccomp_unconfined;
        spec.oom_score_adj = host.oom_score_adj;
        spec.sysctls = host.sysctls.clone();
        let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX); // -1 is unlimited
        let ulimits = host.ulimits.iter();
        let ulimits = ulimits.map(|of| Ulimit {
            name: of.name.clone(),
            soft: limit(of.soft),
            hard: limit(of.hard),
        });
        spec.ulimits = ulimits.collect();
        spec.log = Some(LogOptions {
            path: container.log_path(),
            max_size: host.log_max_size,
            max_file: host.log_max_file.unwrap_or(1),
        });
        Ok(spec)
    }

    fn namespace_of(
        &self,
        container: &Container,
        mode: &NetworkMode,
    ) -> anyhow::Result<Option<PathBuf>> {
        match mode {
            NetworkMode::Host => Ok(None),
            NetworkMode::Container(other) => {
                let other = self.container(other)?;
                if !other.is_running() {
                    let message = format!(
                        "cannot join network of a non running container: {}",
                        other.id
                    );
                    return Err(Refusal::conflict(message).into());
                }
                self.namespace_of(&other, &other.view().config.host.network)
            }
            NetworkMode::Default | NetworkMode::None | NetworkMode::Named(_) => {
                Ok(Some(container.netns.clone()))
            }
        }
    }

    /// The container whose network namespace this one is in, as `--network container:…` has it; itself, if it has
    /// one of its own, and `None` if what is named is not there any more.
    pub(super) fn namespace_holder(&self, record: &Record) -> Option<Record> {
        let mut holder = record.clone();
        for _ in 0..LONGEST_CHAIN {
            let NetworkMode::Container(other) = &holder.config.host.network else {
                return Some(holder);
            };
            holder = self.container(other).ok()?.view();
        }
        None
    }
}

/// Writes hosts, hostname and resolv.conf, and lists what is mounted into every container. `holder` is that of its
/// network namespace.
fn own_mounts(
    container: &Container,
    record: &Record,
    holder: Option<&Record>,
) -> anyhow::Result<Vec<Mount>> {
    let host = &record.config.host;
    let hostname = hostname_of(record);
    let addresses: Vec<_> = record
        .endpoints
        .values()
        .map(|endpoint| endpoint.address)
        .collect();
    let hosts = files::hosts(
        &hostname,
        &addresses,
        &host.extra_hosts,
        &link::hosts(&record.links),
    );
    let resolving = resolving(holder.unwrap_or(record));
    let contents = [
        ("hosts", hosts),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolving.render()),
    ];
    let mut mounts = Vec::new();
    for (name, text) in contents {
        let source = container.directory.join(name);
        std::fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
        let target = format!("/etc/{name}");
        if record.mounts.iter().any(|point| point.target == target) {
            continue; // the user's own is there
        }
        let options = BindOptions::default();
        mounts.push(Mount {
            kind: MountKind::Bind { source, options },
            target,
            read_only: false,
        });
    }
    for (target, options) in &host.tmpfs {
        let (size, mode) = tmpfs_options(options)?;
        mounts.push(Mount {
            kind: MountKind::Tmpfs { size, mode },
            target: target.clone(),
            read_only: false,
        });
    }
    Ok(mounts)
}

/// Whether a container of that mode has a network namespace of its own.
pub(super) fn owns_namespace(mode: &NetworkMode) -> bool {
    !matches!(mode, NetworkMode::Host | NetworkMode::Container(_))
}

pub(super) fn hostname_of(record: &Record) -> String {
    match (record.config.hostname.as_str(), &record.config.host.network) {
        ("", NetworkMode::Host) => super::node::hostname(),
        ("", _) => record.id.chars().take(12).collect(),
        (hostname, _) => hostname.to_owned(),
    }
}

/// What links give comes first, so that the container's own variables win.
pub(super) fn environment(record: &Record) -> Vec<String> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::new();
    let given = link::environment(&record.name, &record.links).into_iter();
    for variable in given.chain(record.config.env.iter().cloned()) {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        if env.insert(name.clone(), variable).is_none() {
            order.push(name);
        }
    }
    order
        .into_iter()
        .filter_map(|name| env.remove(&name))
        .collect()
}

fn resolving(record: &Record) -> Resolving {
    let host = &record.config.host;
    let mut found = std::fs::read_to_string("/etc/resolv.conf")
        .map(|text| Resolving::parse(&text))
        .unwrap_or_default();
    let own = owns_namespace(&host.network);
    if own {
        found = found.without_loopback();
    }
    if own
        && record
            .endpoints
            .keys()
            .any(|network| network != DEFAULT_NETWORK)
    {
        found.servers = vec![NAME_SERVER.into()];
        found.options = vec!["ndots:0".into()];
    } else if !host.dns.is_empty() {
        found.servers = host
            .dns
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect();
    }
    if !host.dns_search.is_empty() {
        found.search.clone_from(&host.dns_search);
    }
    if !host.dns_options.is_empty() {
        found.options.clone_from(&host.dns_options);
    }
    found
}

fn resources(host: &HostOptions) -> Resources {
    let some = |value: i64| (value != 0).then_some(value);
    Resources {
        memory: some(host.memory),
        memory_swap: some(host.memory_swap),
        nano_cpus: some(host.nano_cpus),
        cpu_shares: u64::try_from(host.cpu_shares)
            .ok()
            .filter(|shares| *shares != 0),
        cpuset_cpus: None,
        pids_limit: some(host.pids_limit).filter(|limit| *limit > 0),
    }
}

fn tmpfs_options(options: &str) -> Result<(Option<u64>, Option<u32>), Refusal> {
    let (mut size, mut mode) = (None, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || {
            Refusal::invalid(format!(
                "invalid tmpfs option {option:?}: size=BYTES and mode=OCTAL are known"
            ))
        };
        match option.split_once('=') {
            Some(("size", value)) => {
                let digits = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
                let shift = match value[digits.len()..].to_ascii_lowercase().as_str() {
                    "" => 0,
                    "k" => 10,
                    "m" => 20,
                    "g" => 30,
                    _ => return Err(wrong()),
                };
                let bytes: u64 = digits.parse().map_err(|_| wrong())?;
                size = Some(bytes.checked_mul(1 << shift).ok_or_else(wrong)?);
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?);
            }
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(wrong()),
        }
    }
    Ok((size, mode))
}
