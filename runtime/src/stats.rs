//! What a container takes of the machine, as its cgroups count it.

mod v1;
mod v2;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroups::Layout;
use crate::plan::Plan;

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
    /// For how long it waited; `None` where the kernel does not count that.
    pub pressure: Pressure,
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
    /// The most there was; `None` with cgroup v2, as Docker has it.
    pub most: Option<u64>,
    /// `None` is no limit.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// How often memory was then refused, as nothing could be given back; `None` with cgroup v1, which does not tell.
    pub refused: Option<u64>,
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

/// For how long a container waited for what was scarce (the kernel's pressure stall information).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Option<Stall>,
    /// For memory.
    pub memory: Option<Stall>,
    /// For disks.
    pub io: Option<Stall>,
}

/// Nanoseconds of waiting, since the container began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stall {
    /// While at least one task waited.
    pub waiting: u64,
    /// While all that were not idle did.
    pub stalled: u64,
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
    if group("memory").0.is_none_or(|path| !path.exists()) {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no memory cgroup {}", plan.cgroup.display()),
        ));
    }
    if layout == Layout::Unified {
        return Ok(v2::stats(&group("memory")));
    }
    Ok(Stats {
        cpu: v1::cpu(&group("cpuacct"), &group("cpu")),
        memory: v1::memory(&group("memory")),
        pids: pids(&group("pids")),
        io: v1::io(&group("blkio")),
        // Hybrids have it in the hierarchy of cgroup2, where the container's processes are, too.
        pressure: pressure(&Group(layout.cgroup2(&plan.cgroup))),
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

fn pids(group: &Group) -> (u64, Option<u64>) {
    (group.number("pids.current"), group.limit("pids.max"))
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Of a group of cgroup2: files are there if the kernel was built for it, and can be read unless it was started with `psi=0`.
fn pressure(group: &Group) -> Pressure {
    Pressure {
        cpu: stall(&group.text("cpu.pressure")),
        memory: stall(&group.text("memory.pressure")),
        io: stall(&group.text("io.pressure")),
    }
}

/// Of the lines `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and `full …`, in microseconds. Old kernels have no
/// `full` of processors.
fn stall(text: &str) -> Option<Stall> {
    let total = |kind: &str| {
        let mut lines = text.lines();
        let line = lines.find(|line| line.split(' ').next() == Some(kind))?;
        let number = line
            .split(' ')
            .find_map(|word| word.strip_prefix("total="))?;
        Some(number.parse::<u64>().ok()?.saturating_mul(1000))
    };
    Some(Stall {
        waiting: total("some")?,
        stalled: total("full").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure_is_told_where_the_kernel_counts_it() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.30 total=1200\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let expected = Stall {
            waiting: 1_200_000,
            stalled: 7_000,
        };
        assert_eq!(stall(text), Some(expected));
        let processors = "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let stalled = stall(processors).map(|stall| (stall.waiting, stall.stalled));
        assert_eq!(stalled, Some((3000, 0)), "of a kernel before 5.13");
        assert_eq!(stall(""), None);
        assert_eq!(map("user 3\nsystem 4\n")["system"], 4);
        let nowhere = Group(None);
        assert_eq!(pressure(&nowhere), Pressure::default());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z:= \\n]{0,64}") {
            let _ = (map(&text), stall(&text));
        }
    }
}
