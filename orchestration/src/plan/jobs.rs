//! Services whose tasks are to end with 0, once.

use std::collections::BTreeMap;

use super::draft::{Begin, Candidate, Draft, Waiting};
use super::hosts::unfit;
use super::slot::{SlotView, Standing, ended_itself, standing};
use super::{history, rebalance, restart};
use crate::{Condition, Desired, Order, RestartPolicy, Service, Slot, TaskState};

/// What a slot of a job has come to.
enum Course {
    /// It has a task that is to run.
    Runs,
    /// It is done, or has failed for good.
    Over,
    /// It is to have a task.
    Wants(Begin),
}

pub(super) fn replicated<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    views: &BTreeMap<&'a Slot, SlotView<'a>>,
    total: u64,
    concurrent: u64,
) {
    let most = if concurrent == 0 { total } else { concurrent };
    let mut running = 0;
    let mut wanting = Vec::new();
    for view in views.values() {
        match view.slot {
            Slot::Replica(number) if (1..=total).contains(number) => {
                match course(draft, service, view) {
                    Course::Runs => running += 1,
                    Course::Over => {}
                    Course::Wants(begin) => wanting.push((view.slot.clone(), begin)),
                }
            }
            _ => history::remove(draft, view),
        }
    }
    let fresh = (1..=total)
        .map(Slot::Replica)
        .filter(|slot| !views.contains_key(slot))
        .map(|slot| (slot, Begin::default()));
    let room = usize::try_from(most.saturating_sub(running)).unwrap_or(usize::MAX);
    for (slot, begin) in wanting.into_iter().chain(fresh).take(room) {
        draft.create(service, &slot, begin);
    }
    rebalance::nothing(draft, service);
}

pub(super) fn global<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    views: &BTreeMap<&'a Slot, SlotView<'a>>,
) {
    let placement = &service.spec.placement;
    let hosts = draft.hosts.all.iter();
    let ready = hosts.filter(|h| h.ready() && unfit(h.node, placement).is_none());
    let ready: Vec<_> = ready.map(|h| Slot::Node(h.node.id.clone())).collect();
    for view in views.values() {
        match view.slot {
            Slot::Node(id) if draft.cluster.nodes.contains_key(id) => {
                match course(draft, service, view) {
                    Course::Wants(begin) if ready.binary_search(view.slot).is_ok() => {
                        draft.create(service, view.slot, begin);
                    }
                    _ => {}
                }
            }
            _ => history::remove(draft, view),
        }
    }
    for slot in ready.iter().filter(|slot| !views.contains_key(slot)) {
        draft.create(service, slot, Begin::default());
    }
    rebalance::nothing(draft, service);
}

fn course<'a>(draft: &mut Draft<'a>, service: &'a Service, view: &SlotView<'a>) -> Course {
    let version = service.spec.version;
    history::tidy(draft, service, view);
    let mut keeper = None;
    for task in &view.tasks {
        if task.ended() {
            if ended_itself(task) && task.state != TaskState::Complete {
                draft.desire(task, Desired::Shutdown);
            }
        } else if task.current() {
            // A job's task that has to go is ended and begun anew elsewhere; of two, the first one goes on.
            let stays = task.spec_version == version
                && standing(task, &draft.hosts) == Standing::Fine
                && keeper.is_none();
            if stays {
                keeper = Some(*task);
            } else {
                draft.end(task, Desired::Shutdown);
            }
        }
    }
    let done = |t: &&&crate::Task| t.spec_version == version && t.state == TaskState::Complete;
    if view.tasks.iter().find(done).is_some() {
        if let Some(late) = keeper {
            draft.end(late, Desired::Shutdown);
        }
        return Course::Over;
    }
    if let Some(keeper) = keeper {
        if keeper.node.is_none() {
            let hold = view.hold(&service.spec, Order::StopFirst, draft);
            draft.waiting.push(Waiting {
                service: &service.id,
                what: Candidate::Known(keeper),
                hold,
            });
        }
        return Course::Runs;
    }
    let last = view.newest();
    let failed = last.filter(|t| ended_itself(t) && t.spec_version == version);
    let begin = match failed {
        Some(failed) => {
            let policy = RestartPolicy {
                condition: match service.spec.restart.condition {
                    Condition::None => Condition::None,
                    _ => Condition::OnFailure,
                },
                ..service.spec.restart
            };
            restart::successor(&policy, view, failed, draft.cluster.now)
        }
        None => Some(Begin {
            attempt: view.next_attempt(),
            ..Begin::default()
        }),
    };
    match begin {
        None => Course::Over,
        Some(begin) => {
            let hold = view.hold(&service.spec, Order::StopFirst, draft);
            Course::Wants(Begin { hold, ..begin })
        }
    }
}
