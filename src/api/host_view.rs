//! The daemon's options of a container, shown as `HostConfig`.

use std::collections::BTreeMap;

use bollard_stubs::models::{
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, HostConfigLogConfig,
    ResourcesUlimits,
};

use super::{disk_limits, mounts, ports, restart_policy, rights};
use crate::daemon::config::{HostOptions, LinkRequest};

/// From which [`super::host_options::host_options`] makes the same options again. `consumer` is the container's name.
pub(crate) fn host_view(host: &HostOptions, consumer: &str) -> HostConfig {
    HostConfig {
        binds: mounts::binds_view(&host.mounts),
        mounts: mounts::mounts_view(&host.mounts),
        volumes_from: mounts::volumes_from_view(&host.volumes_from),
        volume_driver: Some(host.volume_driver.clone()),
        tmpfs: some_map(&host.tmpfs),
        auto_remove: Some(host.auto_remove),
        privileged: Some(host.privileged),
        cap_add: some_list(&host.cap_add),
        cap_drop: some_list(&host.cap_drop),
        readonly_rootfs: Some(host.read_only),
        init: host.init.then_some(true),
        security_opt: rights::security_view(host),
        port_bindings: Some(ports::bindings_view(&host.publish)),
        publish_all_ports: Some(host.publish_all),
        links: links_view(&host.links, consumer),
        network_mode: Some(host.network.to_string()),
        dns: Some(host.dns.clone()),
        dns_search: Some(host.dns_search.clone()),
        dns_options: Some(host.dns_options.clone()),
        extra_hosts: some_list(&host.extra_hosts),
        memory: Some(host.memory),
        memory_swap: Some(host.memory_swap),
        nano_cpus: Some(host.nano_cpus),
        cpu_shares: Some(host.cpu_shares),
        pids_limit: (host.pids_limit != 0).then_some(host.pids_limit),
        ulimits: ulimits_view(host),
        sysctls: some_map(&host.sysctls),
        oom_score_adj: Some(i64::from(host.oom_score_adj)),
        log_config: Some(log_view(host)),
        restart_policy: Some(restart_policy::view(host.restart)),
        cgroupns_mode: Some(match host.host_cgroups {
            true => HostConfigCgroupnsModeEnum::HOST,
            false => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        ipc_mode: Some(rights::ipc_view(&host.ipc)),
        pid_mode: Some(rights::pid_view(&host.pid)),
        uts_mode: Some(if host.host_uts { "host" } else { "" }.to_owned()),
        memory_reservation: Some(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.map(i64::from),
        oom_kill_disable: host.oom_kill_disable.then_some(true),
        cpu_period: Some(host.cpu_period),
        cpu_quota: Some(host.cpu_quota),
        cpuset_cpus: Some(host.cpuset_cpus.clone()),
        cpuset_mems: Some(host.cpuset_mems.clone()),
        cpu_realtime_period: Some(host.cpu_rt_period),
        cpu_realtime_runtime: Some(host.cpu_rt_runtime),
        cgroup_parent: Some(host.cgroup_parent.clone()),
        annotations: some_map(&host.annotations),
        isolation: Some(HostConfigIsolationEnum::EMPTY),
        devices: Some(rights::devices_view(&host.devices)),
        device_cgroup_rules: some_list(&host.device_rules),
        group_add: some_list(&host.group_add),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        runtime: Some("nuncio".to_owned()),
        shm_size: Some(rights::shm_size_view(host.shm_size)),
        console_size: Some(vec![0, 0]),
        ..disk_limits::view(&host.disks)
    }
}

/// `["/db:/web/redis"]`.
fn links_view(links: &[LinkRequest], consumer: &str) -> Option<Vec<String>> {
    let view = |link: &LinkRequest| format!("/{}:/{consumer}/{}", link.target, link.alias);
    (!links.is_empty()).then(|| links.iter().map(view).collect())
}

fn ulimits_view(host: &HostOptions) -> Option<Vec<ResourcesUlimits>> {
    let view = host.ulimits.iter().map(|ulimit| ResourcesUlimits {
        name: Some(ulimit.name.clone()),
        soft: Some(ulimit.soft),
        hard: Some(ulimit.hard),
    });
    (!host.ulimits.is_empty()).then(|| view.collect())
}

fn log_view(host: &HostOptions) -> HostConfigLogConfig {
    let size = host
        .log_max_size
        .map(|size| ("max-size".to_owned(), size.to_string()));
    let files = host
        .log_max_file
        .map(|files| ("max-file".to_owned(), files.to_string()));
    HostConfigLogConfig {
        typ: Some(if host.no_log { "none" } else { "json-file" }.to_owned()),
        config: Some(size.into_iter().chain(files).collect()),
    }
}

fn some_list(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<std::collections::HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}
