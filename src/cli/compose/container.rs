//! From a service of a file to the body of a create request.

use std::collections::{BTreeMap, HashMap};

use anyhow::bail;
use bollard_stubs::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig,
    Mount, MountBindOptions, MountTmpfsOptions, MountTypeEnum, MountVolumeOptions,
    NetworkingConfig, PortBinding,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::command::{HASH, IMAGE, NUMBER, ONEOFF, PROJECT, SERVICE};
use super::file::Project;
use super::parts::Volume;
use super::service::{Condition, Service};
use crate::cli::parse::DeviceSpec;

/// A container that is to be: its name, and what is asked for it.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) body: ContainerCreateBody,
    pub(super) hash: String,
}

/// Container number `number` of a service, of the image with that id.
///
/// # Errors
///
/// What one host does not do.
pub(super) fn wanted(
    service: &Service,
    number: i64,
    project: &Project,
    image_id: &str,
) -> anyhow::Result<Wanted> {
    let project_name = project.name.as_deref().unwrap_or_default();
    let name = match &service.container_name {
        Some(name) => name.clone(),
        None => format!("{project_name}-{}-{number}", service.name),
    };
    let (endpoints, mode) = networks(service, project)?;
    let mut body = ContainerCreateBody {
        image: service.image.as_ref().map(ToString::to_string),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        working_dir: service.working_dir.clone(),
        env: Some(crate::cli::stack::environment(service)),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        exposed_ports: Some(exposed(service)),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service
            .stop_grace_period
            .map(|nanos| (nanos + 999_999_999) / 1_000_000_000),
        healthcheck: service.healthcheck.clone(),
        host_config: Some(host_config(service, project, mode)?),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(endpoints),
        }),
        ..ContainerCreateBody::default()
    };
    let hash = hash(&body)?;
    body.labels = Some(labels(service, number, project, image_id, &hash));
    Ok(Wanted { name, body, hash })
}

/// What changes when anything of a body does.
fn hash(body: &ContainerCreateBody) -> anyhow::Result<String> {
    let text = sorted(serde_json::to_value(body)?).to_string();
    let digest = Sha256::digest(text.as_bytes());
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// With members in the order of their names: maps have them in any.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn labels(
    service: &Service,
    number: i64,
    project: &Project,
    image_id: &str,
    hash: &str,
) -> HashMap<String, String> {
    let depends = service.depends_on.iter().map(|(name, dependency)| {
        let condition = match dependency.condition {
            Condition::Started => "service_started",
            Condition::Healthy => "service_healthy",
            Condition::Completed => "service_completed_successfully",
        };
        format!("{name}:{condition}:false")
    });
    let files = project.files.iter().map(|file| match file.as_str() {
        "-" => "-".to_owned(),
        file => std::path::absolute(file)
            .map_or_else(|_| file.to_owned(), |path| path.display().to_string()),
    });
    let own = [
        (PROJECT, project.name.clone().unwrap_or_default()),
        (SERVICE, service.name.clone()),
        (NUMBER, number.to_string()),
        (ONEOFF, "False".to_owned()),
        (HASH, hash.to_owned()),
        (IMAGE, image_id.to_owned()),
        (
            "com.docker.compose.version",
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (
            "com.docker.compose.project.working_dir",
            project.directory.display().to_string(),
        ),
        (
            "com.docker.compose.project.config_files",
            files.collect::<Vec<_>>().join(","),
        ),
        (
            "com.docker.compose.depends_on",
            depends.collect::<Vec<_>>().join(","),
        ),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value));
    service.labels.clone().into_iter().chain(own).collect()
}

fn exposed(service: &Service) -> HashMap<String, HashMap<(), ()>> {
    let of_ports = service
        .ports
        .iter()
        .map(|port| format!("{}/{}", port.target, port.protocol));
    let of_expose = service.expose.iter().map(|port| match port.contains('/') {
        true => port.clone(),
        false => format!("{port}/tcp"),
    });
    of_ports
        .chain(of_expose)
        .map(|port| (port, HashMap::new()))
        .collect()
}

