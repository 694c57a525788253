//! Brings the tasks of each service near to what is wanted of it.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Begin, Candidate, Draft, Waiting};
use super::hosts::unfit;
use super::slot::{SlotView, Standing, ended_itself, order, standing};
use super::{history, jobs, rebalance, restart, rollout};
use crate::{Availability, Desired, Mode, Order, Service, Slot, Task};

/// What a slot has come to, as far as updates and rebalancing are concerned.
pub(super) struct Standpoint<'v, 'a> {
    pub(super) view: &'v SlotView<'a>,
    /// The tasks that are to run.
    pub(super) current: Vec<&'a Task>,
    pub(super) keeper: Option<&'a Task>,
    /// The host that the slot counts for, when tasks are spread.
    pub(super) host: Option<usize>,
    /// It has a task of another version, or none of this one where one should have been.
    pub(super) dirty: bool,
    /// A task of it is up.
    pub(super) serving: bool,
    /// A new task is not up yet, or an old one has not ended.
    pub(super) under_way: bool,
}

/// Plans for all services, and ends what is of none.
pub(super) fn bring_near<'a>(draft: &mut Draft<'a>) {
    let cluster = draft.cluster;
    let mut slots = SlotView::all(cluster);
    for service in cluster.services.values() {
        let views = slots.remove(service.id.as_str()).unwrap_or_default();
        match service.spec.mode {
            Mode::Replicated { replicas } => replicated(draft, service, &views, replicas),
            Mode::Global => global(draft, service, &views),
            Mode::ReplicatedJob { total, concurrent } => {
                jobs::replicated(draft, service, &views, total, concurrent);
            }
            Mode::GlobalJob => jobs::global(draft, service, &views),
        }
    }
    for view in slots.values().flat_map(BTreeMap::values) {
        history::remove(draft, view);
    }
}

fn replicated<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    views: &BTreeMap<&'a Slot, SlotView<'a>>,
    replicas: u64,
) {
    let (mut kept, gone): (Vec<_>, Vec<_>) = views.values().partition(|view| {
        let going = view.newest().is_none_or(|t| t.desired == Desired::Remove);
        matches!(view.slot, Slot::Replica(_)) && !going
    });
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut removed = Vec::new();
    if kept.len() > wanted {
        kept = surplus_last(draft, service, kept);
        removed = kept.split_off(wanted);
        kept.sort_by_key(|view| view.slot);
    }
    for view in gone.into_iter().chain(removed) {
        history::remove(draft, view);
    }
    let mut standpoints: Vec<_> = kept
        .iter()
        .map(|view| settle(draft, service, view))
        .collect();
    let missing = wanted.saturating_sub(kept.len());
    let mut numbers = (1..).map(Slot::Replica).filter(|s| !views.contains_key(s));
    for slot in numbers.by_ref().take(missing) {
        draft.create(service, &slot, Begin::default());
    }
    rollout::advance(draft, service, &mut standpoints, missing > 0);
    if missing == 0 {
        rebalance::step(draft, service, &standpoints);
    }
}

/// The slots, those that are best missed last: what does not run, then what is on the fullest hosts.
fn surplus_last<'v, 'a>(
    draft: &Draft<'a>,
    service: &Service,
    mut views: Vec<&'v SlotView<'a>>,
) -> Vec<&'v SlotView<'a>> {
    let mut on_host: BTreeMap<&str, u64> = BTreeMap::new();
    views.sort_by_key(|view| view.slot);
    let mut ranked: Vec<_> = views
        .into_iter()
        .map(|view| {
            let current = view.current(&draft.hosts);
            let keeper = SlotView::keeper(&current, service.spec.version, &draft.hosts);
            let state = current.iter().map(|t| (t.up(), t.state)).max();
            let nth = keeper.and_then(|t| t.node.as_deref()).map(|node| {
                let count = on_host.entry(node).or_default();
                // What does not run makes no host fuller.
                *count += u64::from(state.is_some_and(|(up, _)| up));
                *count
            });
            let rank = (
                current.is_empty(),
                nth.is_none(),
                std::cmp::Reverse(state),
                nth,
                view.slot,
            );
            (rank, view)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, view)| view).collect()
}

