//! A plan as it is being made.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::hosts::Hosts;
use super::{Action, Plan};
use crate::identity::task_id;
use crate::{Cluster, Desired, Service, Slot, Task, TaskState, Update};

pub(super) struct Draft<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) hosts: Hosts<'a>,
    pub(super) actions: Vec<Action>,
    wake_at: Option<u64>,
    /// Tasks whose records are to be deleted.
    pub(super) forgotten: HashSet<String>,
    /// Tasks that are to be given a host.
    pub(super) waiting: Vec<Waiting<'a>>,
    /// Of each service, how many of its slots each host has, by which tasks are spread.
    pub(super) kept: HashMap<&'a str, BTreeMap<usize, u64>>,
}

/// A task that is to be given a host.
pub(super) struct Waiting<'a> {
    pub(super) service: &'a str,
    pub(super) what: Candidate<'a>,
    /// Why it is not given one yet, whatever the hosts.
    pub(super) hold: Option<String>,
}

/// Where the record of a waiting task is.
pub(super) enum Candidate<'a> {
    Known(&'a Task),
    /// Which of the actions creates it.
    New(usize),
}

/// What a new task begins with.
#[derive(Default)]
pub(super) struct Begin {
    pub(super) attempt: u64,
    pub(super) not_before: u64,
    pub(super) restarts: Vec<u64>,
    pub(super) hold: Option<String>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            hosts: Hosts::new(cluster),
            actions: Vec::new(),
            wake_at: None,
            forgotten: HashSet::new(),
            waiting: Vec::new(),
            kept: HashMap::new(),
        }
    }

    /// Has the cluster looked at again then, at the latest.
    pub(super) fn wake(&mut self, at: u64) {
        if at > self.cluster.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn desire(&mut self, task: &Task, desired: Desired) {
        if task.desired < desired {
            self.actions.push(Action::Desire {
                task: task.id.clone(),
                desired,
            });
        }
    }

    /// Has a task end, for good if it is one of a slot that goes. What never had a host has nothing to end.
    pub(super) fn end(&mut self, task: &Task, desired: Desired) {
        if task.node.is_none() || (task.ended() && desired == Desired::Remove) {
            self.forget(task);
        } else {
            self.desire(task, desired);
        }
    }

    pub(super) fn forget(&mut self, task: &Task) {
        self.forgotten.insert(task.id.clone());
        self.actions.push(Action::Forget {
            task: task.id.clone(),
        });
    }

    pub(super) fn progress(&mut self, service: &Service, update: Update) {
        if service.update.as_ref() != Some(&update) {
            self.actions.push(Action::Progress {
                service: service.id.clone(),
                update,
            });
        }
    }

    /// A new task by the service's spec, which waits for a host.
    pub(super) fn create(&mut self, service: &'a Service, slot: &Slot, begin: Begin) {
        let hold = begin.hold.clone();
        let task = self.make(service, slot, begin);
        self.actions.push(Action::Create(task));
        self.waiting.push(Waiting {
            service: &service.id,
            what: Candidate::New(self.actions.len() - 1),
            hold,
        });
    }

    /// A new task by the service's spec, on a host that has been chosen.
    pub(super) fn create_at(
        &mut self,
        service: &'a Service,
        slot: &Slot,
        attempt: u64,
        host: usize,
    ) {
        let begin = Begin {
            attempt,
            ..Begin::default()
        };
        let mut task = self.make(service, slot, begin);
        task.state = TaskState::Assigned;
        task.node = Some(self.hosts.all[host].node.id.clone());
        self.hosts.all[host].take(&service.id, &service.spec.placement);
        self.actions.push(Action::Create(task));
    }

    fn make(&self, service: &Service, slot: &Slot, begin: Begin) -> Task {
        let version = service.spec.version;
        Task {
            id: task_id(&service.id, slot, version, begin.attempt),
            service: service.id.clone(),
            slot: slot.clone(),
            attempt: begin.attempt,
            spec_version: version,
            placement: service.spec.placement.clone(),
            state: TaskState::Pending,
            created: self.cluster.now,
            changed: self.cluster.now,
            not_before: begin.not_before,
            restarts: begin.restarts,
            ..Task::default()
        }
    }

    /// Counts a slot as one that the host has.
    pub(super) fn keep(&mut self, service: &'a str, host: usize) {
        *self
            .kept
            .entry(service)
            .or_default()
            .entry(host)
            .or_default() += 1;
    }

    /// Counts a slot no more as one that the host has.
    pub(super) fn unkeep(&mut self, service: &'a str, host: usize) {
        if let Some(count) = self.kept.entry(service).or_default().get_mut(&host) {
            *count -= 1;
        }
    }

    pub(super) fn finish(self) -> Plan {
        Plan {
            actions: self.actions,
            wake_at: self.wake_at,
        }
    }
}
