//! `HostConfig`, made into the daemon's own options or refused.

use std::net::IpAddr;

use bollard_stubs::models::{
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits,
};

use super::container_create::sorted;
use super::{disk_limits, mounts, ports, restart_policy, rights, unbuilt};
use crate::daemon::config::{HostOptions, LinkRequest, NetworkMode, RestartPolicy, Ulimit};
use crate::daemon::limits::check_real_time;
use crate::daemon::refusal::Refusal;

/// The least memory that lets a process start at all.
const LEAST_MEMORY: i64 = 6 << 20;

pub(crate) fn host_options(mut host: HostConfig) -> Result<HostOptions, Refusal> {
    unbuilt::refuse(&host)?;
    let disks = disk_limits::parse(&mut host)?;
    let security = rights::security(host.security_opt.as_deref().unwrap_or_default())?;
    let volume_driver = host.volume_driver.unwrap_or_default();
    let mounts = mounts::mounts(host.binds, host.mounts, host.tmpfs, &volume_driver)?;
    let log = host.log_config.unwrap_or_default();
    let no_log = log.typ.as_deref() == Some("none");
    let (log_max_size, log_max_file) = match no_log {
        true => (None, None),
        false => log_options(log)?,
    };
    let links = host.links.unwrap_or_default();
    let options = HostOptions {
        mounts: mounts.points,
        volumes_from: host
            .volumes_from
            .iter()
            .flatten()
            .map(|text| mounts::volumes_from(text))
            .collect::<Result<_, _>>()?,
        volume_driver,
        tmpfs: mounts.tmpfs,
        auto_remove: host.auto_remove.unwrap_or_default(),
        restart: restart_policy::policy(host.restart_policy)?,
        privileged: host.privileged.unwrap_or_default(),
        cap_add: host.cap_add.unwrap_or_default(),
        cap_drop: host.cap_drop.unwrap_or_default(),
        read_only: host.readonly_rootfs.unwrap_or_default(),
        init: host.init.unwrap_or_default(),
        seccomp_unconfined: security.seccomp_unconfined,
        publish: ports::bindings(host.port_bindings)?,
        publish_all: host.publish_all_ports.unwrap_or_default(),
        links: links
            .iter()
            .map(|text| link(text))
            .collect::<Result<_, _>>()?,
        network: network_mode(host.network_mode.as_deref().unwrap_or_default())?,
        dns: all(host.dns, "--dns", "an IP address", |text| {
            text.parse::<IpAddr>().is_ok()
        })?,
        dns_search: all(host.dns_search, "--dns-search", "a domain", is_word)?,
        dns_options: all(
            host.dns_options,
            "--dns-option",
            "an option of resolv.conf",
            is_word,
        )?,
        extra_hosts: all(
            host.extra_hosts,
            "--add-host",
            "NAME:ADDRESS, or NAME:host-gateway",
            is_extra_host,
        )?,
        memory: host.memory.unwrap_or_default(),
        memory_swap: host.memory_swap.unwrap_or_default(),
        nano_cpus: host.nano_cpus.unwrap_or_default(),
        cpu_shares: host.cpu_shares.unwrap_or_default(),
        pids_limit: host.pids_limit.unwrap_or_default(),
        ulimits: host
            .ulimits
            .unwrap_or_default()
            .into_iter()
            .map(ulimit)
            .collect::<Result<_, _>>()?,
        sysctls: sorted(host.sysctls),
        memory_reservation: host.memory_reservation.unwrap_or_default(),
        memory_swappiness: swappiness(host.memory_swappiness)?,
        oom_kill_disable: host.oom_kill_disable.unwrap_or_default(),
        cpu_period: host.cpu_period.unwrap_or_default(),
        cpu_quota: host.cpu_quota.unwrap_or_default(),
        cpuset_cpus: host.cpuset_cpus.unwrap_or_default(),
        cpuset_mems: host.cpuset_mems.unwrap_or_default(),
        cpu_rt_period: host.cpu_realtime_period.unwrap_or_default(),
        cpu_rt_runtime: host.cpu_realtime_runtime.unwrap_or_default(),
        disks,
        cgroup_parent: rights::cgroup_parent(host.cgroup_parent.as_deref().unwrap_or_default())?,
        annotations: annotations(host.annotations)?,
        shm_size: rights::shm_size(host.shm_size)?,
        devices: rights::devices(host.devices)?,
        device_rules: rights::device_rules(host.device_cgroup_rules)?,
        group_add: host.group_add.unwrap_or_default(),
        pid: rights::pid(host.pid_mode.as_deref().unwrap_or_default())?,
        ipc: rights::ipc(host.ipc_mode.as_deref().unwrap_or_default())?,
        host_uts: rights::host_uts(host.uts_mode.as_deref().unwrap_or_default())?,
        host_cgroups: host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST),
        no_new_privileges: security.no_new_privileges,
        masked_paths: host.masked_paths,
        readonly_paths: host.readonly_paths,
        no_log,
        oom_score_adj: oom_score_adj(host.oom_score_adj.unwrap_or_default())?,
        log_max_size,
        log_max_file,
    };
    check_limits(&options)?;
    if options.auto_remove && options.restart != RestartPolicy::No {
        return Err(Refusal::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(options)
}

fn annotations(
    asked: Option<std::collections::HashMap<String, String>>,
) -> Result<std::collections::BTreeMap<String, String>, Refusal> {
    let annotations = sorted(asked);
    match annotations.contains_key("") {
        true => Err(Refusal::invalid(
            "invalid Annotations: the empty string is not permitted as an annotation key",
        )),
        false => Ok(annotations),
    }
}

fn check_limits(options: &HostOptions) -> Result<(), Refusal> {
    check_real_time(options.cpu_rt_period, options.cpu_rt_runtime)?;
    let (memory, swap) = (options.memory, options.memory_swap);
    let wrong = if memory != 0 && memory < LEAST_MEMORY {
        format!("Minimum memory limit allowed is 6MB, not {memory} bytes")
    } else if swap < -1 {
        format!("invalid --memory-swap {swap}: expected bytes, or -1 for no limit")
    } else if swap > 0 && memory == 0 {
        "You should always set the Memory limit when using Memoryswap limit, see usage".to_owned()
    } else if swap > 0 && swap < memory {
        "Minimum memoryswap limit should be larger than memory limit, see usage".to_owned()
    } else if options.nano_cpus < 0 {
        "invalid --cpus: range of CPUs is from 0.01".to_owned()
    } else if options.nano_cpus > 0 && options.cpu_period != 0 {
        "Conflicting options: Nano CPUs and CPU Period cannot both be set.".to_owned()
    } else if options.nano_cpus > 0 && options.cpu_quota != 0 {
        "Conflicting options: Nano CPUs and CPU Quota cannot both be set.".to_owned()
    } else if options.cpu_period != 0 && !(1_000..=1_000_000).contains(&options.cpu_period) {
        "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
            .to_owned()
    } else if options.cpu_quota > 0 && options.cpu_quota < 1_000 {
        "CPU cfs quota can not be less than 1ms (i.e. 1000)".to_owned()
    } else if memory > 0 && options.memory_reservation > memory {
        "Minimum memory limit can not be less than memory reservation limit, see usage".to_owned()
    } else if options.memory_reservation != 0 && options.memory_reservation < LEAST_MEMORY {
        "Minimum memory reservation allowed is 6MB".to_owned()
    } else if let Some(wrong) = [&options.cpuset_cpus, &options.cpuset_mems]
        .into_iter()
        .find(|text| !is_cpuset(text))
    {
        format!("Invalid value {wrong} for cpuset")
    } else if options.cpu_shares != 0 && !(2..=262_144).contains(&options.cpu_shares) {
        format!(
            "invalid --cpu-shares {}: expected 2 to 262144",
            options.cpu_shares
        )
    } else if let Some(key) = options.sysctls.keys().find(|key| !is_sysctl(key)) {
        format!("invalid --sysctl {key:?}: expected a name such as net.core.somaxconn")
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(wrong))
}

/// `0-2,5`; empty is all.
fn is_cpuset(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    text.is_empty()
        || text.split(',').all(|part| match part.split_once('-') {
            Some((first, last)) => number(first).zip(number(last)).is_some_and(|(a, b)| a <= b),
            None => number(part).is_some(),
        })
}

/// -1 is the kernel's own.
fn swappiness(asked: Option<i64>) -> Result<Option<u8>, Refusal> {
    match asked {
        None | Some(-1) => Ok(None),
        Some(value @ 0..=100) => Ok(u8::try_from(value).ok()),
        Some(value) => Err(Refusal::invalid(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        ))),
    }
}

