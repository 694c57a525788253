//! What a container is given at its start: process, limits, namespace, and the files laid into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ipnetwork::IpNetwork;
use nuncio_runtime::{
    BindOptions, ContainerSpec, DeviceRule, LogOptions, Mount, MountKind, Namespace, Ulimit,
};

use super::config::{Device, Ipc, NetworkMode};
use super::container::Container;
use super::files::{self, NAME_SERVER, Resolving};
use super::limits::resources;
use super::networks::{DEFAULT_NETWORK, Network};
use super::record::{Endpoint, Record};
use super::refusal::Refusal;
use super::{Daemon, link};

/// Parent of all containers' cgroups, in every hierarchy.
pub(super) const CGROUP_PARENT: &str = "/nuncio";

/// What an entry of `--add-host` ends in whose name is to be this host's.
const HOST_GATEWAY: &str = ":host-gateway";

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
        spec.cgroup_parent = match host.cgroup_parent.as_str() {
            "" => CGROUP_PARENT.to_owned(),
            own => own.to_owned(),
        };
        spec.hostname = match host.host_uts {
            true => hostname_of(&record),
            false => self
                .namespace_holder(&record)
                .map_or_else(|| hostname_of(&record), |holder| hostname_of(&holder)),
        };
        spec.domainname.clone_from(&config.domainname);
        spec.annotations.clone_from(&host.annotations);
        spec.netns = self.namespace_of(container, &host.network)?;
        spec.env = environment(&record);
        spec.cwd.clone_from(&config.working_dir);
        spec.user.clone_from(&config.user);
        (spec.tty, spec.open_stdin, spec.stdin_once) =
            (config.tty, config.open_stdin, config.stdin_once);
        spec.init = host.init.then(|| self.binary.clone());
        spec.resources = resources(host);
        self.write_files(container, &record)?;
        spec.mounts = own_mounts(&self.files_of(container), &record)?;
        spec.mounts.extend(mounts);
        spec.pidns = self.pidns(&host.pid)?;
        let (ipcns, shm) = self.ipcns(container, host)?;
        spec.ipcns = ipcns;
        spec.mounts.extend(shm);
        spec.shm_size = match (&host.ipc, host.shm_size) {
            (Ipc::None, _) => Some(0),
            (_, 0) => None,
            (_, bytes) => Some(bytes),
        };
        if host.host_uts {
            spec.utsns = Namespace::Host;
        }
        spec.host_cgroups = host.host_cgroups;
        spec.groups.clone_from(&host.group_add);
        spec.devices = host.devices.iter().map(device).collect();
        spec.device_rules = host
            .device_rules
            .iter()
            .filter_map(|rule| device_rule(rule))
            .collect();
        spec.no_new_privileges = host.no_new_privileges;
        spec.masked_paths.clone_from(&host.masked_paths);
        spec.readonly_paths.clone_from(&host.readonly_paths);
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
        spec.log = (!host.no_log).then(|| LogOptions {
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

    /// Where a container's hosts, hostname and resolv.conf lie. Who is in another one's network namespace sees the same
    /// files as that one.
    pub(crate) fn files_of(&self, container: &Container) -> PathBuf {
        let holder = self.namespace_holder(&container.view());
        let holder = holder.and_then(|holder| self.container(&holder.id).ok());
        holder.map_or_else(
            || container.directory.clone(),
            |holder| holder.directory.clone(),
        )
    }

    /// Writes hosts, hostname and resolv.conf, in place: a container that runs has them mounted.
    pub(super) fn write_files(&self, container: &Container, record: &Record) -> anyhow::Result<()> {
        let host = &record.config.host;
        if matches!(host.network, NetworkMode::Container(_)) {
            return Ok(());
        }
        let hostname = hostname_of(record);
        let endpoints = record.endpoints.values();
        let addresses: Vec<_> = endpoints.flat_map(Endpoint::addresses).collect();
        let extra: Vec<String> = host
            .extra_hosts
            .iter()
            .map(|entry| self.with_gateway(entry))
            .collect();
        let mut names = hostname.clone();
        if let Some((short, _)) = hostname.split_once('.') {
            names = format!("{hostname} {short}");
        }
        let hosts = files::hosts(&names, &addresses, &extra, &link::hosts(&record.links));
        let resolving = resolving(record);
        let contents = [
            ("hosts", hosts),
            ("hostname", format!("{hostname}\n")),
            ("resolv.conf", resolving.render()),
        ];
        for (name, text) in contents {
            let source = container.directory.join(name);
            std::fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
        }
        Ok(())
    }
}

/// Lists what is mounted into every container.
fn own_mounts(files: &Path, record: &Record) -> anyhow::Result<Vec<Mount>> {
    let host = &record.config.host;
    let mut mounts = Vec::new();
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if record.mounts.iter().any(|point| point.target == target) {
            continue; // the user's own is there
        }
        let source = files.join(name);
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

impl Daemon {
    /// An entry of `--add-host`, its `host-gateway` replaced by where the default network reaches this host.
    fn with_gateway(&self, entry: &str) -> String {
        let gateway = self.default_network().and_then(|network| match &network {
            Network::Local(local) => Some(network.gateway(local.subnet)),
            Network::Mesh(record) => {
                let mut blocks = self.own_blocks(&record.id).into_iter();
                blocks.find_map(|block| match block {
                    IpNetwork::V4(block) => Some(network.gateway(block)),
                    IpNetwork::V6(_) => None,
                })
            }
        });
        match (entry.strip_suffix(HOST_GATEWAY), gateway) {
            (Some(name), Some(gateway)) => format!("{name}:{gateway}"),
            _ => entry.to_owned(),
        }
    }
}

/// Whether a container is told where it reaches this host.
pub(super) fn names_host(record: &Record) -> bool {
    let mut entries = record.config.host.extra_hosts.iter();
    entries.any(|entry| entry.ends_with(HOST_GATEWAY))
}

/// Whether a container of that mode has a network namespace of its own.
pub(super) fn owns_namespace(mode: &NetworkMode) -> bool {
    !matches!(mode, NetworkMode::Host | NetworkMode::Container(_))
}

/// A container's name in its UTS namespace, its domain behind it if it has one.
pub(super) fn hostname_of(record: &Record) -> String {
    let config = &record.config;
    let name = match (config.hostname.as_str(), &config.host.network) {
        (_, _) if config.host.host_uts => return super::node::hostname(),
        ("", NetworkMode::Host) => return super::node::hostname(),
        ("", _) => record.id.chars().take(12).collect(),
        (hostname, _) => hostname.to_owned(),
    };
    match config.domainname.as_str() {
        "" => name,
        domain => format!("{name}.{domain}"),
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

/// What stands in a container's resolv.conf. Behind the name server of user-defined networks the servers of `--dns` and of
/// the host are asked by that (`zones.rs`).
fn resolving(record: &Record) -> Resolving {
    let host = &record.config.host;
    let mut found = std::fs::read_to_string("/etc/resolv.conf")
        .map(|text| Resolving::parse(&text))
        .unwrap_or_default();
    let own = owns_namespace(&host.network);
    if own {
        found = found.without_loopback();
    }
    if !host.dns.is_empty() {
        found.servers = host
            .dns
            .iter()
            .filter_map(|server| server.parse().ok())
            .collect();
    }
    match host.dns_search.as_slice() {
        [] => {}
        [none] if none == "." => found.search.clear(),
        search => found.search = search.to_vec(),
    }
    if !host.dns_options.is_empty() {
        found.options.clone_from(&host.dns_options);
    }
    let mut networks = record.endpoints.keys();
    if own && networks.any(|network| network != DEFAULT_NETWORK) {
        found = found.behind(NAME_SERVER.into());
    }
    found
}

fn device(device: &Device) -> nuncio_runtime::Device {
    nuncio_runtime::Device {
        source: device.source.clone().into(),
        target: device.target.clone(),
        access: device.access.clone(),
    }
}

/// `c 10:200 rwm`, with `*` for any number; `None` if it is not that.
pub(crate) fn device_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        text => text.parse().ok().filter(|number| *number >= 0).map(Some),
    };
    let (major, minor) = (number(major)?, number(minor)?);
    let known = ["a", "b", "c"].contains(&kind) && is_device_access(access);
    (known && words.next().is_none()).then(|| DeviceRule {
        kind: kind.chars().next().unwrap_or('a'),
        major,
        minor,
        access: access.to_owned(),
    })
}

/// Of `r`, `w` and `m`, each once at most.
pub(crate) fn is_device_access(text: &str) -> bool {
    let once = |letter| text.matches(letter).count() <= 1;
    !text.is_empty()
        && text.chars().all(|c| "rwm".contains(c))
        && ["r", "w", "m"].into_iter().all(once)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn device_rules_have_a_kind_numbers_and_an_access() {
        let rule = device_rule("c 10:* rw").expect("a rule");
        assert_eq!((rule.kind, rule.major, rule.minor), ('c', Some(10), None));
        for wrong in [
            "",
            "c",
            "c 10 rw",
            "d 1:2 r",
            "c 1:2 rx",
            "c 1:2 rr",
            "c -1:2 r",
            "c 1:2 r more",
        ] {
            assert_eq!(device_rule(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_rule_is_parsed_or_not(text in "[abc0-9:*rwm ]{0,16}") {
            let _ = device_rule(&text);
        }
    }
}
