//! The mesh as the scheduler sees it: what is wanted and what there is, out of the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use nuncio_orchestration::{
    Availability, Cluster, Desired, Node, Service, Spec, Task, TaskState, Update,
};
use nuncio_registry::{Catalog, DesiredKind, DesiredRecord, TaskRecord, TaskStatusRecord};
use serde::{Deserialize, Serialize};

use super::parsed::Parsed;
use super::services::ServiceState;
use super::spec;
use super::time::{Moment, Seen};

/// How long after a host's lease has ended its fenced tasks may still run there: the host notices by itself that it has
/// lost the registry, and ends them.
const FENCE_GRACE: u64 = 20_000;

/// How an operator wants a host to be used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct NodeWish {
    pub(crate) availability: Availability,
    pub(crate) labels: BTreeMap<String, String>,
}

impl NodeWish {
    pub(crate) fn of(catalog: &Catalog, node: &str) -> Self {
        let record = catalog.desired.get(DesiredKind::Node, node);
        record
            .and_then(|record| serde_json::from_value(record.spec.clone()).ok())
            .unwrap_or_default()
    }
}

/// Milliseconds since 1970 of a time in RFC 3339.
pub(super) fn millis(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// A time in RFC 3339 of milliseconds since 1970.
pub(crate) fn timestamp(millis: u64) -> String {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis)
        .unwrap_or_default()
        .to_string()
}

/// The mesh at that moment, as it was seen to become so.
pub(super) fn cluster(catalog: &Catalog, parsed: &Parsed, seen: &Seen, now: Moment) -> Cluster {
    let nodes = catalog.nodes.values().map(|node| {
        let wish = NodeWish::of(catalog, &node.id);
        let machine = node.machine.clone().unwrap_or_default();
        let node = Node {
            id: node.id.clone(),
            name: node.name.clone(),
            address: Some(node.address),
            alive: catalog.alive.contains(&node.id),
            since: seen.host(&node.id, now),
            availability: wish.availability,
            role_manager: true,
            labels: wish.labels,
            engine_labels: machine.labels,
            os: machine.os,
            arch: machine.arch,
            cpus: machine.nano_cpus,
            memory: machine.memory,
        };
        (node.id.clone(), node)
    });
    let services = catalog.desired.all(DesiredKind::Service);
    let services = services.filter_map(|record| {
        let service = parsed.service(record).service.clone()?;
        let update = update(catalog, record);
        Some((service.id.clone(), Service { update, ..service }))
    });
    let tasks = catalog.desired.tasks.values();
    let tasks = tasks.filter_map(|record| {
        let task = timed(catalog, record, parsed, seen, now)?;
        Some((record.id.clone(), task))
    });
    Cluster {
        now: now.millis,
        frozen: catalog.stale.is_some(),
        fence_grace: FENCE_GRACE,
        nodes: nodes.collect(),
        services: services.collect(),
        tasks: tasks.collect(),
    }
}

/// A service, but for how far its update has come.
pub(super) fn service(record: &DesiredRecord) -> Option<Service> {
    let state = ServiceState::of(record);
    let read = |value: &serde_json::Value, version: u64, akin: BTreeSet<u64>| -> Option<Spec> {
        let parsed = spec::parse(value).ok()?;
        let spec = spec::scheduled(&parsed, version).ok()?;
        Some(Spec { akin, ..spec })
    };
    let parsed = spec::parse(&record.spec).ok()?;
    let previous = state
        .previous
        .filter(|_| state.back.is_none())
        .and_then(|previous| read(&previous.spec, previous.spec_version, previous.akin));
    Some(Service {
        id: record.id.clone(),
        name: record.name.clone(),
        spec: Spec {
            akin: state.akin,
            ..spec::scheduled(&parsed, state.spec_version).ok()?
        },
        previous,
        update: None,
        rebalance: state.rebalance,
        auto_rebalance: spec::rebalances(&parsed),
    })
}

