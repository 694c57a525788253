//! Changing the limits and the restart policy of a container, while it runs or not.

use std::sync::Arc;

use nuncio_runtime::Resources;

use super::Daemon;
use super::config::{HostOptions, RestartPolicy};
use super::container::Container;
use super::limits::{check_real_time, resources};
use super::refusal::Refusal;

/// What `update` asks for; what is `None` stays as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Changes {
    pub(crate) memory: Option<i64>,
    pub(crate) memory_swap: Option<i64>,
    pub(crate) memory_reservation: Option<i64>,
    pub(crate) nano_cpus: Option<i64>,
    pub(crate) cpu_period: Option<i64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_shares: Option<i64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    pub(crate) pids_limit: Option<i64>,
    pub(crate) blkio_weight: Option<u16>,
    pub(crate) cpu_rt_period: Option<i64>,
    pub(crate) cpu_rt_runtime: Option<i64>,
    pub(crate) restart: Option<RestartPolicy>,
}

impl Changes {
    /// The options they make of `old`.
    ///
    /// # Errors
    ///
    /// Docker's words for what does not go together.
    fn applied(&self, old: &HostOptions) -> Result<HostOptions, Refusal> {
        let mut new = old.clone();
        if let Some(memory) = self.memory {
            if self.memory_swap.is_none() && old.memory_swap > 0 && memory > old.memory_swap
                || self.memory_swap.is_none()
                    && old.memory_swap == 0
                    && old.memory > 0
                    && memory > old.memory.saturating_mul(2)
            {
                return Err(Refusal::conflict(
                    "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
                ));
            }
            if old.memory > 0 && old.memory_swap == 0 {
                new.memory_swap = old.memory.saturating_mul(2); // what the kernel has been told
            }
            new.memory = memory;
        }
        let set = |slot: &mut i64, value: Option<i64>| *slot = value.unwrap_or(*slot);
        set(&mut new.memory_swap, self.memory_swap);
        set(&mut new.memory_reservation, self.memory_reservation);
        set(&mut new.nano_cpus, self.nano_cpus);
        set(&mut new.cpu_period, self.cpu_period);
        set(&mut new.cpu_quota, self.cpu_quota);
        set(&mut new.cpu_shares, self.cpu_shares);
        set(&mut new.pids_limit, self.pids_limit);
        set(&mut new.cpu_rt_period, self.cpu_rt_period);
        set(&mut new.cpu_rt_runtime, self.cpu_rt_runtime);
        new.disks.weight = self.blkio_weight.unwrap_or(new.disks.weight);
        check_real_time(new.cpu_rt_period, new.cpu_rt_runtime)?;
        for (slot, value) in [
            (&mut new.cpuset_cpus, &self.cpuset_cpus),
            (&mut new.cpuset_mems, &self.cpuset_mems),
        ] {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        }
        if new.nano_cpus > 0 && (new.cpu_period > 0 || new.cpu_quota > 0) {
            let set = if self.nano_cpus.is_some() {
                "Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set"
            } else {
                "CPU Period or CPU Quota cannot be updated as NanoCPUs has already been set"
            };
            return Err(Refusal::invalid(format!("Conflicting options: {set}")));
        }
        if let Some(restart) = self.restart {
            if new.auto_remove && restart != RestartPolicy::No {
                return Err(Refusal::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            new.restart = restart;
        }
        Ok(new)
    }

    /// Those of the limits that change.
    fn limits(&self, new: &HostOptions) -> Resources {
        let all = resources(new);
        let memory = self.memory.is_some() || self.memory_swap.is_some();
        Resources {
            memory: all.memory.filter(|_| memory),
            memory_swap: all
                .memory_swap
                .or(all.memory.map(|bytes| bytes.saturating_mul(2)))
                .filter(|_| memory),
            memory_reservation: all
                .memory_reservation
                .filter(|_| self.memory_reservation.is_some()),
            nano_cpus: all.nano_cpus.filter(|_| self.nano_cpus.is_some()),
            cpu_period: all.cpu_period.filter(|_| self.cpu_period.is_some()),
            cpu_quota: all.cpu_quota.filter(|_| self.cpu_quota.is_some()),
            cpu_shares: all.cpu_shares.filter(|_| self.cpu_shares.is_some()),
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
            cpu_rt_period: self.cpu_rt_period,
            cpu_rt_runtime: self.cpu_rt_runtime,
            ..Resources::default()
        }
    }
}

impl Daemon {
    /// Changes a container. The record is written last, so that it never has limits that the kernel refused.
    pub(crate) async fn update(
        &self,
        container: &Arc<Container>,
        changes: &Changes,
    ) -> anyhow::Result<()> {
        let _turn = container.turn.lock().await;
        let record = container.view();
        let failed = |error: &dyn std::fmt::Display| {
            format!("Cannot update container {}: {error}", container.id)
        };
        let new = changes
            .applied(&record.config.host)
            .map_err(|refusal| Refusal {
                message: failed(&refusal.message),
                ..refusal
            })?;
        if container.is_running() {
            let limits = changes.limits(&new);
            let directory = container.run_directory.clone();
            let updating =
                tokio::task::spawn_blocking(move || nuncio_runtime::update(&directory, &limits));
            updating
                .await?
                .map_err(|error| anyhow::anyhow!(failed(&error)))?;
        }
        container.update(|record| record.config.host = new)?;
        self.tell(container, "update");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn limited(memory: i64, memory_swap: i64) -> HostOptions {
        HostOptions {
            memory,
            memory_swap,
            ..HostOptions::default()
        }
    }

    #[test]
    fn memory_stays_below_memory_and_swap() {
        let more = Changes {
            memory: Some(300 * MIB),
            ..Changes::default()
        };
        assert!(more.applied(&limited(100 * MIB, 200 * MIB)).is_err());
        assert!(more.applied(&limited(100 * MIB, 0)).is_err());
        let both = Changes {
            memory_swap: Some(400 * MIB),
            ..more.clone()
        };
        let new = both.applied(&limited(100 * MIB, 0)).expect("both");
        assert_eq!((new.memory, new.memory_swap), (300 * MIB, 400 * MIB));
        let new = more.applied(&limited(0, 0)).expect("the first limit");
        let limits = more.limits(&new);
        assert_eq!(limits.memory_swap, Some(600 * MIB));
        assert_eq!(limits.pids_limit, None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let mut old = limited(0, 0);
        old.cpu_quota = 50_000;
        old.auto_remove = true;
        let cpus = Changes {
            nano_cpus: Some(1),
            ..Changes::default()
        };
        let refused = cpus.applied(&old).expect_err("two ways").message;
        assert!(
            refused.starts_with("Conflicting options: Nano CPUs"),
            "{refused}"
        );
        let restart = Changes {
            restart: Some(RestartPolicy::Always),
            ..Changes::default()
        };
        assert!(restart.applied(&old).is_err());
    }
}
