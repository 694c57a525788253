//! From flags to the body of a create request.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::path::Path;

use anyhow::{Context as _, bail};
use bollard_stubs::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, NetworkingConfig, PortBinding,
    ResourcesUlimits,
};

use super::container_flags::{ContainerFlags, HealthFlags};
use super::parse::{
    Cpus, DeviceSpec, Expose, KeyValue, MountSpec, NetworkFlag, Publish, Size, Span, Ulimit,
    VolumeSpec, read_env_file, read_label_file,
};
use super::terminal;

/// The streams of a container that its client wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Streams {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Streams {
    /// Those of `-a`, else the outputs, and the input with `-i`.
    pub(super) fn of(flags: &ContainerFlags) -> Self {
        let wants = |stream| {
            flags
                .attach
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(stream))
        };
        if flags.attach.is_empty() {
            Self {
                stdin: flags.interactive,
                stdout: true,
                stderr: true,
            }
        } else {
            Self {
                stdin: wants("stdin"),
                stdout: wants("stdout"),
                stderr: wants("stderr"),
            }
        }
    }

    pub(super) fn any(self) -> bool {
        self.stdin || self.stdout || self.stderr
    }
}

/// What the API is to create.
///
/// # Errors
///
/// Files that cannot be read, and flags that contradict each other.
pub(super) fn create_body(
    flags: &ContainerFlags,
    streams: Streams,
) -> anyhow::Result<ContainerCreateBody> {
    if flags.rm && !flags.restart.is_no() {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    let entrypoint = flags.entrypoint.clone().map(|entrypoint| vec![entrypoint]);
    let exposed = flags.expose.iter().flat_map(Expose::ports);
    let published = flags
        .publish
        .iter()
        .flat_map(Publish::bindings)
        .map(|binding| binding.port);
    let anonymous = flags.volume.iter().filter_map(VolumeSpec::anonymous);
    Ok(ContainerCreateBody {
        hostname: flags.hostname.clone(),
        domainname: flags.domainname.clone(),
        user: flags.user.clone(),
        attach_stdin: Some(streams.stdin),
        attach_stdout: Some(streams.stdout),
        attach_stderr: Some(streams.stderr),
        tty: Some(flags.tty),
        open_stdin: Some(flags.interactive),
        stdin_once: Some(flags.interactive && streams.stdin),
        exposed_ports: some_map(exposed.chain(published).map(|port| (port, HashMap::new()))),
        env: some_list(environment(flags)?),
        cmd: some_list(flags.command.clone()),
        image: Some(flags.image.given()),
        volumes: some_map(anonymous.map(|path| (path.to_owned(), HashMap::new()))),
        working_dir: flags.workdir.clone(),
        entrypoint,
        labels: some_map(labels(flags)?),
        stop_signal: flags.stop_signal.clone(),
        stop_timeout: flags.stop_timeout,
        healthcheck: healthcheck(&flags.health),
        host_config: Some(host_config(flags)?),
        networking_config: networking(flags)?,
        ..ContainerCreateBody::default()
    })
}

/// `None` leaves it to the image.
fn healthcheck(flags: &HealthFlags) -> Option<HealthConfig> {
    let nanos = |span: Option<Span>| span.map(Span::nanoseconds);
    let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
    let command = flags.health_cmd.as_deref();
    let config = HealthConfig {
        test: match command {
            _ if flags.no_healthcheck => Some(vec!["NONE".to_owned()]),
            command => command.map(|command| words(["CMD-SHELL", command])),
        },
        interval: nanos(flags.health_interval),
        timeout: nanos(flags.health_timeout),
        retries: flags.health_retries.map(i64::from),
        start_period: nanos(flags.health_start_period),
        start_interval: nanos(flags.health_start_interval),
    };
    (config != HealthConfig::default()).then_some(config)
}

fn host_config(flags: &ContainerFlags) -> anyhow::Result<HostConfig> {
    let here = std::env::current_dir().context("find the working directory")?;
    let strings = |values: &[String]| some_list(values.to_vec());
    let (limits, rights) = (&flags.limits, &flags.rights);
    let ulimit = |limit: &Ulimit| ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    let size = flags.tty.then(terminal::size).flatten();
    // an option that is the client's: to the daemon it is a list of no paths
    let is_unmasked = |option: &&String| option.as_str() == "systempaths=unconfined";
    let options = rights
        .security_opt
        .iter()
        .filter(|option| !is_unmasked(option));
    let unmasked = rights
        .security_opt
        .iter()
        .any(|option| is_unmasked(&option));
    let unmasked = unmasked.then(Vec::new);
    let mut host = HostConfig {
        console_size: size.map(|(rows, columns)| vec![rows.into(), columns.into()]),
        cpu_shares: limits.cpu_shares,
        memory: limits.memory.map(Size::bytes),
        memory_swap: limits.memory_swap,
        nano_cpus: limits.cpus.map(Cpus::nano),
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        memory_reservation: limits.memory_reservation.map(Size::bytes),
        memory_swappiness: limits.memory_swappiness,
        oom_kill_disable: limits.oom_kill_disable.then_some(true),
        oom_score_adj: limits.oom_score_adj,
        devices: some_list(rights.device.iter().map(DeviceSpec::mapping).collect()),
        device_cgroup_rules: strings(&rights.device_cgroup_rule),
        pid_mode: rights.pid.clone(),
        ipc_mode: rights.ipc.clone(),
        uts_mode: rights.uts.clone(),
        userns_mode: rights.userns.clone(),
        cgroupns_mode: rights.cgroupns.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        masked_paths: unmasked.clone(),
        readonly_paths: unmasked,
        init: flags.init.then_some(true),
        pids_limit: limits.pids_limit,
        ulimits: some_list(limits.ulimit.iter().map(ulimit).collect()),
        shm_size: limits.shm_size.map(Size::bytes),
        binds: some_list(
            flags
                .volume
                .iter()
                .filter_map(|volume| volume.bind(&here))
                .collect(),
        ),
        mounts: some_list(mounts(&flags.mount, &here)),
        tmpfs: some_map(
            flags
                .tmpfs
                .iter()
                .map(|tmpfs| (tmpfs.target.clone(), tmpfs.options.clone())),
        ),
        volumes_from: strings(&flags.volumes_from),
        volume_driver: flags.volume_driver.clone(),
        container_id_file: flags
            .cidfile
            .as_ref()
            .map(|path| path.display().to_string()),
        log_config: log_config(flags),
        network_mode: Some(
            flags
                .network
                .first()
                .map_or("default", |network| &network.name)
                .to_owned(),
        ),
        port_bindings: some_map(port_bindings(flags)),
        publish_all_ports: Some(flags.publish_all),
        restart_policy: Some(flags.restart.policy()),
        auto_remove: Some(flags.rm),
        cap_add: strings(&rights.cap_add),
        cap_drop: strings(&rights.cap_drop),
        privileged: Some(rights.privileged),
        security_opt: some_list(options.cloned().collect()),
        sysctls: some_map(pairs(&rights.sysctl)),
        dns: some_list(flags.dns.iter().map(ToString::to_string).collect()),
        dns_search: strings(&flags.dns_search),
        dns_options: strings(&flags.dns_option),
        extra_hosts: some_list(flags.add_host.iter().map(ToString::to_string).collect()),
        group_add: strings(&flags.group_add),
        links: some_list(flags.link.iter().map(ToString::to_string).collect()),
        readonly_rootfs: Some(flags.read_only),
        ..HostConfig::default()
    };
    flags.disks.ask(&mut host);
    flags.rare.ask(&mut host)?;
    Ok(host)
}

fn mounts(specs: &[MountSpec], here: &Path) -> Vec<Mount> {
    specs
        .iter()
        .map(|spec| spec.clone().into_mount(here))
        .collect()
}

fn log_config(flags: &ContainerFlags) -> Option<HostConfigLogConfig> {
    if flags.log_driver.is_none() && flags.log_opt.is_empty() {
        return None;
    }
    // without a type it is the daemon's own
    let typ = Some(flags.log_driver.clone().unwrap_or_default());
    Some(HostConfigLogConfig {
        typ,
        config: some_map(pairs(&flags.log_opt)),
    })
}

/// Bindings by port, in the order of the flags.
fn port_bindings(flags: &ContainerFlags) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut bindings = BTreeMap::<_, Option<Vec<_>>>::new();
    for binding in flags.publish.iter().flat_map(Publish::bindings) {
        let host = PortBinding {
            host_ip: Some(binding.address),
            host_port: Some(binding.host_port),
        };
        bindings
            .entry(binding.port)
            .or_default()
            .get_or_insert_default()
            .push(host);
    }
    bindings
}

