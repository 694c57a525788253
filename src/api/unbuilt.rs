//! What of `HostConfig` is known in Docker and not built here: refused by the name of its flag, never dropped.

use bollard_stubs::models::{
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum, RestartPolicyNameEnum,
};

use crate::daemon::refusal::Refusal;

/// `/dev/shm` of every container, in bytes.
const SHM_SIZE: i64 = 64 << 20;

/// Refuses the first option that would change what a container does and is not built.
pub(crate) fn refuse(host: &HostConfig) -> Result<(), Refusal> {
    let found = limits(host)
        .into_iter()
        .chain(devices(host))
        .chain(namespaces(host))
        .chain(lifecycle(host));
    match found.into_iter().find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Refusal::unsupported(format!("not built: {flag}"))),
        None => Ok(()),
    }
}

/// Whether each is asked for, and its flag.
type Asked<const N: usize> = [(bool, &'static str); N];

fn limits(host: &HostConfig) -> Asked<13> {
    [
        (nonzero(host.cpu_period), "--cpu-period; use --cpus"),
        (nonzero(host.cpu_quota), "--cpu-quota; use --cpus"),
        (nonzero(host.cpu_realtime_period), "--cpu-rt-period"),
        (nonzero(host.cpu_realtime_runtime), "--cpu-rt-runtime"),
        (text(&host.cpuset_cpus), "--cpuset-cpus"),
        (text(&host.cpuset_mems), "--cpuset-mems"),
        (nonzero(host.kernel_memory_tcp), "kernel memory limits"),
        (nonzero(host.memory_reservation), "--memory-reservation"),
        (
            host.memory_swappiness.is_some_and(|value| value != -1),
            "--memory-swappiness",
        ),
        (host.oom_kill_disable == Some(true), "--oom-kill-disable"),
        (
            host.shm_size
                .is_some_and(|size| size != 0 && size != SHM_SIZE),
            "--shm-size other than 64m",
        ),
        (map(&host.storage_opt), "--storage-opt"),
        (
            [
                host.cpu_count,
                host.cpu_percent,
                host.io_maximum_iops,
                host.io_maximum_bandwidth,
            ]
            .into_iter()
            .any(nonzero),
            "limits of Windows containers",
        ),
    ]
}

fn devices(host: &HostConfig) -> Asked<9> {
    [
        (
            host.blkio_weight.is_some_and(|weight| weight != 0),
            "--blkio-weight",
        ),
        (list(&host.blkio_weight_device), "--blkio-weight-device"),
        (list(&host.blkio_device_read_bps), "--device-read-bps"),
        (list(&host.blkio_device_write_bps), "--device-write-bps"),
        (list(&host.blkio_device_read_iops), "--device-read-iops"),
        (list(&host.blkio_device_write_iops), "--device-write-iops"),
        (list(&host.devices), "--device"),
        (list(&host.device_cgroup_rules), "--device-cgroup-rule"),
        (list(&host.device_requests), "--gpus"),
    ]
}

fn namespaces(host: &HostConfig) -> Asked<8> {
    let mode = |mode: &Option<String>, known: &[&str]| {
        mode.as_deref().is_some_and(|mode| !known.contains(&mode))
    };
    let isolation = [
        None,
        Some(HostConfigIsolationEnum::EMPTY),
        Some(HostConfigIsolationEnum::DEFAULT),
    ];
    [
        (text(&host.pid_mode), "--pid"),
        (
            mode(&host.ipc_mode, &["", "private"]),
            "--ipc other than private",
        ),
        (text(&host.uts_mode), "--uts"),
        // Without user namespaces every container is in the host's.
        (mode(&host.userns_mode, &["", "host"]), "--userns"),
        (
            host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST),
            "--cgroupns host",
        ),
        (text(&host.cgroup), "a cgroup shared with another container"),
        (text(&host.cgroup_parent), "--cgroup-parent"),
        (!isolation.contains(&host.isolation), "--isolation"),
    ]
}

fn lifecycle(host: &HostConfig) -> Asked<6> {
    let restart = host.restart_policy.as_ref().and_then(|policy| policy.name);
    // An empty list takes the masks away, which --privileged does too.
    let unmasked = [&host.masked_paths, &host.readonly_paths]
        .into_iter()
        .flatten();
    [
        (
            !matches!(
                restart,
                None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO)
            ),
            "--restart other than no",
        ),
        (list(&host.group_add), "--group-add"),
        (map(&host.annotations), "--annotation"),
        (
            host.extra_hosts
                .iter()
                .flatten()
                .any(|entry| entry.ends_with(":host-gateway")),
            "--add-host with host-gateway; give an address",
        ),
        (
            host.runtime
                .as_deref()
                .is_some_and(|runtime| !["", "nuncio"].contains(&runtime)),
            "--runtime other than nuncio",
        ),
        (
            host.privileged != Some(true) && unmasked.into_iter().next().is_some(),
            "--security-opt systempaths, nor other masked or read-only paths",
        ),
    ]
}

