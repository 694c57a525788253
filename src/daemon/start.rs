//! Starting a container: from its record to a running process, or back to nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use nuncio_overlay::{AttachRequest, MacAddr, NetNs, attach, bridge_name, veth_name};
use nuncio_runtime::{ContainerSpec, LogOptions, Mount, MountKind, Resources, Shim, Ulimit, bundle};

use super::config::{ContainerConfig, EndpointRequest, HostOptions, NetworkMode, Port};
use super::container::{Container, locked};
use super::files::{self, NAME_SERVER, Resolving};
use super::networks::{DEFAULT_NETWORK, Network};
use super::record::{Link, LinkedContainer, Phase, PublishedPort, Record};
use super::refusal::Refusal;
use super::{Daemon, link, ports};

impl Daemon {
    /// Starts a container; `false` if it runs already. A start that fails leaves nothing of it on the host.
    pub(crate) async fn start(self: &Arc<Self>, container: &Arc<Container>) -> anyhow::Result<bool> {
        let _turn = container.turn.lock().await;
        if container.is_running() {
            return Ok(false);
        }
        if container.status().borrow().removed {
            return Err(Refusal::not_found(format!("No such container: {}", container.id)).into());
        }
        container.set_status(|status| status.error.clear());
        match self.bring_up(container).await {
            Ok(shim) => {
                tracing::info!(id = container.id, name = container.name(), "started");
                self.watch_over(Arc::clone(container), shim);
                Ok(true)
            }
            Err(error) => {
                let text = format!("{error:#}");
                container.abandon();
                if let Err(leftover) = self.tear_down(container).await {
                    tracing::error!(id = container.id, error = format!("{leftover:#}"), "undo a failed start");
                }
                container.set_status(|status| status.error = text);
                let auto_remove = container.view().config.host.auto_remove;
                if auto_remove && let Err(error) = self.discard(container).await {
                    tracing::error!(id = container.id, error = format!("{error:#}"), "remove after a failed start");
                }
                Err(error)
            }
        }
    }

    async fn bring_up(&self, container: &Arc<Container>) -> anyhow::Result<Arc<Shim>> {
        let record = container.view();
        let image = self.find_image(&record.image_id).await?;
        let rootfs = self.images.mount(&image, &container.directory).await?;
        let joined = self.join_networks(container).await?;
        if owns_namespace(&record.config.host.network) {
            NetNs::remove(&container.netns)?;
            NetNs::create(&container.netns).await?;
        }
        container.set_active(true);
        self.sync().await?;
        self.plug_in(container, &joined).await?;
        let spec = self.spec(container, rootfs.merged).await?;
        bundle::write(&container.run_directory, &spec)?;
        let shim = Arc::new(Shim::spawn(&self.binary, &container.run_directory).await?);
        container.adopt(Arc::clone(&shim)).await?;
        shim.start().await?;
        let pid = shim.pid();
        container.update(|record| record.phase = Phase::Running { pid, started: jiff::Timestamp::now() })?;
        container.set_status(|status| status.running = true);
        self.publish(&container.view());
        self.await_registration().await;
        Ok(shim)
    }

    /// Gives the container its place in its networks, its links and its host ports, all written down.
    async fn join_networks(&self, container: &Container) -> anyhow::Result<Vec<Network>> {
        let record = container.view();
        let mut joined = Vec::new();
        let mut endpoints = BTreeMap::new();
        for (wanted, request) in wanted_networks(&record.config) {
            let network = match wanted.as_str() {
                DEFAULT_NETWORK => self.default_network().map(Network::Mesh).context("no default network")?,
                _ => self.find_network(&wanted).await?,
            };
            let endpoint = self.make_endpoint(&network, &container.id, &request).await?;
            endpoints.insert(network.name().to_owned(), endpoint);
            joined.push(network);
        }
        let links = if joined.iter().any(Network::is_default) {
            self.resolve_links(&record).await?
        } else {
            self.check_link_targets(&record, &joined).await?;
            Vec::new()
        };
        let host = &record.config.host;
        let all: &[Port] = if host.publish_all { &record.config.exposed } else { &[] };
        let choose = async || -> anyhow::Result<Vec<PublishedPort>> {
            if endpoints.is_empty() {
                return Ok(Vec::new()); // host, none and container:X publish nothing
            }
            let others = self.containers();
            let others = others.iter().filter(|other| other.id != container.id && other.is_active());
            let taken: Vec<PublishedPort> = others.flat_map(|other| other.view().published).collect();
            Ok(ports::choose(&host.publish, all, &taken)?)
        };
        let published = choose().await?;
        container.update(|record| {
            record.endpoints = endpoints.clone();
            record.links = links;
            record.published = published;
        })?;
        Ok(joined)
    }

    async fn check_link_targets(&self, record: &Record, joined: &[Network]) -> anyhow::Result<()> {
        for request in &record.config.host.links {
            let here = self.container(&request.target).is_ok();
            let there = joined.iter().any(|network| {
                let catalog = self.catalog.borrow();
                catalog.endpoints_in(network.id()).any(|endpoint| endpoint.name == request.target)
            });
            if !here && !there {
                return Err(no_link_target(&request.target).into());
            }
        }
        Ok(())
    }

