//! What groups of cgroup v1 count: each controller has a hierarchy of its own.

use std::collections::BTreeMap;

use super::{CpuStats, Group, IoStats, MemoryStats, device};

/// Units of processor time in a second, as the kernel counts for user space on every architecture we build for.
const TICKS: u64 = 100;

pub(super) fn cpu(accounts: &Group, limits: &Group) -> CpuStats {
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

pub(super) fn memory(group: &Group) -> MemoryStats {
    MemoryStats {
        usage: group.number("memory.usage_in_bytes"),
        most: Some(group.number("memory.max_usage_in_bytes")),
        limit: group.limit("memory.limit_in_bytes"),
        failures: group.number("memory.failcnt"),
        refused: None,
        details: group.map("memory.stat"),
    }
}

pub(super) fn io(group: &Group) -> Vec<IoStats> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_devices() {
        let v1 = "8:16 Read 4096\n8:16 Write 512\n8:16 Sync 1\n8:16 Total 4608\nTotal 4608\n";
        let device = (8, 16);
        assert_eq!(v1_lines(v1), [(device, true, 4096), (device, false, 512)]);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z:= \\n]{0,64}") {
            let _ = v1_lines(&text);
        }
    }
}
