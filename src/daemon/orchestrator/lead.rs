//! Leading the mesh: one host at a time plans tasks and writes them; when it is gone, the next goes on from what is written.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nuncio_orchestration::{Action, Cluster, Desired, Task, TaskState, plan};
use nuncio_registry::{
    Catalog, DesiredKind, DesiredRecord, Fence, LeadError, LeaderRecord, LeaderWrite, TaskRecord,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::cluster;
use super::time::Seen;
use crate::daemon::Daemon;

/// How long a failed attempt to lead, or to write, is not repeated.
const PAUSE: Duration = Duration::from_secs(1);
/// At least so often it is planned anew, whatever happens or does not.
const AT_LEAST: Duration = Duration::from_secs(30);
/// Writes of one round. What is left is planned again.
const ROUND: usize = 1_000;

/// Leads whenever nobody else does, until `stop`.
pub(in crate::daemon) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut leading = Leading {
        daemon: Arc::clone(&daemon),
        fence: None,
        seen: Seen::default(),
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = leading.on_and_on() => {}
    }
    if let Some(fence) = leading.fence
        && let Err(error) = daemon.registry.abdicate(fence).await
    {
        tracing::warn!(
            error = format!("{:#}", anyhow::Error::from(error)),
            "lead no more"
        );
    }
}

struct Leading {
    daemon: Arc<Daemon>,
    /// Set while this host leads.
    fence: Option<Fence>,
    /// Noted whoever leads, so that the next to lead knows it too.
    seen: Seen,
}

