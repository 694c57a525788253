//! What of `HostConfig` is known in Docker and not built here: refused by the name of its flag, never dropped.

use bollard_stubs::models::{HostConfig, HostConfigIsolationEnum};

use crate::daemon::refusal::Refusal;

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

fn limits(host: &HostConfig) -> Asked<5> {
    [
        (nonzero(host.cpu_realtime_period), "--cpu-rt-period"),
        (nonzero(host.cpu_realtime_runtime), "--cpu-rt-runtime"),
        (nonzero(host.kernel_memory_tcp), "kernel memory limits"),
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

fn devices(host: &HostConfig) -> Asked<7> {
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
        (list(&host.device_requests), "--gpus"),
    ]
}

fn namespaces(host: &HostConfig) -> Asked<4> {
    let mode = |mode: &Option<String>, known: &[&str]| {
        mode.as_deref().is_some_and(|mode| !known.contains(&mode))
    };
    let isolation = [
        None,
        Some(HostConfigIsolationEnum::EMPTY),
        Some(HostConfigIsolationEnum::DEFAULT),
    ];
    [
        // Without user namespaces every container is in the host's.
        (mode(&host.userns_mode, &["", "host"]), "--userns"),
        (text(&host.cgroup), "a cgroup shared with another container"),
        (text(&host.cgroup_parent), "--cgroup-parent"),
        (!isolation.contains(&host.isolation), "--isolation"),
    ]
}

fn lifecycle(host: &HostConfig) -> Asked<2> {
    [
        (map(&host.annotations), "--annotation"),
        (
            host.runtime
                .as_deref()
                .is_some_and(|runtime| !["", "nuncio"].contains(&runtime)),
            "--runtime other than nuncio",
        ),
    ]
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
    }

    #[test]
    fn each_wish_is_refused_by_its_flag() {
        for (host, flag) in [
            (json!({"Runtime": "kata"}), "--runtime"),
            (json!({"BlkioWeight": 10}), "--blkio-weight"),
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
}
