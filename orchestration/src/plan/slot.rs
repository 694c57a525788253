//! What has become of a slot: its tasks, and which of them fills it.

use std::collections::BTreeMap;

use super::draft::Draft;
use super::hosts::Hosts;
use crate::{Availability, Cluster, Order, Service, Slot, Spec, Task, TaskState};

/// The tasks of a slot, the oldest first.
pub(super) struct SlotView<'a> {
    pub(super) slot: &'a Slot,
    pub(super) tasks: Vec<&'a Task>,
}

/// How a task stands where it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Standing {
    /// Its host is dead or gone.
    Lost,
    /// Its host is to be empty, meets its constraints no longer, or has no room for it any more.
    Evicted,
    /// It may stay, or has no host yet.
    Fine,
}

/// Whether somebody may still run a task that has not ended.
pub(super) enum Reach {
    /// Its host lives, and will say when it has ended.
    Alive,
    /// Its host is dead since then.
    Dead(u64),
    /// It has no host, or one that was removed.
    None,
}

impl<'a> SlotView<'a> {
    /// The tasks of each service and slot.
    pub(super) fn all(cluster: &'a Cluster) -> BTreeMap<&'a str, BTreeMap<&'a Slot, Self>> {
        let mut services: BTreeMap<&str, BTreeMap<&Slot, Self>> = BTreeMap::new();
        for task in cluster.tasks.values() {
            services
                .entry(&task.service)
                .or_default()
                .entry(&task.slot)
                .or_insert_with(|| Self {
                    slot: &task.slot,
                    tasks: Vec::new(),
                })
                .tasks
                .push(task);
        }
        for slots in services.values_mut() {
            for view in slots.values_mut() {
                view.tasks.sort_by_key(|t| (t.attempt, t.created));
            }
        }
        services
    }

    /// The task that was planned last.
    pub(super) fn newest(&self) -> Option<&'a Task> {
        self.tasks.last().copied()
    }

    /// The number of the next one.
    pub(super) fn next_attempt(&self) -> u64 {
        self.newest().map_or(0, |t| t.attempt + 1)
    }

    /// The tasks that are to run, have not ended, and are not lost.
    pub(super) fn current(&self, hosts: &Hosts<'_>) -> Vec<&'a Task> {
        let tasks = self.tasks.iter().copied();
        tasks
            .filter(|t| t.current() && standing(t, hosts) != Standing::Lost)
            .collect()
    }

    /// Which of the current tasks fills the slot: one of the version that is wanted, else one that may stay where it is,
    /// else one that has a host, else the youngest. What runs yields to nothing that has no place.
    pub(super) fn keeper(
        current: &[&'a Task],
        version: u64,
        hosts: &Hosts<'_>,
    ) -> Option<&'a Task> {
        let rank = |t: &Task| {
            let wanted = t.spec_version == version;
            (wanted, standing(t, hosts), t.node.is_some(), t.attempt)
        };
        current.iter().copied().max_by_key(|t| rank(t))
    }

    /// Tasks that have ended of themselves after that one was planned, and are of that version.
    pub(super) fn failed_after(&self, task: &Task, version: u64) -> Option<&'a Task> {
        self.newest()
            .filter(|t| t.attempt > task.attempt && t.spec_version == version && ended_itself(t))
    }

    /// Whether a task of the slot still has to end on a host that lives.
    pub(super) fn ending(&self, hosts: &Hosts<'_>) -> bool {
        let mut going = self.tasks.iter().filter(|t| !t.current() && !t.ended());
        going.any(|t| matches!(reach(t, hosts), Reach::Alive))
    }

    /// Why another task of the slot may not be given a host yet, and when that is over if the time is known.
    pub(super) fn hold(&self, spec: &Spec, order: Order, draft: &mut Draft<'a>) -> Option<String> {
        for task in self.tasks.iter().filter(|t| !t.ended()) {
            match reach(task, &draft.hosts) {
                Reach::Alive if spec.fence || order == Order::StopFirst => {
                    return Some("waits for its predecessor to end".to_owned());
                }
                Reach::Dead(since) if spec.fence => {
                    let over = since.saturating_add(draft.cluster.fence_grace);
                    if draft.cluster.now < over {
                        draft.wake(over);
                        return Some("waits for its predecessor to be fenced".to_owned());
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// In which order a slot's tasks take each other's place.
pub(super) fn order(spec: &Spec, wanted: Order) -> Order {
    if spec.fence { Order::StopFirst } else { wanted }
}

/// How a task stands where it is.
pub(super) fn standing(task: &Task, hosts: &Hosts<'_>) -> Standing {
    let Some(id) = task.node.as_deref() else {
        return Standing::Fine;
    };
    let Some(at) = hosts.of(Some(id)) else {
        return Standing::Lost;
    };
    let node = hosts.all[at].node;
    if !node.alive {
        Standing::Lost
    } else if node.availability == Availability::Drain
        || hosts.all[at].beyond.contains(task.id.as_str())
        || !task.placement.constraints.iter().all(|c| c.met_by(node))
    {
        Standing::Evicted
    } else {
        Standing::Fine
    }
}

/// Whether somebody may still run a task that has not ended.
pub(super) fn reach(task: &Task, hosts: &Hosts<'_>) -> Reach {
    match hosts.of(task.node.as_deref()).map(|at| hosts.all[at].node) {
        None => Reach::None,
        Some(node) if node.alive => Reach::Alive,
        Some(node) => Reach::Dead(node.since),
    }
}

/// Whether a task has ended without being asked to.
pub(super) fn ended_itself(task: &Task) -> bool {
    matches!(
        task.state,
        TaskState::Complete | TaskState::Failed | TaskState::Rejected
    )
}

/// Whether a task of the service that ended of itself is a failure: one that was to run on is, with whatever code it ended.
pub(super) fn failed(task: &Task, service: &Service) -> bool {
    match task.state {
        TaskState::Failed | TaskState::Rejected => true,
        TaskState::Complete => service.spec.restart.condition == crate::Condition::Any,
        _ => false,
    }
}
