//! The daemon itself, and the lists that are always empty here.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use axum::response::{IntoResponse, Response};
use bollard_stubs::models::{
    IndexInfo, PluginsInfo, RegistryServiceConfig, Runtime, SystemInfo, SystemInfoCgroupDriverEnum,
    SystemInfoCgroupVersionEnum, SystemVersion, SystemVersionComponents, SystemVersionPlatform,
};
use jiff::Timestamp;
use nuncio_orchestration::Availability;
use nuncio_runtime::image::{InsecureRegistry, RegistrySettings};
use nuncio_tunnel::FallbackStatus;
use serde::Serialize;
use serde_json::json;

use super::version::{CURRENT, MINIMUM};
use super::{Answer, Server, json, swarm};
use crate::daemon::refusal::Refusal;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) async fn ping() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (PRAGMA, "no-cache"),
    ];
    (headers, "OK").into_response()
}

/// The name by which Docker and Go call this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) async fn version(State(daemon): Server) -> Answer {
    let info = daemon.info()?;
    let details = [
        ("ApiVersion", CURRENT.to_string()),
        ("MinAPIVersion", MINIMUM.to_string()),
        ("Os", "linux".to_owned()),
        ("Arch", architecture().to_owned()),
        ("KernelVersion", info.kernel.clone()),
        ("Experimental", "false".to_owned()),
    ];
    let engine = SystemVersionComponents {
        name: "Engine".to_owned(),
        version: VERSION.to_owned(),
        details: Some(details.map(|(name, value)| (name.to_owned(), value)).into()),
    };
    json::sorted(SystemVersion {
        platform: Some(SystemVersionPlatform {
            name: "nuncio".to_owned(),
        }),
        components: Some(vec![engine]),
        version: Some(VERSION.to_owned()),
        api_version: Some(CURRENT.to_string()),
        min_api_version: Some(MINIMUM.to_string()),
        os: Some("linux".to_owned()),
        arch: Some(architecture().to_owned()),
        kernel_version: Some(info.kernel),
        experimental: Some(false),
        ..SystemVersion::default()
    })
}

pub(crate) async fn info(State(daemon): Server) -> Answer {
    let info = daemon.info()?;
    let count = |number: usize| Some(i64::try_from(number).unwrap_or(i64::MAX));
    let (running, paused, stopped) = info.containers;
    let mut warnings = info.warnings;
    if let Some(since) = info
        .registry_stale
        .and_then(|since| Timestamp::try_from(since).ok())
    {
        warnings.push(format!(
            "WARNING: registry {} has not answered since {since:.0}",
            info.registry
        ));
    }
    json::sorted(SystemInfo {
        id: Some(info.id),
        name: Some(info.name),
        containers: count(running + paused + stopped),
        containers_running: count(running),
        containers_paused: count(paused),
        containers_stopped: count(stopped),
        images: count(info.images),
        driver_status: Some(vec![
            vec!["Registry".to_owned(), info.registry],
            vec!["Nodes".to_owned(), info.nodes.to_string()],
            vec![
                "Exec Root".to_owned(),
                info.exec_root.to_string_lossy().into_owned(),
            ],
        ]),
        docker_root_dir: Some(info.data_root.to_string_lossy().into_owned()),
        system_time: Some(Timestamp::now().to_string()),
        cgroup_version: Some(match info.cgroup_version.as_str() {
            "2" => SystemInfoCgroupVersionEnum::_2,
            _ => SystemInfoCgroupVersionEnum::_1,
        }),
        kernel_version: Some(info.kernel),
        operating_system: Some(info.os),
        ncpu: count(info.cpus),
        mem_total: Some(i64::try_from(info.memory).unwrap_or(i64::MAX)),
        warnings: Some(warnings),
        registry_config: Some(registries(daemon.registries())),
        swarm: Some(swarm::info(&daemon)),
        labels: Some(info.labels),
        ..abilities()
    })
}

/// How registries of images are reached, as Docker tells it.
fn registries(settings: &RegistrySettings) -> RegistryServiceConfig {
    let mirrors: Vec<String> = settings.mirrors.iter().map(ToString::to_string).collect();
    let index = |name: &str, mirrors: &[String], secure, official| {
        let index = IndexInfo {
            name: Some(name.to_owned()),
            mirrors: Some(mirrors.to_vec()),
            secure: Some(secure),
            official: Some(official),
        };
        (name.to_owned(), index)
    };
    let mut indexes = vec![index("docker.io", &mirrors, true, true)];
    let mut networks = Vec::new();
    for insecure in &settings.insecure {
        match insecure {
            InsecureRegistry::Host(host) => indexes.push(index(host, &[], false, false)),
            InsecureRegistry::Network(address, prefix) => {
                networks.push(format!("{address}/{prefix}"));
            }
        }
    }
    networks.extend(["::1/128", "127.0.0.0/8"].map(str::to_owned));
    RegistryServiceConfig {
        insecure_registry_cidrs: Some(networks),
        index_configs: Some(indexes.into_iter().collect()),
        mirrors: Some(mirrors),
    }
}

