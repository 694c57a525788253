//! Spreads a service's tasks anew, one at a time.

use std::collections::BTreeMap;

use super::Action;
use super::draft::{Begin, Draft};
use super::hosts::unfit;
use super::services::Standpoint;
use super::slot::ended_itself;
use super::spread::Levels;
use crate::{Desired, Order, Service, Task};

/// For how long a move that failed is not tried again, in milliseconds.
const PATIENCE: u64 = 5 * 60 * 1000;

/// A service whose tasks have their hosts by nature is as even as it can be.
pub(super) fn nothing(draft: &mut Draft<'_>, service: &Service) {
    if service.rebalance {
        draft.actions.push(Action::Rebalanced {
            service: service.id.clone(),
        });
    }
}

/// Moves one task from where there are most to where there are fewest, if that is asked for and all else has settled.
pub(super) fn step<'a>(draft: &mut Draft<'a>, service: &'a Service, slots: &[Standpoint<'_, 'a>]) {
    let asked = service.rebalance || service.auto_rebalance;
    let updating = service.update.as_ref().is_some_and(|u| u.state.active());
    if !asked || updating || slots.iter().any(|s| s.under_way || s.dirty) {
        return;
    }
    let now = draft.cluster.now;
    let mut lately = slots.iter().filter_map(|s| failed_move(s));
    let failed = lately.any(|t| t.changed.saturating_add(PATIENCE) > now);
    let found = if failed { None } else { uneven(draft, service) };
    let Some((from, to)) = found else {
        nothing(draft, service);
        return;
    };
    let moved = slots.iter().rev().find(|s| s.host == Some(from));
    let Some((moved, keeper)) = moved.and_then(|s| Some((s, s.keeper?))) else {
        return;
    };
    let attempt = moved.view.next_attempt();
    if service.spec.fence {
        draft.desire(keeper, Desired::Shutdown);
        draft.unkeep(&service.id, from);
        let hold = moved.view.hold(&service.spec, Order::StopFirst, draft);
        let begin = Begin {
            attempt,
            hold,
            ..Begin::default()
        };
        draft.create(service, moved.view.slot, begin);
    } else {
        draft.create_at(service, moved.view.slot, attempt, to);
    }
}

/// The task that was to take the place of the one that still fills the slot, and failed.
fn failed_move<'a>(slot: &Standpoint<'_, 'a>) -> Option<&'a Task> {
    let keeper = slot.keeper?;
    let newest = slot.view.newest()?;
    (newest.attempt > keeper.attempt && ended_itself(newest)).then_some(newest)
}

/// From which host to which a task is to be moved; none, if all is as even as it can be.
fn uneven(draft: &Draft<'_>, service: &Service) -> Option<(usize, usize)> {
    let placement = &service.spec.placement;
    let hosts = draft.hosts.all.iter().enumerate();
    let places: Vec<_> = hosts
        .filter(|(_, h)| h.ready() && unfit(h.node, placement).is_none())
        .map(|(at, host)| Place {
            at,
            tasks: draft
                .kept
                .get(service.id.as_str())
                .and_then(|kept| kept.get(&at))
                .copied()
                .unwrap_or(0),
            room: host.has_room(&service.id, placement),
        })
        .collect();
    let levels = Levels::of(&placement.preferences);
    between(draft, &levels, 0, places)
}

struct Place {
    at: usize,
    tasks: u64,
    room: bool,
}

/// Looks between the branches of a level, and if these are even within each of them.
fn between(
    draft: &Draft<'_>,
    levels: &Levels,
    level: usize,
    places: Vec<Place>,
) -> Option<(usize, usize)> {
    if level == levels.depth() {
        return apart(&places.iter().map(std::slice::from_ref).collect::<Vec<_>>());
    }
    let mut branches: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
    for place in places {
        let value = levels.value(level, draft.hosts.all[place.at].node);
        branches.entry(value).or_default().push(place);
    }
    let found = apart(&branches.values().map(Vec::as_slice).collect::<Vec<_>>());
    found.or_else(|| {
        branches
            .into_values()
            .find_map(|places| between(draft, levels, level + 1, places))
    })
}

/// The fullest host of the fullest branch, and the emptiest with room of the emptiest that has one, if they differ by two.
fn apart(branches: &[&[Place]]) -> Option<(usize, usize)> {
    let tasks = |branch: &[Place]| branch.iter().map(|p| p.tasks).sum::<u64>();
    let fullest = branches.iter().rev().max_by_key(|b| tasks(b))?;
    let roomy = branches.iter().filter(|b| b.iter().any(|p| p.room));
    let emptiest = roomy.min_by_key(|b| tasks(b))?;
    if tasks(fullest) < tasks(emptiest) + 2 {
        return None;
    }
    let from = fullest.iter().rev().max_by_key(|p| p.tasks)?;
    let to = emptiest.iter().filter(|p| p.room).min_by_key(|p| p.tasks)?;
    Some((from.at, to.at))
}
