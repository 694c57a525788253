//! The limits of a container, as the runtime is told of them.

use std::path::PathBuf;

use nuncio_runtime::{Resources, Throttle, Throttled};

use super::config::{DiskLimits, HostOptions};
use super::refusal::Refusal;

pub(super) fn resources(host: &HostOptions) -> Resources {
    let some = |value: i64| (value != 0).then_some(value);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    Resources {
        memory: some(host.memory),
        memory_swap: some(host.memory_swap),
        nano_cpus: some(host.nano_cpus),
        cpu_shares: u64::try_from(host.cpu_shares)
            .ok()
            .filter(|shares| *shares != 0),
        cpu_period: some(host.cpu_period),
        cpu_quota: some(host.cpu_quota),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        memory_reservation: some(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.map(u64::from),
        oom_kill_disable: host.oom_kill_disable,
        pids_limit: some(host.pids_limit).filter(|limit| *limit > 0),
        blkio_weight: (host.disks.weight != 0).then_some(host.disks.weight),
        blkio_weight_devices: weights(&host.disks),
        throttles: throttles(&host.disks),
        cpu_rt_period: some(host.cpu_rt_period),
        cpu_rt_runtime: some(host.cpu_rt_runtime),
    }
}

fn weights(disks: &DiskLimits) -> Vec<(PathBuf, u16)> {
    let weights = disks.weights.iter();
    weights
        .map(|(disk, weight)| (disk.into(), *weight))
        .collect()
}

fn throttles(disks: &DiskLimits) -> Vec<Throttle> {
    let all = [
        (&disks.read_bps, Throttled::ReadBytes),
        (&disks.write_bps, Throttled::WriteBytes),
        (&disks.read_iops, Throttled::Reads),
        (&disks.write_iops, Throttled::Writes),
    ];
    let throttle = |(disk, rate): &(String, u64), what| Throttle {
        disk: disk.into(),
        what,
        rate: *rate,
    };
    all.into_iter()
        .flat_map(|(rates, what)| rates.iter().map(move |rate| throttle(rate, what)))
        .collect()
}

/// What a container asks for of the kernel's real-time scheduler, in microseconds; 0 is nothing.
///
/// # Errors
///
/// Docker's words for what does not go together, or is not to be had.
pub(crate) fn check_real_time(period: i64, runtime: i64) -> Result<(), Refusal> {
    if period < 0 || runtime < 0 {
        return Err(Refusal::invalid(
            "cpu real-time period and runtime can not be less than 0",
        ));
    }
    if period != 0 && runtime > period {
        return Err(Refusal::invalid(
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ));
    }
    if (period != 0 || runtime != 0) && !nuncio_runtime::schedules_real_time() {
        return Err(Refusal::invalid(
            "kernel does not support CPU real-time scheduler",
        ));
    }
    Ok(())
}
