//! Rolling updates, and taking them back.

use super::draft::Draft;
use super::services::{Standpoint, replace};
use super::slot::{failed, order};
use crate::identity::task_id;
use crate::{Action, FailureAction, Order, Service, Task, Update, UpdateConfig, UpdateState};

/// By what settings tasks are replaced now: those for going back, while that is under way.
pub(super) fn config(service: &Service) -> &UpdateConfig {
    let backwards = service
        .update
        .as_ref()
        .is_some_and(|u| u.version == service.spec.version && u.state.backwards());
    if backwards {
        &service.spec.rollback
    } else {
        &service.spec.update
    }
}

/// Takes the next step of a service's update, if it is time: not while slots that were missing are `filling`, for one.
pub(super) fn advance<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    slots: &mut [Standpoint<'_, 'a>],
    filling: bool,
) {
    let version = service.spec.version;
    let dirty = slots.iter().filter(|s| s.dirty).count() as u64;
    let mut update = match &service.update {
        Some(update) if update.version == version && update.state.active() => update.clone(),
        Some(update) if update.version == version && stands_still(update) => return,
        earlier if dirty == 0 && !begun_unseen(service, slots) => {
            // Nothing was left to do of it: its version is not wanted any more, and no task of another is there.
            if let Some(update) = earlier.as_ref().filter(|u| u.state.active()) {
                draft.progress(service, completed(update.clone(), draft.cluster.now));
            }
            return;
        }
        _ => Update {
            state: UpdateState::Updating,
            started: draft.cluster.now,
            message: "update in progress".to_owned(),
            version,
            total: if dirty == 0 {
                slots.len() as u64
            } else {
                dirty
            },
            settled: Some(0),
            ..Update::default()
        },
    };
    if update.total == 0 {
        update.total = dirty;
    }
    let failing = note_failures(service, slots, &mut update);
    if let Some(task) = failing
        && give_up(draft, service, &mut update, task)
    {
        return;
    }
    step(draft, service, slots, update, filling);
}

/// Whether every task was replaced by one of a new version for other reasons before the update to that was begun: it is watched
/// nevertheless.
fn begun_unseen(service: &Service, slots: &[Standpoint<'_, '_>]) -> bool {
    let version = service.spec.version;
    let seen = service
        .update
        .as_ref()
        .is_some_and(|u| u.version == version);
    let changed = service
        .previous
        .as_ref()
        .is_some_and(|p| p.version != version);
    // One that only counts as of the new version was not replaced.
    let adopted = |task: &Task| {
        task.spec_version == version
            && task.id != task_id(&task.service, &task.slot, version, task.attempt)
    };
    let mut keepers = slots.iter().map(|slot| slot.keeper);
    changed && !seen && !keepers.all(|keeper| keeper.is_some_and(adopted))
}

fn stands_still(update: &Update) -> bool {
    matches!(
        update.state,
        UpdateState::Paused | UpdateState::RollbackPaused
    )
}

fn completed(mut update: Update, now: u64) -> Update {
    let (state, message) = if update.state.backwards() {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    update.state = state;
    update.completed = Some(now);
    message.clone_into(&mut update.message);
    update
}

/// Counts the slots in which a new task failed while it was watched, and names one of these tasks if they are too many.
fn note_failures<'a>(
    service: &Service,
    slots: &[Standpoint<'_, 'a>],
    update: &mut Update,
) -> Option<&'a Task> {
    let failures = slots.iter().filter_map(|s| failure(service, s, update));
    let all: Vec<_> = failures.collect();
    update.failures = update.failures.max(all.len() as u64);
    let share = update.failures as f64 / update.total.max(1) as f64;
    (share > config(service).max_failure_ratio)
        .then(|| all.last().copied())
        .flatten()
}

/// A task of the update in that slot that failed while it was watched.
fn failure<'a>(service: &Service, slot: &Standpoint<'_, 'a>, update: &Update) -> Option<&'a Task> {
    let monitor = config(service).monitor;
    slot.view.tasks.iter().copied().find(|t| {
        t.spec_version == update.version
            && t.created >= update.started
            && failed(t, service)
            && t.started
                .is_none_or(|at| t.changed.saturating_sub(at) <= monitor)
    })
}

/// Does what is to be done when too many fail; false, if that is to go on.
fn give_up<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    update: &mut Update,
    task: &Task,
) -> bool {
    let backwards = update.state.backwards();
    let why = format!("due to failure or early termination of task {}", task.id);
    let previous = service.previous.as_ref();
    match (config(service).on_failure, previous) {
        (FailureAction::Continue, _) => return false,
        (FailureAction::Rollback, Some(previous)) if !backwards => {
            draft.actions.push(Action::RollBack {
                service: service.id.clone(),
                update: Update {
                    message: format!("update rolled back {why}"),
                    ..Update::going_back(previous.version, draft.cluster.now)
                },
            });
            return true;
        }
        _ => {}
    }
    let (state, what) = if backwards {
        (UpdateState::RollbackPaused, "rollback")
    } else {
        (UpdateState::Paused, "update")
    };
    update.state = state;
    update.message = format!("{what} paused {why}");
    draft.progress(service, update.clone());
    true
}

/// Begins the next batch, once the one before is up, its predecessors have ended, and the delay is over.
fn step<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    slots: &mut [Standpoint<'_, 'a>],
    mut update: Update,
    filling: bool,
) {
    let now = draft.cluster.now;
    let settings = config(service);
    let hopeless = |s: &Standpoint<'_, 'a>| failure(service, s, &update).is_some();
    let under_way = filling || slots.iter().any(|s| s.under_way && !hopeless(s));
    let todo = slots.iter().any(|s| s.dirty);
    if under_way {
        update.settled = None;
        draft.progress(service, update);
        return;
    }
    let settled = *update.settled.get_or_insert(now);
    if !todo {
        let over = settled.saturating_add(settings.monitor);
        if over <= now {
            update = completed(update, now);
        } else {
            draft.wake(over);
        }
        draft.progress(service, update);
        return;
    }
    let next = settled.saturating_add(settings.delay);
    if settled > 0 && next > now {
        draft.wake(next);
        draft.progress(service, update);
        return;
    }
    update.settled = None;
    draft.progress(service, update);
    let order = order(&service.spec, settings.order);
    for at in batch(slots, settings, order) {
        replace(draft, service, &mut slots[at], order);
    }
}

/// Which slots are next: those that serve nobody first, and stop-first of the others no more than may be missing at once.
fn batch(slots: &[Standpoint<'_, '_>], settings: &UpdateConfig, order: Order) -> Vec<usize> {
    let most = match settings.parallelism {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let dirty = |serving: bool| {
        let slots = slots.iter().enumerate();
        slots
            .filter(move |(_, s)| s.dirty && s.serving == serving)
            .map(|(at, _)| at)
    };
    let mut next: Vec<_> = dirty(false).take(most).collect();
    let missing = match order {
        Order::StopFirst => dirty(false).count(),
        Order::StartFirst => next.len(),
    };
    next.extend(dirty(true).take(most.saturating_sub(missing)));
    next
}