/// Variables of files first, for those of flags win.
fn environment(flags: &ContainerFlags) -> anyhow::Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in &flags.env_file {
        variables.extend(read_env_file(path)?);
    }
    variables.extend(flags.env.iter().cloned());
    let inherited = |name: &str| std::env::var(name).ok();
    Ok(variables
        .iter()
        .filter_map(|variable| variable.resolve(inherited))
        .collect())
}

fn labels(flags: &ContainerFlags) -> anyhow::Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for path in &flags.label_file {
        labels.extend(read_label_file(path)?);
    }
    labels.extend(pairs(&flags.label));
    Ok(labels)
}

fn networking(flags: &ContainerFlags) -> anyhow::Result<Option<NetworkingConfig>> {
    let mut networks = flags.network.clone();
    let rare = &flags.rare;
    let plain = flags.network_alias.is_empty()
        && flags.ip.is_none()
        && rare.mac_address.is_none()
        && rare.ip6.is_none()
        && rare.link_local_ip.is_empty();
    if networks.is_empty() {
        if plain {
            return Ok(None);
        }
        networks.push(NetworkFlag {
            name: "default".to_owned(),
            ..NetworkFlag::default()
        });
    }
    // flags without a network of their own mean the first one
    networks[0]
        .aliases
        .extend(flags.network_alias.iter().cloned());
    let first = &mut networks[0];
    once("ip", &mut first.ip, flags.ip)?;
    once("ip6", &mut first.ip6, rare.ip6)?;
    once("mac-address", &mut first.mac, rare.mac_address.clone())?;
    first.link_local.extend(&rare.link_local_ip);
    let links = some_list(flags.link.iter().map(ToString::to_string).collect());
    let mut endpoints = HashMap::new();
    for (at, network) in networks.iter().enumerate() {
        let links = links
            .clone()
            .filter(|_| at == 0 && is_user_defined(&network.name));
        if endpoints
            .insert(network.name.clone(), endpoint(network, links))
            .is_some()
        {
            bail!("network {:?} is specified multiple times", network.name);
        }
    }
    Ok(Some(NetworkingConfig {
        endpoints_config: Some(endpoints),
    }))
}

