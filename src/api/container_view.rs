//! A container as `inspect` shows it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bollard_stubs::models::{
    self, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, DriverData,
    EndpointIpamConfig, EndpointSettings, NetworkSettings,
};
use jiff::Timestamp;

use super::host_view::host_view;
use super::{health, mounts, ports};
use crate::daemon::config::{ContainerConfig, NetworkMode};
use crate::daemon::health::Health;
use crate::daemon::record::{Endpoint, Phase, Record};

/// Go's zero time, which stands for never.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// The network whose addresses also stand where they stood before there were others.
const DEFAULT_NETWORK: &str = "bridge";

/// What is known of a container beside its record.
pub(crate) struct Surroundings<'a> {
    pub(crate) log: &'a Path,
    /// Where its hosts, hostname and resolv.conf lie.
    pub(crate) directory: &'a Path,
    pub(crate) netns: &'a Path,
    /// Where volumes lie.
    pub(crate) volumes: &'a Path,
    pub(crate) health: Option<&'a Health>,
}

pub(crate) fn inspect(record: &Record, around: &Surroundings<'_>) -> ContainerInspectResponse {
    let config = &record.config;
    let mut words = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .flatten()
        .cloned();
    let file = |name: &str| Some(text(&around.directory.join(name)));
    ContainerInspectResponse {
        id: Some(record.id.clone()),
        created: Some(record.created.to_string()),
        path: Some(words.next().unwrap_or_default()),
        args: Some(words.collect()),
        state: Some(state(record, around)),
        image: Some(record.image_id.clone()),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: Some(text(around.log)),
        name: Some(format!("/{}", record.name)),
        restart_count: Some(i64::from(record.restarts)),
        driver: Some("overlayfs".to_owned()),
        platform: Some("linux".to_owned()),
        mount_label: Some(String::new()),
        process_label: Some(String::new()),
        app_armor_profile: Some(String::new()),
        host_config: Some(host_view(&config.host, &record.name)),
        graph_driver: Some(DriverData {
            name: "overlayfs".to_owned(),
            data: HashMap::new(),
        }),
        mounts: Some(mounts::points(&record.mounts, around.volumes)),
        config: Some(config_view(config, &record.id)),
        network_settings: Some(network_settings(record, around)),
        ..ContainerInspectResponse::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The first twelve digits of an id, as people read it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn state(record: &Record, around: &Surroundings<'_>) -> ContainerState {
    let failure = record.failure.as_ref();
    let never = || NEVER.to_owned();
    let stamp = |time: &Timestamp| time.to_string();
    let mut state = ContainerState {
        status: Some(ContainerStateStatusEnum::CREATED),
        running: Some(false),
        paused: Some(false),
        restarting: Some(false),
        oom_killed: Some(false),
        dead: Some(false),
        pid: Some(0),
        exit_code: Some(failure.map_or(0, |failure| failure.code.into())),
        error: Some(failure.map_or_else(String::new, |failure| failure.error.clone())),
        started_at: Some(never()),
        finished_at: Some(never()),
        health: around.health.map(health::view),
    };
    match &record.phase {
        Phase::Created => {}
        Phase::Running {
            pid,
            started,
            paused,
        } => {
            state.status = Some(match paused {
                true => ContainerStateStatusEnum::PAUSED,
                false => ContainerStateStatusEnum::RUNNING,
            });
            state.running = Some(true);
            state.paused = Some(*paused);
            state.pid = Some(i64::from(*pid));
            state.started_at = Some(stamp(started));
        }
        Phase::Restarting {
            code,
            started,
            finished,
            oom,
        } => {
            // To most who look it runs.
            state.status = Some(ContainerStateStatusEnum::RESTARTING);
            state.running = Some(true);
            state.restarting = Some(true);
            state.oom_killed = Some(*oom);
            state.exit_code = Some(i64::from(*code));
            state.started_at = Some(started.as_ref().map_or_else(never, stamp));
            state.finished_at = Some(stamp(finished));
        }
        Phase::Exited {
            code,
            started,
            finished,
            oom,
            error: ended,
        } => {
            if started.is_some() {
                state.status = Some(ContainerStateStatusEnum::EXITED);
            }
            state.oom_killed = Some(*oom);
            state.started_at = Some(started.as_ref().map_or_else(never, stamp));
            state.finished_at = Some(stamp(finished));
            if failure.is_none() {
                state.exit_code = Some(i64::from(*code));
                state.error = Some(ended.clone());
            }
        }
    }
    state
}

fn config_view(config: &ContainerConfig, id: &str) -> models::ContainerConfig {
    let hostname = if config.hostname.is_empty() {
        short(id)
    } else {
        &config.hostname
    };
    models::ContainerConfig {
        hostname: Some(hostname.to_owned()),
        domainname: Some(config.domainname.clone()),
        user: Some(config.user.clone()),
        attach_stdin: Some(config.attach_stdin),
        attach_stdout: Some(config.attach_stdout),
        attach_stderr: Some(config.attach_stderr),
        exposed_ports: ports::exposed_view(&config.exposed),
        tty: Some(config.tty),
        open_stdin: Some(config.open_stdin),
        stdin_once: Some(config.stdin_once),
        env: Some(config.env.clone()),
        cmd: config.cmd.clone(),
        image: Some(config.image.clone()),
        working_dir: Some(config.working_dir.clone()),
        entrypoint: config.entrypoint.clone(),
        labels: Some(config.labels.clone().into_iter().collect()),
        stop_signal: (!config.stop_signal.is_empty()).then(|| config.stop_signal.clone()),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.as_ref().map(health::check_view),
        volumes: volumes_view(&config.volumes),
        ..models::ContainerConfig::default()
    }
}

fn volumes_view(targets: &BTreeSet<String>) -> Option<HashMap<String, HashMap<(), ()>>> {
    let view = targets
        .iter()
        .map(|target| (target.clone(), HashMap::new()));
    (!targets.is_empty()).then(|| view.collect())
}

fn network_settings(record: &Record, around: &Surroundings<'_>) -> NetworkSettings {
    let running = matches!(record.phase, Phase::Running { .. });
    let default = record.endpoints.get(DEFAULT_NETWORK).filter(|_| running);
    let v6 = default.and_then(|endpoint| endpoint.v6);
    let ports = if running {
        ports::published_view(&record.config.exposed, &record.published)
    } else {
        HashMap::new()
    };
    let netns = if running {
        text(around.netns)
    } else {
        String::new()
    };
    NetworkSettings {
        bridge: Some(String::new()),
        sandbox_id: Some(String::new()),
        sandbox_key: Some(netns),
        hairpin_mode: Some(false),
        link_local_ipv6_address: Some(String::new()),
        link_local_ipv6_prefix_len: Some(0),
        ports: Some(ports),
        endpoint_id: Some(String::new()),
        gateway: Some(address(default.and_then(|endpoint| endpoint.gateway))),
        global_ipv6_address: Some(address(v6.map(|v6| v6.address))),
        global_ipv6_prefix_len: Some(v6.map_or(0, |v6| i64::from(v6.block.prefix()))),
        ip_address: Some(address(default.map(|endpoint| endpoint.address))),
        ip_prefix_len: Some(default.map_or(0, |endpoint| i64::from(endpoint.block.prefix()))),
        ipv6_gateway: Some(address(v6.and_then(|v6| v6.gateway))),
        mac_address: Some(
            default
                .map(|endpoint| mac(endpoint.mac))
                .unwrap_or_default(),
        ),
        networks: Some(networks(record)),
        ..NetworkSettings::default()
    }
}

/// Its networks by name: with addresses while it runs, else those it will join.
pub(crate) fn networks(record: &Record) -> HashMap<String, EndpointSettings> {
    let running = matches!(record.phase, Phase::Running { .. });
    let config = &record.config;
    let mut names: Vec<String> = config
        .endpoints
        .keys()
        .chain(record.endpoints.keys())
        .cloned()
        .collect();
    let shares = matches!(config.host.network, NetworkMode::Container(_));
    if names.is_empty() && !config.left_first && !shares {
        names.push(config.host.network.to_string());
    }
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| (name.clone(), endpoint(record, &name, running)))
        .collect()
}

fn endpoint(record: &Record, name: &str, running: bool) -> EndpointSettings {
    let asked = record.config.endpoints.get(name);
    let known = record.endpoints.get(name);
    let live = known.filter(|_| running);
    let v6 = live.and_then(|live| live.v6);
    let wanted = asked.filter(|asked| asked.address.is_some() || asked.address_v6.is_some());
    let aliases = known
        .map(|known| &known.aliases)
        .or(asked.map(|asked| &asked.aliases))
        .cloned();
    let dns_names = |known: &Endpoint| {
        let mut names = vec![record.name.clone()];
        names.extend(known.aliases.iter().cloned());
        names.push(short(&record.id).to_owned());
        names
    };
    EndpointSettings {
        ipam_config: wanted.map(|wanted| EndpointIpamConfig {
            ipv4_address: wanted.address.map(|address| address.to_string()),
            ipv6_address: wanted.address_v6.map(|address| address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        aliases: aliases.filter(|aliases| !aliases.is_empty()),
        dns_names: known.filter(|_| name != DEFAULT_NETWORK).map(dns_names),
        network_id: Some(
            known
                .map(|known| known.network_id.clone())
                .unwrap_or_default(),
        ),
        endpoint_id: Some(String::new()),
        gateway: Some(address(live.and_then(|live| live.gateway))),
        ip_address: Some(address(live.map(|live| live.address))),
        ip_prefix_len: Some(live.map_or(0, |live| i64::from(live.block.prefix()))),
        mac_address: Some(live.map(|live| mac(live.mac)).unwrap_or_default()),
        gw_priority: asked
            .map(|asked| asked.gateway_priority)
            .filter(|priority| *priority != 0),
        ipv6_gateway: Some(address(v6.and_then(|v6| v6.gateway))),
        global_ipv6_address: Some(address(v6.map(|v6| v6.address))),
        global_ipv6_prefix_len: Some(v6.map_or(0, |v6| i64::from(v6.block.prefix()))),
        ..EndpointSettings::default()
    }
}

/// On networks of users, what else older versions of the API called aliases: the short id, and the host's name.
pub(crate) fn add_old_aliases(shown: &mut ContainerInspectResponse) {
    let hostname = shown
        .config
        .as_ref()
        .and_then(|config| config.hostname.clone());
    let more: Vec<String> = shown
        .id
        .iter()
        .map(|id| short(id).to_owned())
        .chain(hostname)
        .collect();
    let networks = shown
        .network_settings
        .as_mut()
        .and_then(|settings| settings.networks.as_mut());
    for (name, endpoint) in networks.into_iter().flatten() {
        if matches!(name.as_str(), DEFAULT_NETWORK | "host" | "none") {
            continue;
        }
        let aliases = endpoint.aliases.get_or_insert_default();
        for alias in &more {
            if !aliases.contains(alias) {
                aliases.push(alias.clone());
            }
        }
    }
}

fn address(address: Option<impl ToString>) -> String {
    address
        .map(|address| address.to_string())
        .unwrap_or_default()
}

/// `02:42:ac:11:00:02`.
pub(crate) fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
pub(crate) mod tests;
