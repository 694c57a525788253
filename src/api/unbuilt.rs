//! What of `HostConfig` is known in Docker and not built here: refused by the name of its flag, never dropped.

use bollard_stubs::models::{HostConfig, HostConfigIsolationEnum};

use crate::daemon::refusal::Refusal;

/// Refuses the first option that would change what a container does and is not built.
pub(crate) fn refuse(host: &HostConfig) -> Result<(), Refusal> {
    foreign(host)?;
    device_driver(host)?;
    let mut found = limits(host).into_iter().chain(namespaces(host));
    match found.find(|(asked, _)| *asked) {
        Some((_, flag)) => Err(Refusal::unsupported(format!("not built: {flag}"))),
        None => Ok(()),
    }
}

/// Whether each is asked for, and its flag.
type Asked<const N: usize> = [(bool, &'static str); N];

fn limits(host: &HostConfig) -> Asked<2> {
    [
        (nonzero(host.kernel_memory_tcp), "kernel memory limits"),
        (map(&host.storage_opt), "--storage-opt"),
    ]
}

fn namespaces(host: &HostConfig) -> Asked<2> {
    let mode = |mode: &Option<String>, known: &[&str]| {
        mode.as_deref().is_some_and(|mode| !known.contains(&mode))
    };
    [
        // Without user namespaces every container is in the host's.
        (mode(&host.userns_mode, &["", "host"]), "--userns"),
        (text(&host.cgroup), "a cgroup shared with another container"),
    ]
}

/// Refuses what no daemon on Linux does, or this one's runtime has not, in the words of Docker's.
fn foreign(host: &HostConfig) -> Result<(), Refusal> {
    let runtime = host.runtime.as_deref().unwrap_or_default();
    if !["", "nuncio"].contains(&runtime) {
        let message = format!("unknown or invalid runtime name: {runtime}");
        return Err(Refusal::invalid(message));
    }
    let wrong = match host.isolation {
        None | Some(HostConfigIsolationEnum::EMPTY | HostConfigIsolationEnum::DEFAULT) => None,
        Some(other) => Some(format!("invalid isolation '{other}' on linux")),
    };
    let quality = [
        (host.io_maximum_bandwidth, "--io-maxbandwidth"),
        (host.io_maximum_iops, "--io-maxiops"),
        (host.cpu_count, "--cpu-count"),
        (host.cpu_percent, "--cpu-percent"),
    ];
    let quality = quality.into_iter().find(|(asked, _)| nonzero(*asked));
    let quality =
        quality.map(|(_, flag)| format!("invalid QoS settings: linux does not support {flag}"));
    match wrong.or(quality) {
        Some(message) => Err(Refusal::invalid(message)),
        None => Ok(()),
    }
}

/// `--gpus` and its kin ask for a driver, and there is none.
fn device_driver(host: &HostConfig) -> Result<(), Refusal> {
    let Some(asked) = host.device_requests.iter().flatten().next() else {
        return Ok(());
    };
    let sets = asked.capabilities.iter().flatten();
    let sets: Vec<String> = sets.map(|set| format!("[{}]", set.join(" "))).collect();
    Err(Refusal::unsupported(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        asked.driver.as_deref().unwrap_or_default(),
        sets.join(" ")
    )))
}

fn nonzero(value: Option<i64>) -> bool {
    value.is_some_and(|value| value != 0)
}

fn text(value: &Option<String>) -> bool {
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
        let refused = |host| refuse(&parse(host)).expect_err("not built");
        for (host, flag) in [
            (json!({"StorageOpt": {"size": "10G"}}), "--storage-opt"),
            (json!({"UsernsMode": "auto"}), "--userns"),
        ] {
            let error = refused(host);
            assert_eq!(error.kind, RefusalKind::Unsupported);
            assert_eq!(error.message, format!("not built: {flag}"));
        }
        for (host, message) in [
            (
                json!({"Runtime": "kata"}),
                "unknown or invalid runtime name: kata",
            ),
            (
                json!({"Isolation": "hyperv"}),
                "invalid isolation 'hyperv' on linux",
            ),
            (
                json!({"CpuCount": 2}),
                "invalid QoS settings: linux does not support --cpu-count",
            ),
            (
                json!({"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}),
                "could not select device driver \"\" with capabilities: [[gpu]]",
            ),
        ] {
            assert_eq!(refused(host).message, message);
        }
    }
}