/// What a network of the file is called here.
pub(super) fn network_name(name: &str, project: &Project) -> String {
    let network = project.networks.get(name);
    let own = network.and_then(|network| network.name.clone());
    own.unwrap_or_else(|| match network.is_some_and(|network| network.external) {
        true => name.to_owned(),
        false => format!("{}_{name}", project.name.as_deref().unwrap_or_default()),
    })
}

/// What a volume of the file is called here.
pub(super) fn volume_name(name: &str, project: &Project) -> String {
    let volume = project.volumes.get(name);
    let own = volume.and_then(|volume| volume.name.clone());
    own.unwrap_or_else(|| match volume.is_some_and(|volume| volume.external) {
        true => name.to_owned(),
        false => format!("{}_{name}", project.name.as_deref().unwrap_or_default()),
    })
}

/// The networks of a service, and which of them is the first.
fn networks(
    service: &Service,
    project: &Project,
) -> anyhow::Result<(HashMap<String, EndpointSettings>, String)> {
    if let Some(mode) = &service.network_mode {
        if !service.networks.is_empty() {
            bail!(
                "service {}: network_mode and networks cannot be combined",
                service.name
            );
        }
        if let Some(other) = mode.strip_prefix("service:") {
            let project = project.name.as_deref().unwrap_or_default();
            return Ok((HashMap::new(), format!("container:{project}-{other}-1")));
        }
        return Ok((HashMap::new(), mode.clone()));
    }
    let default = BTreeMap::from([("default".to_owned(), Default::default())]);
    let joined = match service.networks.is_empty() {
        true => &default,
        false => &service.networks,
    };
    let endpoints = joined.iter().map(|(name, join)| {
        let mut aliases = join.aliases.clone();
        aliases.push(service.name.clone());
        let ipam = EndpointIpamConfig {
            ipv4_address: join.ipv4.map(|ip| ip.to_string()),
            ipv6_address: join.ipv6.map(|ip| ip.to_string()),
            link_local_ips: None,
        };
        let endpoint = EndpointSettings {
            aliases: Some(aliases),
            ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
            driver_opts: (!join.driver_opts.is_empty())
                .then(|| join.driver_opts.clone().into_iter().collect()),
            ..EndpointSettings::default()
        };
        (network_name(name, project), endpoint)
    });
    let endpoints: BTreeMap<_, _> = endpoints.collect();
    let first = endpoints.keys().next().cloned().unwrap_or_default();
    Ok((endpoints.into_iter().collect(), first))
}