fn global<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    views: &BTreeMap<&'a Slot, SlotView<'a>>,
) {
    let (wanted, staying) = eligible(draft, service);
    let mut standpoints = Vec::new();
    for view in views.values() {
        let Slot::Node(id) = view.slot else {
            history::remove(draft, view);
            continue;
        };
        let stays = wanted.contains(id.as_str())
            || (staying.contains(id.as_str()) && !view.current(&draft.hosts).is_empty());
        if stays {
            let mut standpoint = settle(draft, service, view);
            // A host that is given no more tasks is given no other version either.
            standpoint.dirty &= wanted.contains(id.as_str());
            standpoints.push(standpoint);
        } else if draft.cluster.nodes.contains_key(id) {
            leave(draft, service, view);
        } else {
            history::remove(draft, view);
        }
    }
    let slots = wanted.iter().map(|id| Slot::Node((*id).to_owned()));
    let missing: Vec<_> = slots.filter(|slot| !views.contains_key(slot)).collect();
    for slot in &missing {
        draft.create(service, slot, Begin::default());
    }
    rollout::advance(draft, service, &mut standpoints, !missing.is_empty());
    rebalance::nothing(draft, service);
}

/// Which hosts are to have a task of a global service, and which others may keep one.
pub(super) fn eligible<'a>(
    draft: &Draft<'a>,
    service: &Service,
) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let mut wanted = BTreeSet::new();
    let mut staying = BTreeSet::new();
    for host in &draft.hosts.all {
        if !host.node.alive || unfit(host.node, &service.spec.placement).is_some() {
            continue;
        }
        match host.node.availability {
            Availability::Active => wanted.insert(host.node.id.as_str()),
            Availability::Pause => staying.insert(host.node.id.as_str()),
            Availability::Drain => false,
        };
    }
    (wanted, staying)
}

/// Ends what a global service has on a host that it is not to be on, and keeps its history.
pub(super) fn leave<'a>(draft: &mut Draft<'a>, service: &Service, view: &SlotView<'a>) {
    for task in &view.tasks {
        if task.desired == Desired::Running {
            draft.end(task, Desired::Shutdown);
        }
    }
    history::tidy(draft, service, view);
}

/// Does for a slot what needs no step of an update: ends what is lost or left over, and fills it if nothing does.
fn settle<'v, 'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    view: &'v SlotView<'a>,
) -> Standpoint<'v, 'a> {
    let spec = &service.spec;
    let order = order(spec, rollout::config(service).order);
    history::tidy(draft, service, view);
    for task in &view.tasks {
        let lost = !task.ended() && standing(task, &draft.hosts) == Standing::Lost;
        if lost || ended_itself(task) {
            draft.desire(task, Desired::Shutdown);
        }
    }
    let current = view.current(&draft.hosts);
    let keeper = SlotView::keeper(&current, spec.version, &draft.hosts);
    let mut standpoint = Standpoint {
        view,
        serving: current.iter().any(|t| t.up()),
        dirty: false,
        under_way: view.ending(&draft.hosts),
        keeper,
        host: None,
        current,
    };
    match keeper {
        None => refill(draft, service, &mut standpoint, order),
        Some(keeper) => {
            standpoint.host = draft
                .hosts
                .of(keeper.node.as_deref())
                .filter(|_| standing(keeper, &draft.hosts) == Standing::Fine);
            if let Some(host) = standpoint.host {
                draft.keep(&service.id, host);
            }
            attend(draft, service, &mut standpoint, keeper, order);
        }
    }
    standpoint
}

/// Fills a slot that nothing fills, unless its last task has ended and is not to be followed.
fn refill<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    standpoint: &mut Standpoint<'_, 'a>,
    order: Order,
) {
    let view = standpoint.view;
    let begin = match view.newest().filter(|t| ended_itself(t)) {
        Some(ended) => {
            let next = restart::successor(&service.spec.restart, view, ended, draft.cluster.now);
            let Some(next) = next else {
                standpoint.dirty = ended.spec_version != service.spec.version;
                return;
            };
            next
        }
        None => Begin {
            attempt: view.next_attempt(),
            ..Begin::default()
        },
    };
    standpoint.under_way = true;
    let hold = view.hold(&service.spec, order, draft);
    draft.create(service, view.slot, Begin { hold, ..begin });
}

