//! Changes the limits of a container that runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::bundle::resources::{CPU_PERIOD, quota};
use crate::cgroups::Layout;
use crate::group_values;
use crate::plan::Plan;
use crate::spec::Resources;

/// A value for a file of a group.
type Write = (PathBuf, String);

/// Gives the container of `run_dir` these limits; `None` in them leaves what is. Other limits than those of memory,
/// processors, processes and disks are as they were.
///
/// # Errors
///
/// The first file that did not take its value, by its path; those before it have theirs.
pub fn update(run_dir: &Path, limits: &Resources) -> io::Result<()> {
    let plan = Plan::load(run_dir)?;
    let layout = Layout::detect();
    let writes = if layout == Layout::Unified {
        let group = layout.group("memory", &plan.cgroup);
        v2(&group.unwrap_or_default(), limits)
    } else {
        let group = |controller: &str| layout.group(controller, &plan.cgroup).unwrap_or_default();
        let mut writes = v1_memory(&group("memory"), limits);
        writes.extend(v1_cpu(&group("cpu"), &group("cpuset"), limits));
        writes.extend(pids(&group("pids"), limits));
        writes
    };
    for (path, value) in writes {
        fs::write(&path, &value).map_err(|error| {
            let text = format!("write {value} to {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
    }
    let values = group_values::of(limits).map_err(|(path, error)| {
        let text = format!("limit the use of disk {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })?;
    group_values::write(&values, &plan.cgroup)
}

/// Memory may never be above memory and swap together, so what grows is written first.
fn v1_memory(group: &Path, limits: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    let (memory_file, swap_file) = (
        group.join("memory.limit_in_bytes"),
        group.join("memory.memsw.limit_in_bytes"),
    );
    let swap = limits.memory_swap.filter(|_| swap_file.exists());
    let memory = limits
        .memory
        .map(|bytes| (memory_file.clone(), bytes.to_string()));
    let now = fs::read_to_string(&swap_file).unwrap_or_default();
    let now: i64 = now.trim().parse().unwrap_or(i64::MAX);
    match swap {
        Some(bytes) if bytes == -1 || bytes > now => {
            writes.push((swap_file, bytes.to_string()));
            writes.extend(memory);
        }
        Some(bytes) => {
            writes.extend(memory);
            writes.push((swap_file, bytes.to_string()));
        }
        None => writes.extend(memory),
    }
    let soft = limits.memory_reservation;
    writes.extend(soft.map(|bytes| (group.join("memory.soft_limit_in_bytes"), bytes.to_string())));
    writes
}

fn v1_cpu(cpu: &Path, cpuset: &Path, limits: &Resources) -> Vec<Write> {
    let (period, quota) = quota(limits);
    let numbers = [
        (
            cpu.join("cpu.shares"),
            limits.cpu_shares.map(|shares| shares.to_string()),
        ),
        (
            cpu.join("cpu.cfs_period_us"),
            period.map(|period| period.to_string()),
        ),
        (
            cpu.join("cpu.cfs_quota_us"),
            quota.map(|quota| quota.to_string()),
        ),
        (cpuset.join("cpuset.cpus"), limits.cpuset_cpus.clone()),
        (cpuset.join("cpuset.mems"), limits.cpuset_mems.clone()),
    ];
    let some = |(path, value): (PathBuf, Option<String>)| value.map(|value| (path, value));
    numbers.into_iter().filter_map(some).collect()
}

fn pids(group: &Path, limits: &Resources) -> Option<Write> {
    let limit = limits.pids_limit?;
    Some((group.join("pids.max"), bound(limit)))
}

/// Zero and less are no bound.
fn bound(limit: i64) -> String {
    match limit {
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    }
}

fn v2(group: &Path, limits: &Resources) -> Vec<Write> {
    let (period, quota) = quota(limits);
    let max = (period.is_some() || quota.is_some()).then(|| {
        let quota = quota.map_or_else(|| "max".to_owned(), bound);
        format!("{quota} {}", period.unwrap_or(CPU_PERIOD))
    });
    // what v1 counts together stands apart here
    let swap = match (limits.memory, limits.memory_swap) {
        (_, Some(-1)) => Some("max".to_owned()),
        (Some(memory), Some(both)) => Some((both - memory).max(0).to_string()),
        _ => None,
    };
    let values = [
        ("memory.swap.max", swap),
        ("memory.max", limits.memory.map(bound)),
        (
            "memory.low",
            limits.memory_reservation.map(|bytes| bytes.to_string()),
        ),
        ("cpu.weight", limits.cpu_shares.map(weight)),
        ("cpu.max", max),
        ("cpuset.cpus", limits.cpuset_cpus.clone()),
        ("cpuset.mems", limits.cpuset_mems.clone()),
        ("pids.max", limits.pids_limit.map(bound)),
    ];
    let some = |(file, value): (&str, Option<String>)| Some((group.join(file), value?));
    values.into_iter().filter_map(some).collect()
}

/// Shares of v1, from 2 to 262144, as a weight of v2, from 1 to 10000; as libcontainer has it at the start.
fn weight(shares: u64) -> String {
    let shares = shares.clamp(2, 262_144);
    (1 + (shares - 2) * 9999 / 262_142).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(writes: Vec<Write>) -> Vec<String> {
        let line = |(path, value): Write| format!("{}={value}", path.display());
        writes.into_iter().map(line).collect()
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        let limits = Resources::default();
        assert_eq!(values(v2(Path::new(""), &limits)), [""; 0]);
        assert_eq!(
            values(v1_cpu(Path::new("c"), Path::new("s"), &limits)),
            [""; 0]
        );
        assert_eq!(values(v1_memory(Path::new("m"), &limits)), [""; 0]);
    }

    #[test]
    fn limits_have_their_files_in_both_versions() {
        let limits = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            nano_cpus: Some(1_500_000_000),
            cpu_shares: Some(1024),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let expected = [
            "memory.swap.max=33554432",
            "memory.max=67108864",
            "cpu.weight=39",
            "cpu.max=150000 100000",
            "pids.max=max",
        ];
        assert_eq!(values(v2(Path::new(""), &limits)), expected);
        let expected = [
            "c/cpu.shares=1024",
            "c/cpu.cfs_period_us=100000",
            "c/cpu.cfs_quota_us=150000",
        ];
        assert_eq!(
            values(v1_cpu(Path::new("c"), Path::new("s"), &limits)),
            expected
        );
    }
}