    /// Finds what `--link` names: a container of this host, else one of another host, for which an
    /// address is set aside where this host's ambassador will stand in for it.
    async fn resolve_links(&self, record: &Record) -> anyhow::Result<Vec<Link>> {
        let mut links = Vec::new();
        for request in &record.config.host.links {
            let link = match self.container(&request.target) {
                Ok(target) => local_link(&target.view(), &request.alias)?,
                Err(_) => self.remote_link(&request.target, &request.alias).await?,
            };
            links.push(link);
        }
        Ok(links)
    }

    async fn remote_link(&self, target: &str, alias: &str) -> anyhow::Result<Link> {
        let mut endpoints = self.remote_endpoints(&self.catalog.borrow().clone(), target);
        if endpoints.is_empty() {
            self.catch_up().await; // it may have been started a moment ago
            endpoints = self.remote_endpoints(&self.catalog.borrow().clone(), target);
        }
        if endpoints.is_empty() {
            return Err(no_link_target(target).into());
        }
        let mut ports: Vec<Port> = endpoints.into_iter().flat_map(|(_, ports)| ports).collect();
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() {
            return Err(Refusal::invalid(format!(
                "cannot link to {target} on another host: it exposes no port; start it with --expose PORT"
            ))
            .into());
        }
        let default = self.default_network().map(Network::Mesh).context("no default network")?;
        let (address, _) = self.allocate(&default, &link_owner(target), None).await?;
        let (target, alias) = (target.to_owned(), alias.to_owned());
        Ok(Link { target, alias, address, remote: true, ports, local: None })
    }

    /// Makes the container's links to its networks' bridges.
    async fn plug_in(&self, container: &Container, joined: &[Network]) -> anyhow::Result<()> {
        let record = container.view();
        let mut routed = false;
        for (index, network) in joined.iter().enumerate() {
            let endpoint = record.endpoints.get(network.name()).context("an endpoint that is not written down")?;
            let bridge = if network.is_default() { super::DEFAULT_BRIDGE.into() } else { bridge_name(network.id()) };
            let index = u8::try_from(index).context("more than 255 networks")?;
            attach(&AttachRequest {
                netns: container.netns.clone(),
                container_link: format!("eth{index}"),
                host_link: veth_name(&container.id, index),
                bridge,
                address: ipnetwork::Ipv4Network::new(endpoint.address, endpoint.block.prefix())?,
                gateway: endpoint.gateway.filter(|_| !routed),
                subnet: network.subnet(),
                mac: MacAddr::new(endpoint.mac),
                mtu: self.mtu().await?,
                isolated: network.is_default() && !self.options.icc,
            })
            .await?;
            routed |= endpoint.gateway.is_some();
        }
        Ok(())
    }

    async fn spec(&self, container: &Container, rootfs: PathBuf) -> anyhow::Result<ContainerSpec> {
        let record = container.view();
        let (config, host) = (&record.config, &record.config.host);
        let args = config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect();
        let mut spec = ContainerSpec::new(&record.id, rootfs, args);
        spec.hostname = hostname_of(&record);
        spec.netns = self.namespace_of(container, &host.network)?;
        spec.env = environment(&record);
        spec.cwd.clone_from(&config.working_dir);
        spec.user.clone_from(&config.user);
        (spec.tty, spec.open_stdin, spec.stdin_once) = (config.tty, config.open_stdin, config.stdin_once);
        spec.init = host.init.then(|| self.binary.clone());
        spec.resources = resources(host);
        spec.mounts = self.mounts(container, &record)?;
        (spec.cap_add, spec.cap_drop) = (host.cap_add.clone(), host.cap_drop.clone());
        (spec.privileged, spec.readonly_rootfs) = (host.privileged, host.read_only);
        spec.seccomp = !host.seccomp_unconfined;
        spec.oom_score_adj = host.oom_score_adj;
        spec.sysctls = host.sysctls.clone();
        let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX); // -1 is unlimited
        let ulimits = host.ulimits.iter();
        let ulimits = ulimits.map(|of| Ulimit { name: of.name.clone(), soft: limit(of.soft), hard: limit(of.hard) });
        spec.ulimits = ulimits.collect();
        spec.log = Some(LogOptions {
            path: container.log_path(),
            max_size: host.log_max_size,
            max_file: host.log_max_file.unwrap_or(1),
        });
        Ok(spec)
    }

    fn namespace_of(&self, container: &Container, mode: &NetworkMode) -> anyhow::Result<Option<PathBuf>> {
        match mode {
            NetworkMode::Host => Ok(None),
            NetworkMode::Container(other) => {
                let other = self.container(other)?;
                if !other.is_running() {
                    let message = format!("cannot join network of a non running container: {}", other.id);
                    return Err(Refusal::conflict(message).into());
                }
                self.namespace_of(&other, &other.view().config.host.network)
            }
            NetworkMode::Default | NetworkMode::None | NetworkMode::Named(_) => Ok(Some(container.netns.clone())),
        }
    }

    /// Writes hosts, hostname and resolv.conf, and lists what is mounted into the container.
    fn mounts(&self, container: &Container, record: &Record) -> anyhow::Result<Vec<Mount>> {
        let host = &record.config.host;
        let hostname = hostname_of(record);
        let addresses: Vec<_> = record.endpoints.values().map(|endpoint| endpoint.address).collect();
        let hosts = files::hosts(&hostname, &addresses, &host.extra_hosts, &link::hosts(&record.links));
        let resolving = resolving(record);
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
            mounts.push(Mount { kind: MountKind::Bind { source }, target, read_only: false });
        }
        for bind in &host.binds {
            let source = PathBuf::from(&bind.source);
            if !source.exists() {
                std::fs::create_dir_all(&source).with_context(|| format!("make {} for a mount", source.display()))?;
            }
            let (target, read_only) = (bind.target.clone(), bind.read_only);
            mounts.push(Mount { kind: MountKind::Bind { source }, target, read_only });
        }
        for (target, options) in &host.tmpfs {
            let (size, mode) = tmpfs_options(options)?;
            mounts.push(Mount { kind: MountKind::Tmpfs { size, mode }, target: target.clone(), read_only: false });
        }
        Ok(mounts)
    }
}

