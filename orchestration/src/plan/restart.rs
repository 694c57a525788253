//! What follows a task that ended of itself.

use super::draft::Begin;
use super::slot::{SlotView, ended_itself};
use crate::{Condition, RestartPolicy, Task, TaskState};

/// Whoever ran for less, in milliseconds, is begun again later and later.
const STEADY: u64 = 10_000;
/// No delay becomes longer than this, in milliseconds, unless it is by itself.
const LONGEST_DELAY: u64 = 60_000;
/// No more restarts are counted.
const MOST_COUNTED: usize = 1_000;

/// What the task begins with that follows one that ended of itself; none, if none does.
pub(super) fn successor(
    policy: &RestartPolicy,
    view: &SlotView<'_>,
    ended: &Task,
    now: u64,
) -> Option<Begin> {
    let wanted = match policy.condition {
        Condition::None => false,
        Condition::OnFailure => ended.state != TaskState::Complete,
        Condition::Any => true,
    };
    if !wanted {
        return None;
    }
    // Another host's clock told it.
    let when = ended.changed.min(now);
    let mut restarts = Vec::new();
    if policy.max_attempts > 0 {
        let since = match policy.window {
            0 => 0,
            window => when.saturating_sub(window),
        };
        restarts.extend(ended.restarts.iter().copied().filter(|at| *at >= since));
        let most = usize::try_from(policy.max_attempts).unwrap_or(usize::MAX);
        if restarts.len() >= most.min(MOST_COUNTED) {
            return None;
        }
        restarts.push(when);
    }
    Some(Begin {
        attempt: view.next_attempt(),
        not_before: when.saturating_add(delay(policy, view, ended)),
        restarts,
        hold: None,
    })
}

fn delay(policy: &RestartPolicy, view: &SlotView<'_>, ended: &Task) -> u64 {
    let quick = |t: &&&Task| {
        t.spec_version == ended.spec_version
            && ended_itself(t)
            && t.started
                .is_none_or(|at| t.changed.saturating_sub(at) < STEADY)
    };
    let earlier = view.tasks.iter().rev().skip_while(|t| t.id != ended.id);
    let in_a_row = earlier.take_while(quick).count().max(1);
    let doubled = policy.delay.saturating_mul(1 << (in_a_row - 1).min(16));
    doubled.min(policy.delay.max(LONGEST_DELAY))
}
