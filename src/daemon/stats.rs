//! What a container takes of the machine: its cgroups, its network devices, and the machine's own counters.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use nuncio_runtime::{Stats, stats};

use super::Daemon;
use super::container::Container;
use super::record::Phase;

/// Nanoseconds in the unit in which /proc counts processor time.
const TICK: u64 = 10_000_000;

/// One look at a container.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) time: Timestamp,
    pub(crate) stats: Stats,
    /// By device as the container names it.
    pub(crate) networks: BTreeMap<String, NetworkStats>,
    /// Nanoseconds of processor time that the machine has spent on all, its idleness included.
    pub(crate) machine: u64,
    pub(crate) cpus: u32,
    /// Bytes of memory that the machine has.
    pub(crate) memory: u64,
}

/// What went through a network device.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct NetworkStats {
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
}

/// One direction of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// What a sample says of the machine, which is the same for all containers that are looked at together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    spent: u64,
    cpus: u32,
    memory: u64,
}

impl Machine {
    /// Looks at it.
    pub(crate) fn now() -> Self {
        let system = rustix::system::sysinfo();
        Self {
            spent: machine(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            memory: system.totalram * u64::from(system.mem_unit),
        }
    }
}

impl Daemon {
    /// Looks at a container; `None` if it does not run.
    pub(crate) fn sample(&self, container: &Container) -> Option<Sample> {
        self.sample_beside(container, Machine::now())
    }

    /// The same, of one of many: the machine has been looked at for all of them.
    pub(crate) fn sample_beside(&self, container: &Container, machine: Machine) -> Option<Sample> {
        let record = container.view();
        let Phase::Running { pid, .. } = record.phase else {
            return None;
        };
        let stats = stats(&container.run_directory).ok()?; // it may end just now
        let own = super::outfit::owns_namespace(&record.config.host.network);
        let devices = match own {
            true => fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default(),
            false => String::new(), // another's traffic, or all the host's
        };
        Some(Sample {
            time: Timestamp::now(),
            stats,
            networks: self::devices(&devices),
            machine: machine.spent,
            cpus: machine.cpus,
            memory: machine.memory,
        })
    }
}

/// Of `/proc/<pid>/net/dev`, two lines of headers and one for each device; loopback is left out.
pub(super) fn devices(text: &str) -> BTreeMap<String, NetworkStats> {
    let device = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let traffic = |at: usize| {
            let [bytes, packets, errors, dropped] = *numbers.get(at..at + 4)?.first_chunk()?;
            Some(Traffic {
                bytes,
                packets,
                errors,
                dropped,
            })
        };
        let stats = NetworkStats {
            received: traffic(0)?,
            sent: traffic(8)?,
        };
        Some((name.trim().to_owned(), stats))
    };
    let mut found: BTreeMap<_, _> = text.lines().skip(2).filter_map(device).collect();
    found.remove("lo");
    found
}

/// The first line of `/proc/stat`, whose first eight numbers are user, nice, system, idle, iowait, irq, softirq and
/// steal; guests are counted in the first two.
fn machine(text: &str) -> u64 {
    let line = text.lines().next().unwrap_or_default();
    let ticks = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|number| number.parse::<u64>().ok());
    ticks.sum::<u64>().saturating_mul(TICK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let devices = "Inter-|   Receive      |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0\n";
        let found = super::devices(devices);
        assert_eq!(found.len(), 1);
        let sent = Traffic {
            bytes: 500,
            packets: 6,
            errors: 7,
            dropped: 8,
        };
        assert_eq!(found["eth0"].sent, sent);
        assert_eq!(found["eth0"].received.bytes, 100);
        assert_eq!(machine("cpu  1 2 3 4 5 6 7 8 900 900\ncpu0 1"), 36 * TICK);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z: \\n]{0,80}") {
            let _ = (devices(&text), machine(&text));
        }
    }
}