/// What is the same for every daemon of this version.
fn abilities() -> SystemInfo {
    let some = |text: &str| Some(text.to_owned());
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let runtime = Runtime {
        path: some("nuncio"),
        ..Runtime::default()
    };
    SystemInfo {
        driver: some("overlayfs"),
        plugins: Some(PluginsInfo {
            network: names(&["bridge", "host", "null", "overlay"]),
            log: names(&["json-file"]),
            volume: names(&["local"]),
            authorization: None,
        }),
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        pids_limit: Some(true),
        ipv4_forwarding: Some(true),
        logging_driver: some("json-file"),
        cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
        os_type: some("linux"),
        architecture: some(std::env::consts::ARCH),
        index_server_address: some("https://index.docker.io/v1/"),
        experimental_build: Some(false),
        server_version: some(VERSION),
        runtimes: Some([("nuncio".to_owned(), runtime)].into()),
        default_runtime: some("nuncio"),
        live_restore_enabled: Some(true),
        security_options: names(&["name=seccomp,profile=builtin"]),
        ..SystemInfo::default()
    }
}

pub(crate) async fn plugins() -> Response {
    Json(json!([])).into_response()
}

pub(crate) async fn plugin(Path(name): Path<String>) -> Answer {
    Err(Refusal::not_found(format!("plugin {name:?} not found")).into())
}

/// A host of the mesh.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    address: String,
    /// Whether it renewed its lease in time.
    alive: bool,
    /// Whether it is the one that answers.
    me: bool,
    /// Whether it is to have tasks of services.
    availability: Availability,
}

pub(crate) async fn nodes(State(daemon): Server) -> Answer {
    let nodes = daemon.nodes().into_iter().map(|node| Node {
        availability: daemon.node_wish(&node.id).1.availability,
        id: node.id,
        name: node.name,
        address: node.address.to_string(),
        alive: node.alive,
        me: node.me,
    });
    json::sorted(nodes.collect::<Vec<_>>())
}

/// A host that this one reaches by a tunnel: it has encrypted networks in common with it, or goes around VXLAN.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tunnelled {
    #[serde(rename = "ID")]
    id: String,
    endpoint: String,
    /// Its public key; absent while the two have none in use.
    key: Option<String>,
    /// Seconds since the two last agreed on a session.
    handshake: Option<u64>,
    /// Bytes of packets to it.
    sent: u64,
    /// Bytes of packets from it.
    received: u64,
    /// How it is reached where UDP does not get through; absent if it is not.
    fallback: Option<Fallback>,
}

/// The way to a host by TLS over TCP.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fallback {
    endpoint: String,
    /// This host is to send by it.
    wanted: bool,
    /// The other one takes what it sends.
    connected: bool,
    /// The other one sends by it.
    serving: bool,
    /// Bytes to it.
    sent: u64,
    /// Bytes from it.
    received: u64,
    /// Packets to it that there was no room for.
    dropped: u64,
}

impl From<FallbackStatus> for Fallback {
    fn from(status: FallbackStatus) -> Self {
        Self {
            endpoint: status.endpoint.to_string(),
            wanted: status.wanted,
            connected: status.connected,
            serving: status.serving,
            sent: status.sent,
            received: status.received,
            dropped: status.dropped,
        }
    }
}

/// What this host's tunnel carries; no peers, while there is none.
pub(crate) async fn tunnel(State(daemon): Server) -> Answer {
    let status = daemon.tunnel_status().await?;
    let (peers, dropped) = status.map_or_else(Default::default, |it| (it.peers, it.dropped));
    let peers = peers.into_iter().map(|peer| Tunnelled {
        id: peer.id,
        endpoint: peer.endpoint.to_string(),
        key: peer.using.map(|(_, theirs)| theirs.to_string()),
        handshake: peer.handshake,
        sent: peer.sent,
        received: peer.received,
        fallback: peer.fallback.map(Fallback::from),
    });
    json::sorted(json!({
        "Peers": peers.collect::<Vec<_>>(),
        "Dropped": dropped,
    }))
}

pub(crate) async fn rotate_keys(State(daemon): Server) -> Answer {
    let key = daemon.rotate_keys().await?;
    json::sorted(json!({ "Key": key.to_string() }))
}
