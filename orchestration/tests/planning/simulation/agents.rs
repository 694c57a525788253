use std::collections::BTreeMap;

use nuncio_orchestration::{Desired, Slot, Task, TaskState};

use super::{FENCE, LEASE, Simulation};

/// A host, as it is and not as the registry has it.
pub(super) struct Host {
    pub(super) id: String,
    /// It is off: nothing runs there.
    pub(super) down: bool,
    /// It runs, and reaches nobody.
    pub(super) cut_off: bool,
    /// It takes its time.
    pub(super) slow: bool,
    /// When it last renewed its lease.
    renewed: u64,
    /// When fenced tasks have ended that it had when its lease ended.
    pub(super) fenced_by: Option<u64>,
    /// The tasks whose processes run, and of which slot of which service they are.
    pub(super) runs: BTreeMap<String, (String, Slot)>,
}

impl Host {
    pub(super) fn new(id: &str, now: u64) -> Self {
        Self {
            id: id.to_owned(),
            down: false,
            cut_off: false,
            slow: false,
            renewed: now,
            fenced_by: None,
            runs: BTreeMap::new(),
        }
    }

    pub(super) fn reaches_others(&self) -> bool {
        !self.down && !self.cut_off
    }
}

impl Simulation {
    /// Leases are renewed, or end; and with them, a little later, fenced tasks.
    pub(super) fn leases(&mut self) {
        let now = self.truth.now;
        for host in &mut self.hosts {
            let node = self.truth.nodes.get_mut(&host.id).expect("a host");
            if node.alive && now > host.renewed + LEASE {
                (node.alive, node.since) = (false, now);
                host.fenced_by = Some(now + self.lots.below(FENCE));
            }
            if host.reaches_others() {
                host.renewed = now;
                if !node.alive {
                    (node.alive, node.since) = (true, now);
                }
            }
            // It knows by its own clock that the lease is over, and does not go by whether another has begun.
            if host.fenced_by.is_some_and(|by| by <= now) {
                host.fenced_by = None;
                host.runs.retain(|_, (service, _)| service != "one");
            }
        }
    }

    /// Each host that reaches the registry does something of what is wanted of it, and tells.
    pub(super) fn agents(&mut self, faults: bool) {
        let now = self.truth.now;
        for host in &mut self.hosts {
            if !host.reaches_others() {
                continue;
            }
            host.runs.retain(|id, _| self.truth.tasks.contains_key(id));
            let tasks = self.truth.tasks.values_mut();
            let id = host.id.clone();
            for task in tasks.filter(|t| t.node.as_deref() == Some(&id)) {
                if task.ended() {
                    host.runs.remove(&task.id);
                    continue;
                }
                if host.slow && !self.lots.one_in(6) {
                    continue;
                }
                let before = task.state;
                if task.desired > Desired::Running {
                    wind_down(host, task, &mut self.lots);
                } else if host.fenced_by.is_some() && task.service == "one" {
                    // Nothing fenced is begun before what the last lease left has ended.
                } else if task.state == TaskState::Starting
                    && task.service == "web"
                    && self.bad.contains(&task.spec_version)
                {
                    (task.state, task.exit_code) = (TaskState::Failed, Some(1));
                } else {
                    bring_up(host, task, &mut self.lots, faults);
                }
                if task.state != before {
                    task.changed = now;
                }
                if task.state == TaskState::Running {
                    task.started.get_or_insert(now);
                }
            }
        }
    }
}

fn wind_down(host: &mut Host, task: &mut Task, lots: &mut super::Lots) {
    if !task.announced {
        task.announced = !lots.one_in(3);
    } else if !task.drained {
        task.drained = !lots.one_in(3);
    } else if !lots.one_in(3) {
        host.runs.remove(&task.id);
        task.state = TaskState::Shutdown;
    }
}

fn bring_up(host: &mut Host, task: &mut Task, lots: &mut super::Lots, faults: bool) {
    match task.state {
        TaskState::Running if !host.runs.contains_key(&task.id) => {
            // It was off, or fenced.
            (task.state, task.exit_code) = (TaskState::Failed, Some(137));
        }
        TaskState::Running if faults && lots.one_in(400) => {
            host.runs.remove(&task.id);
            (task.state, task.exit_code) = (TaskState::Failed, Some(1));
        }
        TaskState::Running if !task.healthy => task.healthy = !lots.one_in(3),
        TaskState::Running => task.announced |= !lots.one_in(3),
        TaskState::Assigned => task.state = TaskState::Preparing,
        TaskState::Preparing if !lots.one_in(3) => task.state = TaskState::Starting,
        TaskState::Starting => {
            let whose = (task.service.clone(), task.slot.clone());
            host.runs.insert(task.id.clone(), whose);
            task.state = TaskState::Running;
        }
        _ => {}
    }
}