/// Who holds the address at which the ambassador stands in for `target`.
pub(super) fn link_owner(target: &str) -> String {
    format!("link:{target}")
}

pub(super) fn owns_namespace(mode: &NetworkMode) -> bool {
    !matches!(mode, NetworkMode::Host | NetworkMode::Container(_))
}

fn no_link_target(target: &str) -> Refusal {
    Refusal::invalid(format!(
        "could not get container for {target}: No such container: {target} on this host, nor one that runs on another"
    ))
}

fn local_link(target: &Record, alias: &str) -> anyhow::Result<Link> {
    let running = matches!(target.phase, Phase::Running { .. });
    if !running {
        let message = format!("Cannot link to a non running container: /{} AS {alias}", target.name);
        return Err(Refusal::conflict(message).into());
    }
    let Some(endpoint) = target.endpoints.get(DEFAULT_NETWORK) else {
        let message = format!("Cannot link to /{}, as it does not belong to the default network", target.name);
        return Err(Refusal::conflict(message).into());
    };
    let mut ports = target.config.exposed.clone();
    ports.extend(target.published.iter().map(|published| published.port));
    Ok(Link {
        target: target.name.clone(),
        alias: alias.to_owned(),
        address: endpoint.address,
        remote: false,
        ports,
        local: Some(LinkedContainer {
            id: target.id.clone(),
            hostname: hostname_of(target),
            env: target.config.env.clone(),
        }),
    })
}

/// The networks a container is to be in, by name.
fn wanted_networks(config: &ContainerConfig) -> BTreeMap<String, EndpointRequest> {
    let mut wanted = config.endpoints.clone();
    let first = match &config.host.network {
        NetworkMode::Default => DEFAULT_NETWORK,
        NetworkMode::Named(name) => name,
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => return BTreeMap::new(),
    };
    let asked = wanted.remove("default").unwrap_or_default();
    wanted.entry(first.to_owned()).or_insert(asked);
    wanted
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
    order.into_iter().filter_map(|name| env.remove(&name)).collect()
}

fn resolving(record: &Record) -> Resolving {
    let host = &record.config.host;
    let mut found = std::fs::read_to_string("/etc/resolv.conf").map(|text| Resolving::parse(&text)).unwrap_or_default();
    let own = owns_namespace(&host.network);
    if own {
        found = found.without_loopback();
    }
    if own && record.endpoints.keys().any(|network| network != DEFAULT_NETWORK) {
        found.servers = vec![NAME_SERVER.into()];
        found.options = vec!["ndots:0".into()];
    } else if !host.dns.is_empty() {
        found.servers = host.dns.iter().filter_map(|server| server.parse().ok()).collect();
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
        cpu_shares: u64::try_from(host.cpu_shares).ok().filter(|shares| *shares != 0),
        cpuset_cpus: None,
        pids_limit: some(host.pids_limit).filter(|limit| *limit > 0),
    }
}

fn tmpfs_options(options: &str) -> Result<(Option<u64>, Option<u32>), Refusal> {
    let (mut size, mut mode) = (None, None);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || Refusal::invalid(format!("invalid tmpfs option {option:?}: size=BYTES and mode=OCTAL are known"));
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
            Some(("mode", value)) => mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong())?),
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            _ => return Err(wrong()),
        }
    }
    Ok((size, mode))
}

impl Daemon {
    /// Frees the stand-in addresses of links that no container has any more.
    pub(super) fn release_unused_links(&self) -> anyhow::Result<()> {
        let mut wanted = std::collections::BTreeSet::new();
        for container in self.containers() {
            wanted.extend(container.view().links.iter().filter(|link| link.remote).map(|link| link_owner(&link.target)));
        }
        let mut addresses = locked(&self.addresses);
        for owner in addresses.owners() {
            if owner.starts_with("link:") && !wanted.contains(&owner) {
                addresses.release(&owner)?;
            }
        }
        Ok(())
    }
}
