//! This host's tasks: each is one container, begun and ended as the leader wants, whose state is told to the registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use nuncio_orchestration::{Desired, Task};
use nuncio_registry::{Catalog, TaskRecord, TaskStatusRecord};
use nuncio_runtime::image::{PullOptions, Reference, RegistryAuth};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::outfit::{self, Setting, TASK_ID};
use super::{cluster, spec, task_files};
use crate::daemon::Daemon;
use crate::daemon::container::Container;
use crate::daemon::health::HealthStatus;
use crate::daemon::ran::Ran;
use crate::daemon::record::Phase;

/// How long what the registry did not take is kept back before it is told again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a container's health is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A task that has no health check of its own counts as well after so long, even if it does not listen.
const LISTENS: Duration = Duration::from_secs(10);
/// A fenced task ends when the registry has not been heard from for so long.
const FENCED: Duration = Duration::from_secs(6);

/// Runs this host's tasks until `stop`; their containers go on.
pub(in crate::daemon) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = look_after(&daemon) => {}
        () = fence(&daemon) => {}
    }
}

async fn look_after(daemon: &Arc<Daemon>) {
    let mut catalog = daemon.catalog_changes.clone();
    let mut workers = BTreeMap::<String, AbortOnDropHandle<()>>::new();
    loop {
        let known = catalog.borrow_and_update().clone();
        workers.retain(|_, worker| !worker.is_finished());
        let here = known.desired.tasks.values();
        let here = here.filter(|task| task.node.as_ref() == Some(&daemon.node.id));
        for task in here {
            workers
                .entry(task.id.clone())
                .or_insert_with(|| Worker::begin(daemon, &task.id));
        }
        // Whose task is not known any more has nobody who wants it.
        if known.stale.is_none() && known.revision > 0 {
            for container in daemon.containers() {
                if let Some(task) = task_of(&container)
                    && !known.desired.tasks.contains_key(&task)
                {
                    workers
                        .entry(task.clone())
                        .or_insert_with(|| Worker::begin(daemon, &task));
                }
            }
        }
        if catalog.changed().await.is_err() {
            return;
        }
    }
}