fn host_config(service: &Service, project: &Project, mode: String) -> anyhow::Result<HostConfig> {
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let map = |map: &BTreeMap<String, String>| {
        (!map.is_empty()).then(|| map.clone().into_iter().collect())
    };
    let mut devices = Vec::new();
    for device in &service.devices {
        match device.parse::<DeviceSpec>() {
            Ok(device) => devices.push(device.mapping()),
            Err(error) => bail!("service {}: devices: {error}", service.name),
        }
    }
    let tmpfs = service.tmpfs.iter().map(|text| {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        (target.to_owned(), options.to_owned())
    });
    let tmpfs: HashMap<_, _> = tmpfs.collect();
    let limits = &service.deploy.limits;
    let extra = service
        .extra_hosts
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(HostConfig {
        network_mode: Some(mode),
        port_bindings: Some(port_bindings(service)),
        mounts: Some(mounts(service, project)?),
        tmpfs: (!tmpfs.is_empty()).then_some(tmpfs),
        restart_policy: service
            .restart
            .as_ref()
            .map(crate::cli::parse::Restart::policy),
        memory: service.mem_limit.or(limits.memory),
        nano_cpus: service
            .cpus
            .map(crate::cli::parse::Cpus::nano)
            .or(limits.nano_cpus),
        pids_limit: service.pids_limit.or(limits.pids),
        memory_reservation: service.deploy.reservations.memory,
        cap_add: list(&service.cap_add),
        cap_drop: list(&service.cap_drop),
        group_add: list(&service.group_add),
        security_opt: list(&service.security_opt),
        dns: list(&service.dns),
        dns_search: list(&service.dns_search),
        dns_options: list(&service.dns_opt),
        extra_hosts: list(&extra),
        sysctls: map(&service.sysctls),
        annotations: map(&service.annotations),
        ulimits: (!service.ulimits.is_empty()).then(|| service.ulimits.clone()),
        devices: (!devices.is_empty()).then_some(devices),
        privileged: Some(service.privileged),
        readonly_rootfs: Some(service.read_only),
        init: service.init,
        pid_mode: service.pid.clone(),
        ipc_mode: service.ipc.clone(),
        shm_size: service.shm_size,
        oom_score_adj: service.oom_score_adj,
        log_config: service
            .log_driver
            .clone()
            .map(|driver| HostConfigLogConfig {
                typ: Some(driver),
                config: Some(service.log_options.clone().into_iter().collect()),
            }),
        ..HostConfig::default()
    })
}

fn port_bindings(service: &Service) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings = HashMap::<_, Option<Vec<_>>>::new();
    for port in &service.ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.published.clone()),
        };
        let of_port = bindings.entry(format!("{}/{}", port.target, port.protocol));
        of_port.or_default().get_or_insert_default().push(binding);
    }
    bindings
}

fn mounts(service: &Service, project: &Project) -> anyhow::Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = service
        .volumes
        .iter()
        .map(|volume| mount(volume, project))
        .collect();
    for (kind, files, all, place) in [
        (
            "secret",
            &service.secrets,
            &project.secrets,
            "/run/secrets/",
        ),
        ("config", &service.configs, &project.configs, "/"),
    ] {
        for file in files {
            let stored = all.get(&file.source);
            let Some(path) = stored.and_then(|stored| stored.file.clone()) else {
                bail!(
                    "service {}: {kind} {}: on one host only those of files are built; `nuncio stack deploy` has the others",
                    service.name,
                    file.source
                );
            };
            let target = file.target.as_deref().unwrap_or(&file.source);
            mounts.push(Mount {
                typ: Some(MountTypeEnum::BIND),
                source: Some(path),
                target: Some(match target.starts_with('/') {
                    true => target.to_owned(),
                    false => format!("{place}{target}"),
                }),
                read_only: Some(true),
                ..Mount::default()
            });
        }
    }
    Ok(mounts)
}

fn mount(volume: &Volume, project: &Project) -> Mount {
    let mount = Mount {
        target: Some(volume.target.clone()),
        read_only: volume.read_only.then_some(true),
        ..Mount::default()
    };
    match volume.kind.as_str() {
        "bind" => Mount {
            typ: Some(MountTypeEnum::BIND),
            source: volume.source.clone(),
            bind_options: Some(MountBindOptions {
                propagation: volume
                    .propagation
                    .as_deref()
                    .and_then(|word| word.parse().ok()),
                create_mountpoint: volume.create_host_path.then_some(true),
                ..MountBindOptions::default()
            }),
            ..mount
        },
        "tmpfs" => Mount {
            typ: Some(MountTypeEnum::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: volume.tmpfs_size,
                mode: volume.tmpfs_mode,
                options: None,
            }),
            ..mount
        },
        _ => Mount {
            typ: Some(MountTypeEnum::VOLUME),
            source: volume
                .source
                .as_deref()
                .map(|name| volume_name(name, project)),
            volume_options: volume.no_copy.then(|| MountVolumeOptions {
                no_copy: Some(true),
                ..MountVolumeOptions::default()
            }),
            ..mount
        },
    }
}
