//! What containers take.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nuncio_ambassador::metrics::Family;
use nuncio_runtime::{Pressure, Stall};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{MOST, gauge, seconds};
use crate::daemon::Daemon;
use crate::daemon::health::HealthStatus;
use crate::daemon::record::Phase;
use crate::daemon::stats::{Machine, NetworkStats, Sample};

const STATES: [&str; 5] = ["created", "running", "paused", "restarting", "exited"];
/// Network devices of one container of which there are figures.
const DEVICES: usize = 16;

/// Containers by state, and the figures of those that run.
#[derive(Debug, Default)]
pub(super) struct ContainerFigures {
    states: BTreeMap<&'static str, u64>,
    running: Vec<Running>,
    pub(super) omitted: usize,
}

#[derive(Debug)]
struct Running {
    name: String,
    id: String,
    image: String,
    restarts: u64,
    healthy: Option<bool>,
    sample: Sample,
}

impl Daemon {
    /// Looks at the containers, on a thread where reading many files keeps nobody waiting.
    pub(super) async fn container_figures(self: &Arc<Self>) -> ContainerFigures {
        let daemon = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || daemon.look_at_containers());
        looked.await.unwrap_or_default()
    }

    fn look_at_containers(&self) -> ContainerFigures {
        let mut figures = ContainerFigures {
            states: STATES.iter().map(|state| (*state, 0)).collect(),
            ..ContainerFigures::default()
        };
        let machine = Machine::now();
        for container in self.containers() {
            let record = container.view();
            *figures.states.entry(record.phase.name()).or_default() += 1;
            if !matches!(record.phase, Phase::Running { .. }) {
                continue;
            }
            if figures.running.len() == MOST {
                figures.omitted += 1;
                continue;
            }
            let Some(sample) = self.sample_beside(&container, machine) else {
                continue; // it has ended just now
            };
            let health = container.health().map(|health| health.status);
            figures.running.push(Running {
                healthy: health.map(|status| status == HealthStatus::Healthy),
                restarts: record.restarts.into(),
                image: record.config.image,
                name: record.name,
                id: record.id,
                sample,
            });
        }
        figures
    }
}