/// Takes the value of a flag for the first network, which may have one of its own.
fn once<T>(name: &str, slot: &mut Option<T>, flag: Option<T>) -> anyhow::Result<()> {
    if slot.is_some() && flag.is_some() {
        bail!(
            "conflicting options: cannot specify both --{name} and the {name} option of --network"
        );
    }
    *slot = slot.take().or(flag);
    Ok(())
}

fn is_user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

fn endpoint(network: &NetworkFlag, links: Option<Vec<String>>) -> EndpointSettings {
    let link_local = network.link_local.iter().map(ToString::to_string);
    let ipam = EndpointIpamConfig {
        ipv4_address: network.ip.map(|ip| ip.to_string()),
        ipv6_address: network.ip6.map(|ip| ip.to_string()),
        link_local_ips: some_list(link_local.collect()),
    };
    EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        mac_address: network.mac.clone(),
        gw_priority: network.gateway_priority,
        links,
        aliases: some_list(network.aliases.clone()),
        driver_opts: some_map(network.driver_opts.clone()),
        ..EndpointSettings::default()
    }
}

fn pairs(values: &[KeyValue]) -> impl Iterator<Item = (String, String)> {
    values
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
}

/// Absent rather than empty, as Docker's client does.
fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map<K: Eq + Hash, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Option<HashMap<K, V>> {
    let map: HashMap<K, V> = pairs.into_iter().collect();
    (!map.is_empty()).then_some(map)
}
