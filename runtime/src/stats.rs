//! What a container takes of the machine, as its cgroups count it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroups::Layout;
use crate::plan::Plan;

/// Units of processor time in a second, as the kernel counts for user space on every architecture we build for.
const TICKS: u64 = 100;

/// What a container takes, or has taken since it began. What this machine does not count is zero.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads, and how many there may be; `None` is no limit.
    pub pids: (u64, Option<u64>),
    /// Reads and writes of block devices.
    pub io: Vec<IoStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// Outside the kernel.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By processor; empty where the kernel does not say.
    pub each: Vec<u64>,
    /// Periods in which a limit held.
    pub periods: u64,
    /// Those in which it was reached.
    pub throttled_periods: u64,
    /// For how long it was then kept from running.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemoryStats {
    /// What is charged to it, caches included.
    pub usage: u64,
    /// The most there was.
    pub most: u64,
    /// `None` is no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// The kernel's `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// What was read from and written to a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IoStats {
    /// Its number.
    pub device: (u64, u64),
    /// Bytes read and written.
    pub bytes: (u64, u64),
    /// Requests to read and to write.
    pub requests: (u64, u64),
}

/// Counts what the container of `run_dir` takes.
///
/// # Errors
///
/// What the kernel says when the container is not there.
pub fn stats(run_dir: &Path) -> io::Result<Stats> {
    let plan = Plan::load(run_dir)?;
    let layout = Layout::detect();
    let group = |controller: &str| Group(layout.group(controller, &plan.cgroup));
    let unified = layout == Layout::Unified;
    if group("memory").0.is_none_or(|path| !path.exists()) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no memory cgroup {}", plan.cgroup.display()),
        ));
    }
    let pids = group("pids");
    Ok(Stats {
        cpu: if unified {
            cpu_v2(&group("cpu"))
        } else {
            cpu_v1(&group("cpuacct"), &group("cpu"))
        },
        memory: if unified {
            memory_v2(&group("memory"))
        } else {
            memory_v1(&group("memory"))
        },
        pids: (pids.number("pids.current"), pids.limit("pids.max")),
        io: if unified {
            io_v2(&group("io").text("io.stat"))
        } else {
            io_v1(&group("blkio"))
        },
    })
}

/// The numbers of the processes of the container of `run_dir`.
///
/// # Errors
///
/// What the kernel says when there is no such container.
pub fn processes(run_dir: &Path) -> io::Result<Vec<u32>> {
    let plan = Plan::load(run_dir)?;
    let found = crate::cgroups::processes(&plan.cgroup);
    Ok(found.into_iter().map(i32::cast_unsigned).collect())
}

/// A group in one hierarchy, if that is there; what cannot be read reads as nothing.
struct Group(Option<PathBuf>);

impl Group {
    fn text(&self, file: &str) -> String {
        let path = self.0.as_ref().map(|group| group.join(file));
        path.and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default()
    }

    fn number(&self, file: &str) -> u64 {
        self.text(file).trim().parse().unwrap_or_default()
    }

    /// `max` is no limit, and so is v1's largest number of pages.
    fn limit(&self, file: &str) -> Option<u64> {
        let limit: u64 = self.text(file).trim().parse().ok()?;
        (limit < 1 << 62).then_some(limit)
    }

    fn map(&self, file: &str) -> BTreeMap<String, u64> {
        map(&self.text(file))
    }
}

/// Lines of a name and a number.
fn map(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn cpu_v1(accounts: &Group, limits: &Group) -> CpuStats {
    let (times, throttling) = (accounts.map("cpuacct.stat"), limits.map("cpu.stat"));
    let get = |map: &BTreeMap<String, u64>, name| map.get(name).copied().unwrap_or_default();
    let nanos = |ticks: u64| ticks.saturating_mul(1_000_000_000 / TICKS);
    CpuStats {
        total: accounts.number("cpuacct.usage"),
        user: nanos(get(&times, "user")),
        system: nanos(get(&times, "system")),
        each: accounts
            .text("cpuacct.usage_percpu")
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect(),
        periods: get(&throttling, "nr_periods"),
        throttled_periods: get(&throttling, "nr_throttled"),
        throttled: get(&throttling, "throttled_time"),
    }
}

fn cpu_v2(group: &Group) -> CpuStats {
    let found = group.map("cpu.stat");
    let get = |name| found.get(name).copied().unwrap_or_default();
    let nanos = |name| get(name).saturating_mul(1000);
    CpuStats {
        total: nanos("usage_usec"),
        user: nanos("user_usec"),
        system: nanos("system_usec"),
        each: Vec::new(),
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled: nanos("throttled_usec"),
    }
}

fn memory_v1(group: &Group) -> MemoryStats {
    MemoryStats {
        usage: group.number("memory.usage_in_bytes"),
        most: group.number("memory.max_usage_in_bytes"),
        limit: group.limit("memory.limit_in_bytes"),
        failures: group.number("memory.failcnt"),
        details: group.map("memory.stat"),
    }
}

fn memory_v2(group: &Group) -> MemoryStats {
    let events = group.map("memory.events");
    MemoryStats {
        usage: group.number("memory.current"),
        most: group.number("memory.peak"),
        limit: group.limit("memory.max"),
        failures: events.get("max").copied().unwrap_or_default(),
        details: group.map("memory.stat"),
    }
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn io_v1(group: &Group) -> Vec<IoStats> {
    let mut found = BTreeMap::<(u64, u64), IoStats>::new();
    let mut take = |file: &str, set: fn(&mut IoStats) -> &mut (u64, u64)| {
        for (device, is_read, number) in v1_lines(&group.text(file)) {
            let stats = found.entry(device).or_default();
            stats.device = device;
            let (read, written) = set(stats);
            *(if is_read { read } else { written }) = number;
        }
    };
    take("blkio.throttle.io_service_bytes_recursive", |stats| {
        &mut stats.bytes
    });
    take("blkio.throttle.io_serviced_recursive", |stats| {
        &mut stats.requests
    });
    found.into_values().collect()
}

/// The lines `8:0 Read 4096` and `8:0 Write 0`; others are sums of these.
fn v1_lines(text: &str) -> Vec<((u64, u64), bool, u64)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let device = device(words.next()?)?;
        let is_read = match words.next()? {
            "Read" => true,
            "Write" => false,
            _ => return None,
        };
        Some((device, is_read, words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io_v2(text: &str) -> Vec<IoStats> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut stats = IoStats {
            device: device(words.next()?)?,
            ..IoStats::default()
        };
        for (name, number) in words.filter_map(|word| word.split_once('=')) {
            let number = number.parse().ok()?;
            match name {
                "rbytes" => stats.bytes.0 = number,
                "wbytes" => stats.bytes.1 = number,
                "rios" => stats.requests.0 = number,
                "wios" => stats.requests.1 = number,
                _ => {}
            }
        }
        Some(stats)
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_both_versions_say_the_same() {
        let expected = [IoStats {
            device: (8, 16),
            bytes: (4096, 512),
            requests: (1, 2),
        }];
        let v2 = "8:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n";
        assert_eq!(io_v2(v2), expected);
        let v1 = "8:16 Read 4096\n8:16 Write 512\n8:16 Sync 1\n8:16 Total 4608\nTotal 4608\n";
        let device = (8, 16);
        assert_eq!(v1_lines(v1), [(device, true, 4096), (device, false, 512)]);
        assert_eq!(map("user 3\nsystem 4\n")["system"], 4);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z:= \\n]{0,64}") {
            let _ = (io_v2(&text), v1_lines(&text), map(&text));
        }
    }
}