/// Looks after a slot that a task fills.
fn attend<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    standpoint: &mut Standpoint<'_, 'a>,
    keeper: &'a Task,
    order: Order,
) {
    let (spec, view) = (&service.spec, standpoint.view);
    let fresh = keeper.spec_version == spec.version;
    let others: Vec<_> = standpoint
        .current
        .iter()
        .copied()
        .filter(|t| t.id != keeper.id)
        .collect();
    let mut leaving = BTreeSet::new();
    for other in &others {
        if other.node.is_none() {
            draft.forget(other);
            continue;
        }
        let evicted = standing(other, &draft.hosts) == Standing::Evicted;
        let superseded = keeper.up()
            || (order == Order::StopFirst && evicted)
            || (spec.fence && keeper.node.is_some());
        if superseded {
            draft.desire(other, Desired::Shutdown);
            leaving.insert(other.id.as_str());
        }
    }
    let serves = |t: &&Task| t.up() && !leaving.contains(t.id.as_str());
    standpoint.serving = standpoint.current.iter().copied().any(|t| serves(&t));
    standpoint.dirty = match order {
        Order::StopFirst => {
            standpoint
                .current
                .iter()
                .any(|t| t.node.is_some() && t.spec_version != spec.version)
                || !fresh
        }
        Order::StartFirst => !fresh,
    };
    // Stop-first, and only the half of a step was carried out: it is taken again in its turn.
    let half = order == Order::StopFirst && standpoint.dirty;
    standpoint.under_way |= fresh && !keeper.up() && !half;
    standpoint.under_way |= order == Order::StartFirst && others.iter().any(|t| t.node.is_some());
    if standing(keeper, &draft.hosts) == Standing::Evicted {
        standpoint.under_way = true;
        replace(draft, service, standpoint, order);
    } else if !fresh && let Some(ended) = view.failed_after(keeper, spec.version) {
        // Start-first, and the new one has failed before it took the old one's place.
        standpoint.dirty = false;
        let next = restart::successor(&spec.restart, view, ended, draft.cluster.now);
        if let Some(begin) = next {
            standpoint.under_way = true;
            let hold = view.hold(spec, order, draft);
            draft.create(service, view.slot, Begin { hold, ..begin });
        }
    } else if keeper.node.is_none() {
        let hold = view.hold(spec, order, draft);
        draft.waiting.push(Waiting {
            service: &service.id,
            what: Candidate::Known(keeper),
            hold,
        });
    }
}

/// Puts another task into the place of the one that fills a slot: by a step of an update, or because that has to go.
pub(super) fn replace<'a>(
    draft: &mut Draft<'a>,
    service: &'a Service,
    standpoint: &mut Standpoint<'_, 'a>,
    order: Order,
) {
    let (spec, view) = (&service.spec, standpoint.view);
    let mut begin = Begin {
        attempt: view.next_attempt(),
        ..Begin::default()
    };
    if let Some(keeper) = standpoint.keeper
        && let Some(ended) = view.failed_after(keeper, spec.version)
    {
        match restart::successor(&spec.restart, view, ended, draft.cluster.now) {
            Some(next) => begin = next,
            None => return,
        }
    }
    let ready = standpoint.current.iter().any(|t| stays(t, service, draft));
    if let Some(host) = standpoint.host.take() {
        draft.unkeep(&service.id, host);
    }
    for task in &standpoint.current {
        let stays = stays(task, service, draft);
        if task.node.is_none() && !stays {
            draft.forget(task);
        } else if order == Order::StopFirst && !stays {
            draft.desire(task, Desired::Shutdown);
        }
    }
    if !ready {
        let hold = match order {
            Order::StopFirst if standpoint.current.iter().any(|t| t.node.is_some()) => {
                Some("waits for its predecessor to end".to_owned())
            }
            _ => view.hold(spec, order, draft),
        };
        draft.create(service, view.slot, Begin { hold, ..begin });
    }
    standpoint.under_way = true;
}

/// Whether a task is what its slot is to have in the end.
fn stays(task: &Task, service: &Service, draft: &Draft<'_>) -> bool {
    task.spec_version == service.spec.version && standing(task, &draft.hosts) == Standing::Fine
}
