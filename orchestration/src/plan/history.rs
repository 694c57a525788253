//! What is remembered of tasks that have ended.

use super::draft::Draft;
use super::slot::{Reach, SlotView, reach};
use crate::{Action, Desired, Service, Task, TaskState};

/// How many tasks that have ended are kept of each slot: what Swarm has for `--task-history-limit`.
const KEPT: usize = 5;
/// After how long without its host a task is given up, in milliseconds, as Swarm does.
const ORPHANED_AFTER: u64 = 24 * 60 * 60 * 1000;

/// Gives up tasks that will not be heard of again, and forgets what ended long ago.
pub(super) fn tidy<'a>(draft: &mut Draft<'a>, service: &Service, view: &SlotView<'a>) {
    let mut ended = Vec::new();
    for task in &view.tasks {
        if task.ended() {
            ended.push(*task);
        } else if !task.current() {
            give_up(draft, task);
        }
    }
    let done = |t: &Task| {
        service.spec.is_job()
            && t.state == TaskState::Complete
            && t.spec_version == service.spec.version
    };
    // The newest stays even in a slot that is about to go: the number of the next attempt is by it.
    let surplus = ended.len().saturating_sub(KEPT);
    for task in ended.into_iter().take(surplus).filter(|t| !done(t)) {
        draft.forget(task);
    }
}

/// Ends all tasks of a slot that goes, and forgets those that have ended.
pub(super) fn remove<'a>(draft: &mut Draft<'a>, view: &SlotView<'a>) {
    for task in &view.tasks {
        draft.end(task, Desired::Remove);
        if !task.ended() && task.node.is_some() && task.desired != Desired::Running {
            give_up(draft, task);
        }
    }
}

fn give_up<'a>(draft: &mut Draft<'a>, task: &'a Task) {
    let gone = match reach(task, &draft.hosts) {
        Reach::Alive => false,
        Reach::Dead(since) => {
            let over = since.saturating_add(ORPHANED_AFTER);
            draft.wake(over);
            over <= draft.cluster.now
        }
        Reach::None => true,
    };
    if gone && task.node.is_some() {
        draft.actions.push(Action::Orphan {
            task: task.id.clone(),
        });
    } else if gone {
        draft.forget(task);
    }
}
