//! What a group of cgroup v2 counts: all controllers have one directory. The kernel's cgroup-v2.rst names the files.

use super::{CpuStats, Group, IoStats, MemoryStats, Stats, device, pids, pressure};

pub(super) fn stats(group: &Group) -> Stats {
    Stats {
        cpu: cpu(group),
        memory: memory(group),
        pids: pids(group),
        io: io(&group.text("io.stat")),
        pressure: pressure(group),
    }
}

fn cpu(group: &Group) -> CpuStats {
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

fn memory(group: &Group) -> MemoryStats {
    let events = group.map("memory.events");
    let event = |name| events.get(name).copied();
    MemoryStats {
        usage: group.number("memory.current"),
        most: None,
        limit: group.limit("memory.max"),
        failures: event("max").unwrap_or_default(),
        refused: event("oom"),
        details: group.map("memory.stat"),
    }
}

/// The lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn io(text: &str) -> Vec<IoStats> {
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
    use std::fs;

    use proptest::prelude::*;

    use super::super::{Pressure, Stall};
    use super::*;

    /// A group with files as the kernel writes them.
    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Group) {
        let directory = tempfile::tempdir().expect("make a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("write a file");
        }
        let group = Group(Some(directory.path().to_owned()));
        (directory, group)
    }

    #[test]
    fn a_group_with_limits() {
        let (_directory, group) = group(&[
            (
                "cpu.stat",
                "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 40\nnr_throttled 4\nthrottled_usec 900\nnr_bursts 0\nburst_usec 0\n",
            ),
            ("memory.current", "4096000\n"),
            ("memory.peak", "9999999\n"),
            ("memory.max", "67108864\n"),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            (
                "memory.stat",
                "anon 1000\nfile 2000\ninactive_file 500\npgfault 3\n",
            ),
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            (
                "io.stat",
                "254:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n254:16 \n",
            ),
            (
                "cpu.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=10\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            ),
            (
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
        ]);
        let stats = stats(&group);
        assert_eq!(
            stats.cpu,
            CpuStats {
                total: 5_000_000,
                user: 3_000_000,
                system: 2_000_000,
                each: Vec::new(),
                periods: 40,
                throttled_periods: 4,
                throttled: 900_000,
            }
        );
        let memory = stats.memory;
        assert_eq!((memory.usage, memory.limit), (4_096_000, Some(64 << 20)));
        assert_eq!(
            (memory.most, memory.failures, memory.refused),
            (None, 17, Some(2))
        );
        assert_eq!(memory.details["inactive_file"], 500);
        assert_eq!(stats.pids, (3, Some(100)));
        assert_eq!(stats.io[0].bytes, (4096, 512));
        assert_eq!(stats.io[0].requests, (1, 2));
        assert_eq!(
            stats.pressure,
            Pressure {
                cpu: Some(Stall {
                    waiting: 10_000,
                    stalled: 5_000
                }),
                memory: Some(Stall::default()),
                io: None,
            }
        );
    }

    #[test]
    fn a_group_without_limits_whose_controllers_are_off() {
        let (_directory, group) = group(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 5\nsystem_usec 0\n"),
            ("memory.max", "max\n"),
            ("pids.max", "max\n"),
        ]);
        let stats = stats(&group);
        assert_eq!((stats.cpu.total, stats.cpu.periods), (5000, 0));
        assert_eq!((stats.memory.limit, stats.memory.refused), (None, None));
        assert_eq!((stats.pids, stats.io.len()), ((0, None), 0));
        assert_eq!(stats.pressure, Pressure::default());
    }

    #[test]
    fn lines_of_devices() {
        let expected = [IoStats {
            device: (8, 16),
            bytes: (4096, 512),
            requests: (1, 2),
        }];
        let v2 = "8:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n";
        assert_eq!(io(v2), expected);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z:= \\n]{0,64}") {
            let _ = io(&text);
        }
    }
}
