//! Gives hosts to tasks that wait for one.

use std::collections::{BTreeMap, HashMap};

use super::Action;
use super::draft::{Candidate, Draft, Waiting};
use super::explain::{considered, summary};
use super::hosts::unfit;
use super::spread::{Leaf, Levels, Tree};
use crate::{Placement, Slot, Task, TaskState};

/// In what time failures on a host are counted, in milliseconds, and from how many on it comes last; as in Swarm.
const RECENT: u64 = 5 * 60 * 1000;
const MANY: u64 = 5;

/// Gives a host to each task that waits for one, or says why there is none.
pub(super) fn place(draft: &mut Draft<'_>) {
    if draft.cluster.frozen {
        freeze(draft);
        return;
    }
    let waiting = std::mem::take(&mut draft.waiting);
    let mut groups: Vec<Vec<Waiting<'_>>> = Vec::new();
    for waits in waiting {
        if let Candidate::Known(task) = waits.what
            && draft.forgotten.contains(&task.id)
        {
            continue;
        }
        if let Some(reason) = not_yet(draft, &waits) {
            explain(draft, &waits, reason);
            continue;
        }
        // Those of one service come one after the other, and mostly want the same.
        let alike = groups.last().is_some_and(|group| {
            let (one, other) = (task(draft, &group[0]), task(draft, &waits));
            one.service == other.service
                && matches!(
                    (&one.slot, &other.slot),
                    (Slot::Replica(_), Slot::Replica(_))
                )
                && one.placement == other.placement
        });
        match groups.last_mut() {
            Some(group) if alike => group.push(waits),
            _ => groups.push(vec![waits]),
        }
    }
    let failures = failures(draft);
    for group in groups {
        match task(draft, &group[0]).slot {
            Slot::Replica(_) => spread(draft, &group, &failures),
            Slot::Node(_) => at_home(draft, &group[0]),
        }
    }
}

fn freeze(draft: &mut Draft<'_>) {
    let tasks = draft.cluster.tasks.values();
    for task in tasks.filter(|t| t.current() && t.node.is_none()) {
        let waits = Waiting {
            service: &task.service,
            what: Candidate::Known(task),
            hold: None,
        };
        let reason = "most nodes were lost at once: nothing is moved until they are back";
        explain(draft, &waits, reason.to_owned());
    }
}

/// Why a task is not to have a host yet, whatever the hosts.
fn not_yet(draft: &mut Draft<'_>, waits: &Waiting<'_>) -> Option<String> {
    let not_before = task(draft, waits).not_before;
    if waits.hold.is_none() && not_before > draft.cluster.now {
        draft.wake(not_before);
        return Some("waits for the delay of its restart policy".to_owned());
    }
    waits.hold.clone()
}

fn task<'d>(draft: &'d Draft<'_>, waits: &Waiting<'d>) -> &'d Task {
    match waits.what {
        Candidate::Known(task) => task,
        Candidate::New(at) => created(&draft.actions[at]),
    }
}

fn created(action: &Action) -> &Task {
    let Action::Create(task) = action else {
        unreachable!("only what is created is looked for among the actions")
    };
    task
}

/// Where tasks of each service failed often of late, and how often.
fn failures<'a>(draft: &Draft<'a>) -> HashMap<&'a str, BTreeMap<usize, u64>> {
    let since = draft.cluster.now.saturating_sub(RECENT);
    let mut failures: HashMap<&str, BTreeMap<usize, u64>> = HashMap::new();
    for task in draft.cluster.tasks.values() {
        let failed = matches!(task.state, TaskState::Failed | TaskState::Rejected);
        if failed
            && task.changed >= since
            && let Some(host) = draft.hosts.of(task.node.as_deref())
        {
            *failures
                .entry(&task.service)
                .or_default()
                .entry(host)
                .or_default() += 1;
        }
    }
    for hosts in failures.values_mut() {
        hosts.retain(|_, count| *count >= MANY);
    }
    failures
}

/// Gives hosts to tasks that want the same.
fn spread<'a>(
    draft: &mut Draft<'a>,
    group: &[Waiting<'a>],
    failures: &HashMap<&str, BTreeMap<usize, u64>>,
) {
    let service = group[0].service;
    let placement = task(draft, &group[0]).placement.clone();
    let kept = draft.kept.get(service);
    let failed = failures.get(service);
    let count = |map: Option<&BTreeMap<usize, u64>>, at: usize| {
        map.and_then(|m| m.get(&at)).copied().unwrap_or(0)
    };
    let hosts = &draft.hosts.all;
    let leaves = hosts.iter().enumerate().map(|(at, host)| Leaf {
        host: at,
        tasks: count(kept, at),
        failures: count(failed, at),
        open: host.ready() && unfit(host.node, &placement).is_none(),
    });
    let mut tree = Tree::new(&Levels::of(&placement.preferences), hosts, leaves);
    let mut reason = None;
    for waits in group {
        let next = tree.next(&mut draft.hosts.all, |host| {
            let room = host.has_room(service, &placement);
            if room {
                host.take(service, &placement);
            }
            room
        });
        if let Some(host) = next {
            draft.keep(service, host);
            assign(draft, waits, host);
        } else {
            let reason = reason.get_or_insert_with(|| why_none(draft, service, &placement));
            let reason = reason.clone();
            explain(draft, waits, reason);
        }
    }
}

fn why_none(draft: &Draft<'_>, service: &str, placement: &Placement) -> String {
    let hosts = draft.hosts.all.iter();
    let refusals: Vec<_> = hosts
        .filter_map(|h| h.refusal(service, placement))
        .collect();
    summary(refusals.iter())
}

/// Gives the task of a global service to the host that it is for.
fn at_home<'a>(draft: &mut Draft<'a>, waits: &Waiting<'a>) {
    let service = waits.service;
    let task = task(draft, waits);
    let at = considered(&draft.hosts, task).next();
    let refusal = at.map(|at| draft.hosts.all[at].refusal(service, &task.placement));
    match (at, refusal) {
        (Some(at), Some(None)) => {
            let placement = task.placement.clone();
            draft.hosts.all[at].take(service, &placement);
            assign(draft, waits, at);
        }
        (_, refusal) => {
            let reason = summary(refusal.flatten().iter());
            explain(draft, waits, reason);
        }
    }
}

fn assign(draft: &mut Draft<'_>, waits: &Waiting<'_>, host: usize) {
    let node = draft.hosts.all[host].node.id.clone();
    match waits.what {
        Candidate::Known(task) => draft.actions.push(Action::Assign {
            task: task.id.clone(),
            node,
        }),
        Candidate::New(at) => {
            if let Action::Create(task) = &mut draft.actions[at] {
                task.state = TaskState::Assigned;
                task.node = Some(node);
            }
        }
    }
}

fn explain(draft: &mut Draft<'_>, waits: &Waiting<'_>, reason: String) {
    match waits.what {
        Candidate::Known(task) => {
            if task.reason.as_ref() != Some(&reason) {
                draft.actions.push(Action::Explain {
                    task: task.id.clone(),
                    reason,
                });
            }
        }
        Candidate::New(at) => {
            if let Action::Create(task) = &mut draft.actions[at] {
                task.reason = Some(reason);
            }
        }
    }
}