/// Ends fenced tasks, once the registry has not been heard from for so long that others may be begun elsewhere.
async fn fence(daemon: &Arc<Daemon>) {
    let mut presence = daemon.presence.state();
    loop {
        if presence
            .wait_for(|state| state.lease.is_none())
            .await
            .is_err()
        {
            return;
        }
        let back = presence.wait_for(|state| state.lease.is_some());
        if tokio::time::timeout(FENCED, back).await.is_ok() {
            continue;
        }
        let catalog = daemon.catalog();
        for container in daemon.containers().into_iter().filter(|it| it.is_running()) {
            let task = task_of(&container).and_then(|id| catalog.desired.tasks.get(&id).cloned());
            let is_fenced = task.is_some_and(|task| {
                let parsed = spec::parse(&task.spec).unwrap_or_default();
                spec::scheduled(&parsed, 1).is_ok_and(|spec| spec.fence)
            });
            if is_fenced {
                let (id, name) = (&container.id, container.name());
                tracing::warn!(
                    id,
                    name,
                    "the registry is lost, and another host may run this task: it ends"
                );
                if let Err(error) = daemon.kill(&container, "KILL").await {
                    tracing::warn!(id, error = format!("{error:#}"), "end a fenced task");
                }
            }
        }
        if presence
            .wait_for(|state| state.lease.is_some())
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The task that a container is.
pub(super) fn task_of(container: &Container) -> Option<String> {
    container.label(TASK_ID)
}

/// What looks after one task, from when it is given to this host until it is forgotten.
struct Worker {
    daemon: Arc<Daemon>,
    wanted: Wanted,
    /// What was told last.
    told: TaskStatusRecord,
}

/// What the leader wants of one task, as this host hears of it.
struct Wanted {
    id: String,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// What was read last.
    read: Option<Arc<TaskRecord>>,
}

impl Wanted {
    fn of(id: &str, catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            id: id.to_owned(),
            catalog,
            read: None,
        }
    }

    /// The task as it is wanted now.
    fn read(&mut self) -> Option<(Arc<TaskRecord>, Task)> {
        self.read = self.catalog.borrow().desired.tasks.get(&self.id).cloned();
        let record = self.read.clone()?;
        let task = serde_json::from_value(record.task.clone()).ok()?;
        Some((record, task))
    }

    /// Waits until something else is wanted than was [read](Self::read), at whatever time after that it came.
    async fn changed(&mut self) {
        let other = self
            .catalog
            .wait_for(|catalog| catalog.desired.tasks.get(&self.id) != self.read.as_ref());
        if other.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Why a step ended.
enum Next {
    Again,
    Done,
}

impl Worker {
    fn begin(daemon: &Arc<Daemon>, id: &str) -> AbortOnDropHandle<()> {
        let catalog = daemon.catalog_changes.clone();
        let told = {
            let known = catalog.borrow();
            let key = (id.to_owned(), daemon.node.id.clone());
            known.desired.statuses.get(&key).map(|it| (**it).clone())
        };
        let mut worker = Self {
            daemon: Arc::clone(daemon),
            wanted: Wanted::of(id, catalog),
            told: told.unwrap_or_default(),
        };
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                match worker.step().await {
                    Ok(Next::Again) => {}
                    Ok(Next::Done) => return,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(task = worker.wanted.id, error, "look after a task");
                        sleep(AGAIN).await;
                    }
                }
            }
        }))
    }

    fn container(&self) -> Option<Arc<Container>> {
        let mut all = self.daemon.containers().into_iter();
        all.find(|container| task_of(container).as_ref() == Some(&self.wanted.id))
    }

    fn has_ended(&self) -> bool {
        cluster::has_ended(&self.told)
    }

    async fn step(&mut self) -> anyhow::Result<Next> {
        let container = self.container();
        let Some((record, task)) = self.wanted.read() else {
            if let Some(container) = container {
                if container.is_running() {
                    self.daemon.stop(&container, None, None).await?;
                }
                self.daemon.remove(&container, true, true).await?;
            }
            return Ok(Next::Done);
        };
        let given_up = task.state == nuncio_orchestration::TaskState::Orphaned;
        if task.desired != Desired::Running || given_up {
            return self.end(&record, &task, container).await;
        }
        if self.has_ended() {
            self.wanted.changed().await;
            return Ok(Next::Again);
        }
        match container {
            Some(container) if container.is_running() => self.follow(&container).await,
            Some(container) => match container.view().phase {
                Phase::Created => self.start(&container).await,
                _ => self.tell_end(&container).await,
            },
            None => self.prepare(&record, &task).await,
        }
    }

    /// Ends the task's container, or what is done to have one.
    async fn end(
        &mut self,
        record: &TaskRecord,
        task: &Task,
        container: Option<Arc<Container>>,
    ) -> anyhow::Result<Next> {
        if let Some(container) = container.filter(|container| container.is_running()) {
            // A service that is gone has nobody who would be led elsewhere.
            let wanted = self
                .wanted
                .catalog
                .borrow()
                .desired
                .get(nuncio_registry::DesiredKind::Service, &record.service)
                .is_some();
            if task.desired == Desired::Shutdown && wanted {
                self.daemon.drain_task(record, &container).await;
            }
            self.daemon.stop(&container, None, None).await?;
        }
        if !self.has_ended() {
            let container = self.container();
            let code = container
                .as_ref()
                .map(|container| container.status().borrow().code);
            let status = TaskStatusRecord {
                exit_code: code.map(i64::from),
                ..self.status("shutdown", "shutdown")
            };
            self.tell(status).await;
        }
        self.wanted.changed().await;
        Ok(Next::Again)
    }

    /// Gets the image and makes the container, unless something else is wanted meanwhile.
    async fn prepare(&mut self, record: &TaskRecord, task: &Task) -> anyhow::Result<Next> {
        self.tell(self.status("preparing", "preparing")).await;
        let daemon = Arc::clone(&self.daemon);
        let (wanted, version) = (record.clone(), task.spec_version);
        let pulling = async move { daemon.image_for_task(&wanted, version).await };
        let pulled = tokio::select! {
            pulled = pulling => pulled,
            () = self.wanted.changed() => return Ok(Next::Again),
        };
        // What is begun of a container is brought to its end.
        let (daemon, record, task) = (Arc::clone(&self.daemon), record.clone(), task.clone());
        let made = match pulled {
            Ok(()) => tokio::spawn(async move { daemon.make_task(&record, &task).await })
                .await
                .context("make a task's container")?,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            let status = TaskStatusRecord {
                error: format!("{error:#}"),
                ..self.status("rejected", "preparing")
            };
            self.tell(status).await;
        }
        Ok(Next::Again)
    }

    async fn start(&mut self, container: &Arc<Container>) -> anyhow::Result<Next> {
        self.tell(TaskStatusRecord {
            container: container.id.clone(),
            ..self.status("starting", "starting")
        })
        .await;
        if let Err(error) = self.daemon.start(container).await {
            let status = TaskStatusRecord {
                error: format!("starting container failed: {error:#}"),
                container: container.id.clone(),
                exit_code: Some(i64::from(container.status().borrow().code)),
                ..self.status("failed", "starting")
            };
            self.tell(status).await;
        }
        Ok(Next::Again)
    }

    /// Tells of a container that runs, until it ends or something else is wanted.
    async fn follow(&mut self, container: &Arc<Container>) -> anyhow::Result<Next> {
        let mut ends = container.status();
        let mut ran = None;
        loop {
            let Phase::Running { pid, started, .. } = container.view().phase else {
                return Ok(Next::Again);
            };
            let own_check = container.view().config.healthcheck.is_some();
            let health = container.health().map(|health| health.status);
            let (state, healthy) = match health {
                Some(HealthStatus::Unhealthy) if own_check => {
                    self.tell(TaskStatusRecord {
                        container: container.id.clone(),
                        pid: Some(pid),
                        started: Some(started.to_string()),
                        error: "task: unhealthy container".to_owned(),
                        ..self.status("failed", "started")
                    })
                    .await;
                    self.daemon.stop(container, None, None).await?;
                    return Ok(Next::Again);
                }
                Some(HealthStatus::Starting) if own_check => ("starting", false),
                Some(HealthStatus::Starting | HealthStatus::Unhealthy) => {
                    let ran = ran.get_or_insert_with(|| Ran::since(started));
                    ("running", ran.so_far() >= LISTENS)
                }
                Some(HealthStatus::Healthy) | None => ("running", true),
            };
            let status = TaskStatusRecord {
                container: container.id.clone(),
                pid: Some(pid),
                started: Some(started.to_string()),
                healthy,
                ports: ports(container),
                ..self.status(state, "started")
            };
            self.tell(status).await;
            let settled = health.is_none();
            tokio::select! {
                changed = ends.wait_for(|status| !status.running) => {
                    changed.context("a container without a state")?;
                    return Ok(Next::Again);
                }
                () = self.wanted.changed() => return Ok(Next::Again),
                () = sleep(LOOK), if !settled => {}
            }
        }
    }

    /// Tells how a container ended by itself.
    async fn tell_end(&mut self, container: &Arc<Container>) -> anyhow::Result<Next> {
        let code = match container.view().phase {
            Phase::Exited { code, .. } | Phase::Restarting { code, .. } => i64::from(code),
            Phase::Created | Phase::Running { .. } => return Ok(Next::Again),
        };
        let (state, error) = match code {
            0 => ("complete", String::new()),
            code => ("failed", format!("task: non-zero exit ({code})")),
        };
        let status = TaskStatusRecord {
            container: container.id.clone(),
            exit_code: Some(code),
            error,
            ..self.status(state, if code == 0 { "finished" } else { "started" })
        };
        self.tell(status).await;
        Ok(Next::Again)
    }

    fn status(&self, state: &str, message: &str) -> TaskStatusRecord {
        TaskStatusRecord {
            task: self.wanted.id.clone(),
            node: self.daemon.node.id.clone(),
            state: state.to_owned(),
            since: Timestamp::now().to_string(),
            message: message.to_owned(),
            container: self.told.container.clone(),
            started: self.told.started.clone(),
            ..TaskStatusRecord::default()
        }
    }

    /// Tells the registry how the task is, if that is news; as long as it takes.
    async fn tell(&mut self, mut status: TaskStatusRecord) {
        if status.state == self.told.state {
            status.since.clone_from(&self.told.since);
        }
        if status == self.told {
            return;
        }
        while let Err(error) = self.daemon.registry.put_task_status(&status).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(task = self.wanted.id, error, "say how a task is");
            sleep(AGAIN).await;
        }
        self.told = status;
    }
}

