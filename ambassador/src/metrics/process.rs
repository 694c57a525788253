//! Figures of the process itself, under the names that all exporters use.

use std::fmt;
use std::fs;
use std::io;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};

use super::family::Family;

/// Reads `/proc/self` when it is asked; what cannot be read is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let mut gauge = |name, help, unit, value: Option<u64>| match value {
            Some(value) => {
                Family::new(&mut encoder, name, help, unit, MetricType::Gauge)?.write(&[], value)
            }
            None => Ok(()),
        };
        let help = "Open file descriptors";
        gauge("process_open_fds", help, None, open_fds().ok())?;
        let help = "File descriptors that may be open";
        gauge("process_max_fds", help, None, max_fds())?;
        let (virtual_size, resident) = memory().ok().flatten().unzip();
        let help = "Memory that is in use";
        gauge("process_resident_memory", help, bytes, resident)?;
        let help = "Address space that is in use";
        gauge("process_virtual_memory", help, bytes, virtual_size)?;
        let Some(times) = times().ok().flatten() else {
            return Ok(());
        };
        let help = "When the process began, since 1970";
        let name = "process_start_time";
        let mut began = Family::new(&mut encoder, name, help, seconds, MetricType::Gauge)?;
        began.write_fraction(&[], times.began)?;
        let help = "Time that processors have spent, in user space and in the kernel";
        Family::counter(&mut encoder, "process_cpu", help, seconds)?
            .write_fraction(&[], times.processor)
    }
}

/// Not counting the one that looks.
fn open_fds() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64)
}

/// None if there is no bound.
fn max_fds() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Address space and resident memory, in bytes.
fn memory() -> io::Result<Option<(u64, u64)>> {
    Ok(parse_memory(&fs::read_to_string("/proc/self/statm")?))
}

fn parse_memory(statm: &str) -> Option<(u64, u64)> {
    let mut fields = statm.split_ascii_whitespace();
    let mut next = || Some(fields.next()?.parse::<u64>().ok()? * page_size() as u64);
    Some((next()?, next()?))
}

/// In seconds.
#[derive(Debug, PartialEq)]
struct Times {
    /// Since 1970.
    began: f64,
    processor: f64,
}

fn times() -> io::Result<Option<Times>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let system = fs::read_to_string("/proc/stat")?;
    Ok(parse_times(&stat, &system, clock_ticks_per_second() as f64))
}

fn parse_times(stat: &str, system: &str, ticks: f64) -> Option<Times> {
    // The second field is the name, in parentheses, and may hold anything.
    let after_name = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // proc_pid_stat(5) counts from 1; the first field here is its third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let (user, kernel, began) = (field(14)?, field(15)?, field(22)?);
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "));
    let boot: u64 = boot?.trim().parse().ok()?;
    Some(Times {
        began: boot as f64 + began as f64 / ticks,
        processor: (user + kernel) as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 12345 0 0";
        let system = "cpu  1 2 3\nbtime 1000000000\nprocesses 9\n";
        let times = parse_times(stat, system, 100.0).unwrap();
        assert_eq!(
            times,
            Times {
                began: 1_000_000_123.45,
                processor: 3.0
            }
        );
        assert_eq!(parse_times("7 (a) S 1", system, 100.0), None);
        assert_eq!(parse_times(stat, "cpu 1", 100.0), None);
    }

    #[test]
    fn this_process_has_all_figures() {
        assert!(open_fds().unwrap() >= 3);
        let (virtual_size, resident) = memory().unwrap().unwrap();
        assert!(resident > 0 && virtual_size >= resident);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let times = times().unwrap().unwrap();
        let age = now.as_secs_f64() - times.began;
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
