use std::collections::BTreeMap;

use nuncio_orchestration::{Action, Availability, Cluster, Desired, Mode, Order, Slot, Task};

use super::Simulation;

impl Simulation {
    /// No two processes of a fenced slot run at the same time, whatever the registry says.
    pub(super) fn fenced_run_once(&self) -> Result<(), String> {
        let mut runs: BTreeMap<&Slot, Vec<&str>> = BTreeMap::new();
        for host in &self.hosts {
            for (_, slot) in host.runs.values().filter(|(service, _)| service == "one") {
                runs.entry(slot).or_default().push(&host.id);
            }
        }
        match runs.iter().find(|(_, hosts)| hosts.len() > 1) {
            Some((slot, hosts)) => Err(format!("{slot:?} runs on {hosts:?} at the same time")),
            None => Ok(()),
        }
    }

    /// What is wanted is there, once, on hosts that live.
    pub(super) fn all_is_well(&self) -> Result<(), String> {
        for service in self.truth.services.values() {
            let tasks = self.truth.tasks.values();
            let current: Vec<_> = tasks
                .filter(|t| t.service == service.id && t.current())
                .collect();
            let alive = self.truth.nodes.values().filter(|n| n.alive).count() as u64;
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas } => replicas,
                _ => alive,
            };
            if current.len() as u64 != wanted {
                let there = current.len();
                return Err(format!(
                    "{wanted} of {} are wanted, {there} are there",
                    service.id
                ));
            }
            for task in current {
                let node = task.node.as_deref().unwrap_or_default();
                let host = self.hosts.iter().find(|h| h.id == node);
                let right = task.spec_version == service.spec.version
                    && (service.id != "web" || !self.bad.contains(&task.spec_version))
                    && host.is_some_and(|h| !h.down && h.runs.contains_key(&task.id));
                if !right {
                    return Err(format!("{task:?} is not as it should be"));
                }
            }
        }
        let ran: usize = self.hosts.iter().map(|h| h.runs.len()).sum();
        let tasks = self.truth.tasks.values();
        let wanted = tasks.filter(|t| t.current()).count();
        if ran != wanted {
            return Err(format!("{ran} processes run for {wanted} tasks"));
        }
        Ok(())
    }
}

/// No step of an update, and no move, takes away more that serves than its settings allow.
pub(super) fn steps(cluster: &Cluster, actions: &[Action]) -> Result<(), String> {
    for service in cluster.services.values() {
        let Mode::Replicated { replicas } = service.spec.mode else {
            continue;
        };
        let spec = &service.spec;
        let tasks = || cluster.tasks.values().filter(|t| t.service == service.id);
        let lives = |t: &Task| t.node.as_ref().is_some_and(|id| cluster.nodes[id].alive);
        let mut serving: BTreeMap<&Slot, Vec<&Task>> = BTreeMap::new();
        for task in tasks().filter(|t| t.up() && lives(t)) {
            serving.entry(&task.slot).or_default().push(task);
        }
        let mut stepped = false;
        for action in actions {
            let Action::Desire {
                task,
                desired: Desired::Shutdown,
            } = action
            else {
                continue;
            };
            let task = &cluster.tasks[task];
            if task.service != service.id || !task.up() || !lives(task) {
                continue;
            }
            let node = &cluster.nodes[task.node.as_ref().expect("it lives")];
            let moved = node.availability == Availability::Drain;
            let slot = serving.get_mut(&task.slot).expect("it serves");
            slot.retain(|t| t.id != task.id);
            let start_first = spec.update.order == Order::StartFirst && !spec.fence;
            if start_first && slot.is_empty() {
                return Err(format!(
                    "start-first, and {task:?} is ended before another is up"
                ));
            }
            stepped |= !moved && slot.is_empty() && task.spec_version != spec.version;
        }
        if !stepped {
            continue;
        }
        let missing = |serving: &BTreeMap<&Slot, Vec<&Task>>| {
            replicas.saturating_sub(serving.values().filter(|s| !s.is_empty()).count() as u64)
        };
        let parallelism = match spec.update.parallelism {
            0 => replicas,
            most => most,
        };
        // An update that goes on in spite of failures does not wait for slots that failed.
        let failed: std::collections::BTreeSet<_> = tasks()
            .filter(|t| t.spec_version == spec.version && t.ended() && t.exit_code.is_some())
            .map(|t| &t.slot)
            .collect();
        if missing(&serving) > parallelism + failed.len() as u64 {
            return Err(format!(
                "a step leaves {} of {replicas} missing where {parallelism} may be",
                missing(&serving)
            ));
        }
    }
    Ok(())
}
