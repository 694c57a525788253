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

/// Takes the weights away, for a kernel that has none; in Docker's words what was.
pub(super) fn without_weights(disks: &mut DiskLimits) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut discard = |what: &str, shown: &str| {
        warnings.push(format!(
            "Your kernel does not support Block I/O {what} or the cgroup is not mounted. {shown} discarded."
        ));
    };
    if disks.weight != 0 {
        discard("weight", "Weight");
        disks.weight = 0;
    }
    if !disks.weights.is_empty() {
        discard("weight_device", "Weight-device");
        disks.weights.clear();
    }
    warnings
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_the_kernel_has_not_are_discarded_and_told() {
        let mut disks = DiskLimits {
            weight: 300,
            weights: vec![("/dev/sda".to_owned(), 20)],
            read_bps: vec![("/dev/sda".to_owned(), 1024)],
            ..DiskLimits::default()
        };
        let warnings = without_weights(&mut disks);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].ends_with(" Weight discarded."), "{warnings:?}");
        assert_eq!((disks.weight, disks.weights.len()), (0, 0));
        assert_eq!(disks.read_bps.len(), 1, "a rate is no weight");
        assert!(without_weights(&mut disks).is_empty());
    }
}