/// The ports of this host that lead to a container, in the words of Docker's API.
fn ports(container: &Container) -> serde_json::Value {
    let published = container.view().published;
    let ports = published.iter().map(|published| {
        json!({
            "Protocol": published.port.protocol.to_string(),
            "TargetPort": published.port.number,
            "PublishedPort": published.host_port,
            "PublishMode": "host",
        })
    });
    let mut ports: Vec<serde_json::Value> = ports.collect();
    ports.dedup(); // one of each family
    ports.into()
}

impl Daemon {
    /// Has the image of a task here.
    async fn image_for_task(&self, record: &TaskRecord, version: u64) -> anyhow::Result<()> {
        let parsed = spec::parse(&record.spec)?;
        let container = parsed.task_template.and_then(|task| task.container_spec);
        let image = container
            .and_then(|container| container.image)
            .unwrap_or_default();
        match self.find_image(&image).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let account = self.account_for(record, version).await?;
                self.pull_for_task(&image, account).await
            }
        }
    }

    /// Makes the container of a task, whose image is here.
    async fn make_task(&self, record: &TaskRecord, task: &Task) -> anyhow::Result<()> {
        let parsed = spec::parse(&record.spec)?;
        let setting = Setting {
            task: &record.id,
            slot: &task.slot,
            service: &record.service,
            node: &self.node.id,
            hostname: &self.node.name,
        };
        let body = outfit::body(&parsed, &setting)?;
        let mut config =
            crate::api::container_config(body).map_err(|error| anyhow::anyhow!(error.message))?;
        config.files = task_files::of(&parsed)?;
        self.await_files(&config.files).await?;
        let name = setting.name(parsed.name.as_deref().unwrap_or_default());
        self.create(Some(&name), config, None).await?;
        Ok(())
    }

    async fn pull_for_task(&self, image: &str, auth: RegistryAuth) -> anyhow::Result<()> {
        let reference: Reference = image.parse().map_err(anyhow::Error::new)?;
        let options = PullOptions {
            auth,
            registries: Arc::clone(self.registries()),
            platform: None,
        };
        // Its steps are of interest to nobody.
        let (progress, mut steps) = tokio::sync::mpsc::channel(1);
        let ignore = async { while steps.recv().await.is_some() {} };
        let (pulled, ()) = tokio::join!(self.images().pull(&reference, options, progress), ignore);
        pulled.with_context(|| format!("pull image {image}"))?;
        self.tell_image(
            "pull",
            &reference.familiar(),
            &reference.familiar_repository(),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(spec: &str) -> Arc<Catalog> {
        let mut catalog = Catalog::default();
        let task = TaskRecord {
            id: "t".to_owned(),
            service: "s".to_owned(),
            node: None,
            task: json!({}),
            spec: json!(spec),
            updated: String::new(),
        };
        catalog.desired.tasks.insert("t".to_owned(), Arc::new(task));
        Arc::new(catalog)
    }

    #[tokio::test]
    async fn a_change_between_reading_and_waiting_is_not_missed() {
        let (changes, receiver) = watch::channel(catalog("first"));
        let mut wanted = Wanted::of("t", receiver);
        wanted.read();
        changes.send_replace(catalog("second"));
        tokio::time::timeout(Duration::from_secs(10), wanted.changed())
            .await
            .expect("it has changed");
    }

    #[tokio::test]
    async fn what_is_written_anew_as_it_was_is_no_change() {
        let (changes, receiver) = watch::channel(catalog("first"));
        let mut wanted = Wanted::of("t", receiver);
        wanted.read();
        changes.send_replace(catalog("first"));
        let looked = tokio::time::timeout(Duration::ZERO, wanted.changed());
        assert!(looked.await.is_err());
    }
}
