//! Why a task has no host.

use super::hosts::{Hosts, Refusal};
use crate::{Cluster, Slot, Task};

/// Why each host, by its id, is not given a task that has none; hosts that would suit are left out.
///
/// It is empty if there is no such task or it has a host. A task that waits for something else than a host, as the delay of
/// its restart, says so in its [`reason`](Task::reason).
#[must_use]
pub fn explain_pending(cluster: &Cluster, task: &str) -> Vec<(String, Refusal)> {
    let Some(task) = cluster.tasks.get(task).filter(|t| t.node.is_none()) else {
        return Vec::new();
    };
    let hosts = Hosts::new(cluster);
    considered(&hosts, task)
        .filter_map(|at| {
            let host = &hosts.all[at];
            let refusal = host.refusal(&task.service, &task.placement)?;
            Some((host.node.id.clone(), refusal))
        })
        .collect()
}

/// The hosts that a task could be given to at all: that of its slot, or any.
pub(super) fn considered(hosts: &Hosts<'_>, task: &Task) -> std::ops::Range<usize> {
    match &task.slot {
        Slot::Replica(_) => 0..hosts.all.len(),
        Slot::Node(id) => hosts.of(Some(id)).map_or(0..0, |at| at..at + 1),
    }
}

/// Why no host suits, in Swarm's words, the commonest reason first.
pub(super) fn summary<'r>(refusals: impl Iterator<Item = &'r Refusal>) -> String {
    // In Swarm's order, which decides between reasons that are as common.
    let mut counts = [0_u64; 6];
    for refusal in refusals {
        let at = match refusal {
            Refusal::Down | Refusal::Paused | Refusal::Drained => 0,
            Refusal::Resources { .. } => 1,
            Refusal::Constraint(_) => 2,
            Refusal::Platform { .. } => 3,
            Refusal::HostPort(_) => 4,
            Refusal::MaxPerNode(_) => 5,
        };
        counts[at] += 1;
    }
    let mut common: Vec<_> = counts.iter().copied().enumerate().collect();
    common.retain(|(_, count)| *count > 0);
    common.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if common.is_empty() {
        return "no suitable node".to_owned();
    }
    let words: Vec<_> = common
        .into_iter()
        .map(|(at, count)| phrase(at, count))
        .collect();
    format!("no suitable node ({})", words.join("; "))
}

fn phrase(at: usize, count: u64) -> String {
    let nodes = if count == 1 { "node" } else { "nodes" };
    match at {
        0 => format!("{count} {nodes} not available for new tasks"),
        1 => format!("insufficient resources on {count} {nodes}"),
        2 => format!("scheduling constraints not satisfied on {count} {nodes}"),
        3 => format!("unsupported platform on {count} {nodes}"),
        4 => format!("host-mode port already in use on {count} {nodes}"),
        _ => "max replicas per node limit exceed".to_owned(),
    }
}