impl ContainerFigures {
    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut states = gauge(encoder, "containers", "Containers of this host")?;
        for (state, count) in &self.states {
            states.write(&[("state", state)], *count)?;
        }
        let help = "Which container a name is that of";
        let mut info = Family::new(encoder, "container", help, None, MetricType::Info)?;
        for one in &self.running {
            info.write_info(&[
                ("container", &one.name),
                ("id", &one.id),
                ("image", &one.image),
            ])?;
        }
        let help = "Times the restart policy started it since somebody last did";
        self.each(gauge(encoder, "container_restarts", help)?, |one| {
            Some(one.restarts)
        })?;
        let help = "Whether its health check holds; absent without one";
        self.each(gauge(encoder, "container_healthy", help)?, |one| {
            one.healthy.map(u64::from)
        })?;
        self.processor(encoder)?;
        self.memory(encoder)?;
        self.pressure(encoder)?;
        self.pids(encoder)?;
        self.blocks(encoder)?;
        self.network(encoder)
    }

    /// One figure of each container that has it.
    fn each(&self, mut family: Family<'_>, value: impl Fn(&Running) -> Option<u64>) -> fmt::Result {
        for one in &self.running {
            if let Some(value) = value(one) {
                family.write(&[("container", &one.name)], value)?;
            }
        }
        Ok(())
    }

    fn each_time(
        &self,
        mut family: Family<'_>,
        nanoseconds: impl Fn(&Running) -> u64,
    ) -> fmt::Result {
        for one in &self.running {
            family.write_fraction(&[("container", &one.name)], seconds(nanoseconds(one)))?;
        }
        Ok(())
    }

    fn processor(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let help = "Time that processors have spent on it";
        let family = Family::counter(encoder, "container_cpu", help, unit)?;
        self.each_time(family, |one| one.sample.stats.cpu.total)?;
        let help = "Of that, time in user space";
        let family = Family::counter(encoder, "container_cpu_user", help, unit)?;
        self.each_time(family, |one| one.sample.stats.cpu.user)?;
        let help = "Of that, time in the kernel";
        let family = Family::counter(encoder, "container_cpu_system", help, unit)?;
        self.each_time(family, |one| one.sample.stats.cpu.system)?;
        let help = "Time for which its limit kept it from running";
        let family = Family::counter(encoder, "container_cpu_throttled", help, unit)?;
        self.each_time(family, |one| one.sample.stats.cpu.throttled)
    }

    fn memory(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Memory that is charged to it, caches included";
        let family = bytes(encoder, "container_memory_usage", help)?;
        self.each(family, |one| Some(one.sample.stats.memory.usage))?;
        let help = "The same without what could be dropped at once, as `docker stats` counts";
        let family = bytes(encoder, "container_memory_working_set", help)?;
        self.each(family, |one| {
            let memory = &one.sample.stats.memory;
            let names = ["total_inactive_file", "inactive_file"];
            let idle = names.iter().find_map(|name| memory.details.get(*name));
            Some(
                memory
                    .usage
                    .saturating_sub(idle.copied().unwrap_or_default()),
            )
        })?;
        let help = "Memory that it may have; absent without a limit";
        let family = bytes(encoder, "container_memory_limit", help)?;
        self.each(family, |one| one.sample.stats.memory.limit)?;
        let help = "Times its memory limit was hit";
        let family = Family::counter(encoder, "container_memory_limit_hits", help, None)?;
        self.each(family, |one| Some(one.sample.stats.memory.failures))
    }

    fn pressure(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for Scarce { word: what, of } in &SCARCE {
            for waiting in &WAITING {
                let help = format!("Time for which {} waited for {what}", waiting.who);
                let name = format!("container_pressure_{what}_{}", waiting.word);
                let mut family = Family::counter(encoder, &name, &help, Some(&Unit::Seconds))?;
                for one in &self.running {
                    if let Some(stall) = of(&one.sample.stats.pressure) {
                        let labels = [("container", one.name.as_str())];
                        family.write_fraction(&labels, seconds((waiting.of)(&stall)))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn pids(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Its processes and threads";
        let family = gauge(encoder, "container_pids", help)?;
        self.each(family, |one| Some(one.sample.stats.pids.0))?;
        let help = "Processes and threads that it may have; absent without a limit";
        let family = gauge(encoder, "container_pids_limit", help)?;
        self.each(family, |one| one.sample.stats.pids.1)
    }

    fn blocks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let io = |one: &Running, of: fn(&nuncio_runtime::IoStats) -> u64| {
            Some(one.sample.stats.io.iter().map(of).sum())
        };
        let help = "Read from block devices";
        let family = Family::counter(encoder, "container_block_read", help, unit)?;
        self.each(family, |one| io(one, |io| io.bytes.0))?;
        let help = "Written to block devices";
        let family = Family::counter(encoder, "container_block_written", help, unit)?;
        self.each(family, |one| io(one, |io| io.bytes.1))?;
        let help = "Requests to read from block devices";
        let family = Family::counter(encoder, "container_block_reads", help, None)?;
        self.each(family, |one| io(one, |io| io.requests.0))?;
        let help = "Requests to write to block devices";
        let family = Family::counter(encoder, "container_block_writes", help, None)?;
        self.each(family, |one| io(one, |io| io.requests.1))
    }

    fn network(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for way in &WAYS {
            let help = format!("Bytes that its network devices {}", way.word);
            let name = format!("container_network_{}", way.word);
            let family = Family::counter(encoder, &name, &help, Some(&Unit::Bytes))?;
            self.each_device(family, |stats| (way.of)(stats).bytes)?;
            let help = format!("Packets that its network devices {}", way.word);
            let name = format!("container_network_{}_packets", way.word);
            let family = Family::counter(encoder, &name, &help, None)?;
            self.each_device(family, |stats| (way.of)(stats).packets)?;
            let help = format!("Packets lost that were to be {}", way.word);
            let name = format!("container_network_{}_dropped", way.word);
            let family = Family::counter(encoder, &name, &help, None)?;
            self.each_device(family, |stats| (way.of)(stats).dropped)?;
        }
        Ok(())
    }

    fn each_device(
        &self,
        mut family: Family<'_>,
        value: impl Fn(&NetworkStats) -> u64,
    ) -> fmt::Result {
        for one in &self.running {
            for (device, stats) in one.sample.networks.iter().take(DEVICES) {
                let labels: [(&str, &str); 2] = [("container", &one.name), ("device", device)];
                family.write(&labels, value(stats))?;
            }
        }
        Ok(())
    }
}

fn bytes<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<Family<'a>, fmt::Error> {
    Family::new(encoder, name, help, Some(&Unit::Bytes), MetricType::Gauge)
}

/// What a container may wait for.
struct Scarce {
    word: &'static str,
    of: fn(&Pressure) -> Option<Stall>,
}

const SCARCE: [Scarce; 3] = [
    Scarce {
        word: "cpu",
        of: |pressure| pressure.cpu,
    },
    Scarce {
        word: "memory",
        of: |pressure| pressure.memory,
    },
    Scarce {
        word: "io",
        of: |pressure| pressure.io,
    },
];

/// How it waits, in cAdvisor's words.
struct Waiting {
    word: &'static str,
    who: &'static str,
    of: fn(&Stall) -> u64,
}

const WAITING: [Waiting; 2] = [
    Waiting {
        word: "waiting",
        who: "some task",
        of: |stall| stall.waiting,
    },
    Waiting {
        word: "stalled",
        who: "all tasks",
        of: |stall| stall.stalled,
    },
];

/// One direction of what devices carry.
pub(super) struct Way {
    pub(super) word: &'static str,
    pub(super) of: fn(&NetworkStats) -> crate::daemon::stats::Traffic,
}

pub(super) const WAYS: [Way; 2] = [
    Way {
        word: "received",
        of: |stats| stats.received,
    },
    Way {
        word: "sent",
        of: |stats| stats.sent,
    },
];