impl Leading {
    async fn on_and_on(&mut self) {
        let mut catalog = self.daemon.catalog_changes.clone();
        let mut presence = self.daemon.presence.state();
        let mut planned: Option<Arc<Catalog>> = None;
        loop {
            let known = catalog.borrow_and_update().clone();
            self.daemon.mesh_time.heed(&known, &self.daemon.parsed);
            self.seen.note(&known, self.daemon.mesh_time.now().at);
            let mut wake = AT_LEAST;
            let lease = presence.borrow_and_update().lease;
            match self.step(&known, lease, planned.as_deref()).await {
                Ok(Some(next)) => {
                    planned = Some(known);
                    wake = next.min(AT_LEAST);
                }
                Ok(None) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "plan the mesh's tasks");
                    planned = None;
                    sleep(PAUSE).await;
                    continue;
                }
            }
            tokio::select! {
                changed = catalog.changed() => if changed.is_err() { return },
                changed = presence.changed() => if changed.is_err() { return },
                () = sleep(wake) => planned = None,
            }
        }
    }

    /// Plans once, if this host leads or can; when to plan again. `None`: nothing that matters has changed.
    async fn step(
        &mut self,
        catalog: &Arc<Catalog>,
        lease: Option<i64>,
        planned: Option<&Catalog>,
    ) -> anyhow::Result<Option<Duration>> {
        if catalog.stale.is_some() {
            self.fence = None; // whether it still leads is not known
            return Ok(None);
        }
        let Some(lease) = lease else {
            self.fence = None;
            return Ok(None);
        };
        let me = &self.daemon.node.id;
        let leader = catalog.desired.leader.as_ref();
        if leader.is_some_and(|leader| leader.node != *me) {
            self.fence = None;
            return Ok(None);
        }
        if leader.is_none() || self.fence.is_none() {
            self.fence = self.stand(lease).await?;
        }
        let Some(fence) = self.fence else {
            return Ok(None);
        };
        if catalog.revision < fence.revision() {
            return Ok(None); // what the former leader wrote last may still be to come
        }
        if planned.is_some_and(|planned| !differs(planned, catalog)) {
            return Ok(None);
        }
        let now = self.daemon.mesh_time.now();
        let mesh = cluster::cluster(catalog, &self.daemon.parsed, &self.seen, now);
        let planned = plan(&mesh);
        let wake = planned.wake_at.map_or(AT_LEAST, |at| {
            Duration::from_millis(at.saturating_sub(mesh.now).max(1))
        });
        let writes = writes(catalog, &mesh, &planned.actions);
        let several = writes.len() > ROUND;
        let written = self
            .daemon
            .registry
            .write_as_leader(fence, &writes[..writes.len().min(ROUND)])
            .await;
        match written {
            Ok(0) => {}
            Ok(revision) => self.daemon.know(revision).await,
            Err(LeadError::Deposed) => {
                tracing::info!("another host leads now");
                self.fence = None;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
        self.change_services(&planned.actions).await?;
        Ok(Some(match several {
            true => Duration::from_millis(1),
            false => wake,
        }))
    }

    async fn stand(&self, lease: i64) -> anyhow::Result<Option<Fence>> {
        let leader = LeaderRecord {
            node: self.daemon.node.id.clone(),
            since: Timestamp::now().to_string(),
        };
        let fence = self.daemon.registry.lead(&leader, lease).await?;
        if fence.is_some() && self.fence.is_none() {
            tracing::info!("this host leads the mesh");
        }
        Ok(fence)
    }

    /// What changes services themselves, which others may change at the same time.
    async fn change_services(&self, actions: &[Action]) -> anyhow::Result<()> {
        for action in actions {
            match action {
                Action::RollBack { service, update } => {
                    self.daemon.roll_back(service, update).await?;
                }
                Action::Rebalanced { service } => self.daemon.note_rebalanced(service).await?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether something has changed by which it is planned.
fn differs(before: &Catalog, after: &Catalog) -> bool {
    before.desired != after.desired
        || before.alive != after.alive
        || before.nodes != after.nodes
        || before.stale != after.stale
}

/// What is to be written for the actions, in their order.
fn writes(catalog: &Catalog, mesh: &Cluster, actions: &[Action]) -> Vec<LeaderWrite> {
    let mut writes = Writes {
        catalog,
        now: mesh.now,
        changed: std::collections::BTreeMap::new(),
        order: Vec::new(),
        other: Vec::new(),
    };
    // What all hosts have seen is written down.
    for (id, task) in &mesh.tasks {
        let known = catalog.desired.tasks.get(id);
        let was = known.is_some_and(|known| known.task["announced"] == true);
        if task.announced
            && !was
            && task.desired == Desired::Running
            && task.node.is_some()
            && task.state == TaskState::Running
        {
            writes.change(id, |task| task.announced = true);
        }
    }
    for action in actions {
        writes.add(action);
    }
    let mut all: Vec<LeaderWrite> = Vec::new();
    for id in writes.order {
        if let Some(record) = writes.changed.remove(&id) {
            all.push(LeaderWrite::Task(Box::new(record)));
        }
    }
    all.extend(writes.other);
    all
}

struct Writes<'a> {
    catalog: &'a Catalog,
    /// By the time of the mesh.
    now: u64,
    changed: std::collections::BTreeMap<String, TaskRecord>,
    order: Vec<String>,
    other: Vec<LeaderWrite>,
}

impl Writes<'_> {
    fn add(&mut self, action: &Action) {
        let now = self.now;
        match action {
            Action::Create(task) => self.create(task),
            Action::Assign { task, node } => self.change(task, |task| {
                task.node = Some(node.clone());
                task.state = TaskState::Assigned;
                task.changed = now;
                task.reason = None;
            }),
            Action::Desire { task, desired } => self.change(task, |task| {
                if task.desired == Desired::Running && *desired != Desired::Running {
                    (task.announced, task.drained) = (false, false);
                }
                task.desired = *desired;
            }),
            Action::Explain { task, reason } => self.change(task, |task| {
                task.state = TaskState::Pending;
                task.reason = Some(reason.clone());
            }),
            Action::Adopt {
                task,
                spec_version,
                placement,
            } => self.change(task, |task| {
                task.spec_version = *spec_version;
                task.placement = placement.clone();
            }),
            Action::Orphan { task } => self.change(task, |task| {
                task.state = TaskState::Orphaned;
                task.changed = now;
            }),
            Action::Progress { service, update } => {
                self.other.extend(progress(self.catalog, service, update));
            }
            Action::Forget { task } => {
                self.changed.remove(task);
                let node = self.catalog.desired.tasks.get(task);
                self.other.push(LeaderWrite::ForgetTask {
                    id: task.clone(),
                    node: node.and_then(|task| task.node.clone()),
                });
            }
            Action::RollBack { .. } | Action::Rebalanced { .. } => {}
        }
    }

    fn create(&mut self, task: &Task) {
        if self.catalog.desired.tasks.contains_key(&task.id) {
            return;
        }
        let Some(service) = self
            .catalog
            .desired
            .get(DesiredKind::Service, &task.service)
        else {
            return;
        };
        let record = TaskRecord {
            id: task.id.clone(),
            service: task.service.clone(),
            node: task.node.clone(),
            task: serde_json::to_value(task).unwrap_or_default(),
            spec: service.spec.clone(),
            updated: Timestamp::now().to_string(),
        };
        self.order.push(task.id.clone());
        self.changed.insert(task.id.clone(), record);
    }

    /// Changes a task as it is written: what its host tells of it is not the leader's to write.
    fn change(&mut self, id: &str, change: impl FnOnce(&mut Task)) {
        let known = self.changed.get(id).cloned();
        let known = known.or_else(|| self.catalog.desired.tasks.get(id).map(|it| (**it).clone()));
        let Some(mut record) = known else {
            return;
        };
        let Ok(mut task) = serde_json::from_value::<Task>(record.task.clone()) else {
            return;
        };
        change(&mut task);
        record.node.clone_from(&task.node);
        record.task = serde_json::to_value(&task).unwrap_or_default();
        record.updated = Timestamp::now().to_string();
        if self.changed.insert(id.to_owned(), record).is_none() {
            self.order.push(id.to_owned());
        }
    }
}

fn progress(
    catalog: &Catalog,
    service: &str,
    update: &nuncio_orchestration::Update,
) -> Option<LeaderWrite> {
    let record = catalog.desired.get(DesiredKind::Service, service)?;
    let now = Timestamp::now().to_string();
    Some(LeaderWrite::Update(Box::new(DesiredRecord {
        id: service.to_owned(),
        name: String::new(),
        version: record.version,
        created: now.clone(),
        updated: now,
        spec: serde_json::Value::Null,
        state: serde_json::to_value(update).unwrap_or_default(),
    })))
}