/// How far the service's update has come; of what was wanted before it tells nothing any more.
pub(crate) fn update(catalog: &Catalog, record: &DesiredRecord) -> Option<Update> {
    let update = catalog.desired.get(DesiredKind::Update, &record.id);
    match update.filter(|update| update.version == record.version) {
        Some(update) => serde_json::from_value(update.state.clone()).ok(),
        None => ServiceState::of(record).back,
    }
}

/// A task, as the leader wrote it and its host tells of it, with the times that these say.
pub(super) fn task(catalog: &Catalog, record: &Arc<TaskRecord>, parsed: &Parsed) -> Option<Task> {
    let written = parsed.task(record);
    let mut task = written.task.clone()?;
    if let Some(status) = catalog.desired.status(record)
        && task.state != TaskState::Orphaned
    {
        take_over(&mut task, status);
    }
    // What all hosts have seen once is written down, so that they need not say it for ever.
    task.announced |= !written.is_found || is_announced(catalog, &task);
    task.drained = task.ended();
    Some(task)
}

/// A [`task`] whose times are the mesh's: how long it ran is what its host says, which may not know what time it is.
fn timed(
    catalog: &Catalog,
    record: &Arc<TaskRecord>,
    parsed: &Parsed,
    seen: &Seen,
    now: Moment,
) -> Option<Task> {
    let mut task = task(catalog, record, parsed)?;
    let status = catalog.desired.status(record);
    if let Some(status) = status.filter(|status| state_of(status) == Some(task.state)) {
        let changed = seen.told(status, now);
        let ran = |started| changed.saturating_sub(task.changed.saturating_sub(started));
        task.started = task.started.map(ran);
        task.changed = changed;
    }
    Some(task)
}

/// The state that a task's host tells; `None`, if this daemon has no such word.
fn state_of(status: &TaskStatusRecord) -> Option<TaskState> {
    serde_json::from_value(status.state.clone().into()).ok()
}

/// Whether a task has ended, as its host tells.
pub(super) fn has_ended(status: &TaskStatusRecord) -> bool {
    state_of(status).is_some_and(TaskState::ended)
}

fn take_over(task: &mut Task, status: &TaskStatusRecord) {
    let state = state_of(status).unwrap_or(task.state);
    if state < task.state {
        return;
    }
    task.state = state;
    task.changed = millis(&status.since).unwrap_or(task.changed);
    task.started = status.started.as_deref().and_then(millis);
    task.exit_code = status.exit_code;
    task.healthy = status.healthy;
    task.message = Some(status.message.clone()).filter(|text| !text.is_empty());
    task.err = Some(status.error.clone()).filter(|text| !text.is_empty());
}

/// Whether every host that lives sees the task, or that it is no more.
fn is_announced(catalog: &Catalog, task: &Task) -> bool {
    catalog.alive.iter().all(|node| {
        let ack = catalog.desired.acks.get(node);
        ack.is_some_and(|ack| match task.desired {
            Desired::Running => ack.present.contains(&task.id),
            Desired::Shutdown | Desired::Remove => ack.gone.contains(&task.id),
        })
    })
}

/// Tasks whose coming or going somebody waits for: all hosts say what they see of them.
pub(super) fn awaited(catalog: &Catalog, parsed: &Parsed) -> BTreeSet<(String, bool)> {
    let tasks = catalog.desired.tasks.values();
    tasks
        .filter_map(|record| {
            let written = parsed.task(record);
            let task = written.task.as_ref()?;
            let status = catalog.desired.status(record);
            let ended = status.is_some_and(|status| has_ended(status));
            let comes = task.desired == Desired::Running;
            let is_given = task.node.is_some() && task.state != TaskState::Orphaned;
            (!ended && is_given && !(comes && task.announced)).then(|| (task.id.clone(), comes))
        })
        .collect()
}