fn network_mode(text: &str) -> Result<NetworkMode, Refusal> {
    Ok(match text {
        "" | "default" | "bridge" => NetworkMode::Default,
        "none" => NetworkMode::None,
        "host" => NetworkMode::Host,
        _ => match text.split_once(':') {
            Some(("container", other)) if !other.is_empty() => {
                NetworkMode::Container(other.to_owned())
            }
            Some(("container", _)) => {
                let message = "invalid network mode: invalid container format container:<name|id>";
                return Err(Refusal::invalid(message));
            }
            _ => NetworkMode::Named(text.to_owned()),
        },
    })
}

/// `TARGET`, `TARGET:ALIAS`, or `/TARGET:/CONSUMER/ALIAS` as inspect shows it.
pub(crate) fn link(text: &str) -> Result<LinkRequest, Refusal> {
    let invalid = |why: String| Refusal::invalid(format!("invalid --link {text:?}: {why}"));
    let (target, alias) = text.split_once(':').unwrap_or((text, text));
    let (target, alias) = match target.strip_prefix('/') {
        Some(target) => (target, alias.rsplit('/').next().unwrap_or_default()),
        None => (target, alias),
    };
    if alias.contains(':') {
        return Err(invalid(format!(
            "bad format for links: {text}: expected NAME or NAME:ALIAS"
        )));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    for (what, name) in [("name", target), ("alias", alias)] {
        if name.is_empty() || !name.bytes().all(allowed) {
            let why = format!(
                "{what} {name:?} is not made of letters, digits, dots, hyphens and underscores"
            );
            return Err(invalid(why));
        }
    }
    Ok(LinkRequest {
        target: target.to_owned(),
        alias: alias.to_owned(),
    })
}

fn ulimit(asked: ResourcesUlimits) -> Result<Ulimit, Refusal> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let name = asked.name.unwrap_or_default();
    if !NAMES.contains(&name.as_str()) {
        return Err(Refusal::invalid(format!(
            "invalid ulimit type: {name}: expected one of {}",
            NAMES.join(", ")
        )));
    }
    let soft = asked.soft.unwrap_or_default();
    let hard = asked.hard.unwrap_or_default();
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(Refusal::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}: for {name}"
        )));
    }
    Ok(Ulimit { name, soft, hard })
}