/// Whether `--security-opt` takes the system call filter away; what else it may say is refused.
pub(crate) fn seccomp_unconfined(host: &HostConfig) -> Result<bool, Refusal> {
    let mut unconfined = false;
    for option in host.security_opt.iter().flatten() {
        match option.replacen(':', "=", 1).as_str() {
            "seccomp=unconfined" => unconfined = true,
            "seccomp=builtin" => unconfined = false,
            // Neither SELinux nor AppArmor confines anything here, so there is nothing to take away.
            "label=disable" | "apparmor=unconfined" | "no-new-privileges=false" => {}
            _ => {
                return Err(Refusal::unsupported(format!(
                    "not built: --security-opt {option}"
                )));
            }
        }
    }
    Ok(unconfined)
}

fn nonzero(value: Option<i64>) -> bool {
    value.is_some_and(|value| value != 0)
}

fn text(value: &Option<String>) -> bool {
    value.as_ref().is_some_and(|value| !value.is_empty())
}

fn list<T>(value: &Option<Vec<T>>) -> bool {
    value.as_ref().is_some_and(|value| !value.is_empty())
}

fn map<K, V>(value: &Option<std::collections::HashMap<K, V>>) -> bool {
    value.as_ref().is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::daemon::refusal::RefusalKind;

    fn parse(host: Value) -> HostConfig {
        serde_json::from_value(host).expect("a host configuration")
    }

    #[test]
    fn what_clients_send_by_default_is_no_wish() {
        let host = parse(json!({
            "MemorySwappiness": -1, "ConsoleSize": [0, 0], "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "IpcMode": "", "PidMode": "", "UTSMode": "", "UsernsMode": "", "CgroupnsMode": "private", "Isolation": "",
            "Devices": [], "DeviceRequests": null, "BlkioWeight": 0, "ShmSize": 67_108_864, "OomKillDisable": false,
            "MaskedPaths": null, "VolumesFrom": null, "ContainerIDFile": "/tmp/x", "SecurityOpt": null,
        }));
        refuse(&host).expect("nothing unbuilt");
        assert!(!seccomp_unconfined(&host).expect("nothing said"));
    }

    #[test]
    fn each_wish_is_refused_by_its_flag() {
        for (host, flag) in [
            (json!({"RestartPolicy": {"Name": "always"}}), "--restart"),
            (
                json!({"Devices": [{"PathOnHost": "/dev/fuse"}]}),
                "--device",
            ),
            (json!({"PidMode": "host"}), "--pid"),
            (json!({"IpcMode": "shareable"}), "--ipc"),
            (json!({"MemorySwappiness": 10}), "--memory-swappiness"),
            (json!({"CpuQuota": 50_000}), "--cpu-quota"),
            (json!({"ShmSize": 1}), "--shm-size"),
            (json!({"Runtime": "kata"}), "--runtime"),
            (json!({"MaskedPaths": []}), "--security-opt systempaths"),
            (json!({"CgroupnsMode": "host"}), "--cgroupns"),
            (json!({"GroupAdd": ["audio"]}), "--group-add"),
        ] {
            let error = refuse(&parse(host)).expect_err(flag);
            assert_eq!(error.kind, RefusalKind::Unsupported);
            assert!(
                error.message.starts_with(&format!("not built: {flag}")),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn security_options_are_taken_or_refused() {
        let found = |option: &str| seccomp_unconfined(&parse(json!({"SecurityOpt": [option]})));
        assert!(found("seccomp=unconfined").expect("built"));
        assert!(found("seccomp:unconfined").expect("the old spelling"));
        assert!(!found("label=disable").expect("nothing to do"));
        assert!(found("no-new-privileges").is_err());
    }
}