fn oom_score_adj(value: i64) -> Result<i32, Refusal> {
    let wrong = || {
        Refusal::invalid(format!(
            "Invalid value {value}, range for oom score adj is [-1000, 1000]"
        ))
    };
    i32::try_from(value)
        .ok()
        .filter(|value| (-1000..=1000).contains(value))
        .ok_or_else(wrong)
}

fn log_options(log: HostConfigLogConfig) -> Result<(Option<u64>, Option<u32>), Refusal> {
    let driver = log.typ.unwrap_or_default();
    if !driver.is_empty() && driver != "json-file" {
        return Err(Refusal::unsupported(format!(
            "not built: --log-driver {driver}; only json-file and none"
        )));
    }
    let (mut size, mut files) = (None, None);
    for (key, value) in log.config.unwrap_or_default() {
        let wrong = || {
            Refusal::invalid(format!(
                "invalid --log-opt {key}={value}: expected a positive number"
            ))
        };
        match key.as_str() {
            "max-size" => size = Some(bytes(&value).ok_or_else(wrong)?),
            "max-file" => {
                files = Some(
                    value
                        .parse()
                        .ok()
                        .filter(|&count| count > 0)
                        .ok_or_else(wrong)?,
                );
            }
            "mode" if value == "blocking" => {}
            "compress" | "env" | "env-regex" | "labels" | "labels-regex" | "max-buffer-size"
            | "mode" | "tag" => {
                return Err(Refusal::unsupported(format!(
                    "not built: --log-opt {key}; only max-size and max-file"
                )));
            }
            _ => {
                return Err(Refusal::invalid(format!(
                    "unknown log opt '{key}' for json-file log driver"
                )));
            }
        }
    }
    if size.is_none() && files.is_some_and(|files| files > 1) {
        return Err(Refusal::invalid(
            "max-file cannot be set when max-size is not set",
        ));
    }
    Ok((size, files))
}

/// `10m`, `1g`, `500`: bytes, in powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let shift = match lower.as_bytes().last()? {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => 0,
    };
    let digits = if shift == 0 {
        lower
    } else {
        &lower[..lower.len() - 1]
    };
    digits
        .parse::<u64>()
        .ok()
        .filter(|&number| number > 0)?
        .checked_mul(1 << shift)
}

fn all(
    list: Option<Vec<String>>,
    flag: &str,
    expected: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Refusal> {
    let list = list.unwrap_or_default();
    match list.iter().find(|text| !is_right(text)) {
        Some(wrong) => Err(Refusal::invalid(format!(
            "invalid {flag} {wrong:?}: expected {expected}"
        ))),
        None => Ok(list),
    }
}

/// Such words become part of a line of a file in the container.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn is_extra_host(text: &str) -> bool {
    let Some((name, address)) = text.split_once(':') else {
        return false;
    };
    is_word(name) && (address == "host-gateway" || address.parse::<IpAddr>().is_ok())
}

fn is_sysctl(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    key.contains('.')
        && !key.contains("..")
        && !key.starts_with(['.', '/'])
        && key.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
