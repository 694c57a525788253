//! One container in the daemon's memory.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nuncio_runtime::{Attach, AttachOptions, Shim};
use tokio::sync::{oneshot, watch};

use super::health::{Health, HealthStatus};
use super::record::{Phase, Record};
use super::{restart, state_file};

/// The file in a container's directory that makes it one.
pub(super) const RECORD: &str = "container.json";

/// What those who wait for a container see.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Status {
    pub(crate) running: bool,
    /// It does not run, but is about to be started again by its restart policy.
    pub(crate) restarting: bool,
    /// How often it has ended since the daemon started.
    pub(crate) ends: u64,
    /// Exit code of the last end.
    pub(crate) code: i32,
    /// Why the last start failed, else empty.
    pub(crate) error: String,
    pub(crate) removed: bool,
}

/// A container: its record, the shim that holds its process, and those who wait for either.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(super) created: jiff::Timestamp,
    /// `DATA_ROOT/containers/<id>`.
    pub(crate) directory: PathBuf,
    /// `EXEC_ROOT/run/<id>`, the shim's.
    pub(crate) run_directory: PathBuf,
    /// `EXEC_ROOT/netns/<id>`.
    pub(crate) netns: PathBuf,
    /// Held over start, end and removal, so that these never overlap.
    pub(crate) turn: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    status: watch::Sender<Status>,
    process: Mutex<Process>,
    health: Mutex<Option<Health>>,
}

#[derive(Default)]
struct Process {
    /// Set from the moment the host begins to make room for it until that room is given back.
    active: bool,
    /// Set from the moment it is asked to end.
    leaving: bool,
    shim: Option<Arc<Shim>>,
    waiting: Vec<Waiting>,
    /// How long its restart policy last waited before it started it again.
    pause: Duration,
    /// Its next end is not its last, so that `--rm` does not hold.
    kept: bool,
}

/// A client that attached before the process was there.
struct Waiting {
    options: AttachOptions,
    answer: oneshot::Sender<Attach>,
}

impl Container {
    pub(crate) fn new(
        record: Record,
        directory: PathBuf,
        exec_root: &std::path::Path,
    ) -> Arc<Self> {
        let id = record.id.clone();
        let (code, error) = match (&record.failure, &record.phase) {
            (Some(failure), _) => (failure.code, failure.error.clone()),
            (None, Phase::Exited { code, .. } | Phase::Restarting { code, .. }) => {
                (*code, String::new())
            }
            (None, Phase::Created | Phase::Running { .. }) => (0, String::new()),
        };
        Arc::new(Self {
            created: record.created,
            directory,
            run_directory: exec_root.join("run").join(&id),
            netns: exec_root.join("netns").join(&id),
            turn: tokio::sync::Mutex::new(()),
            health: Mutex::new(record.health.clone()),
            record: Mutex::new(record),
            status: watch::Sender::new(Status {
                code,
                error,
                ..Status::default()
            }),
            process: Mutex::default(),
            id,
        })
    }

    pub(crate) fn view(&self) -> Record {
        locked(&self.record).clone()
    }

    pub(crate) fn name(&self) -> String {
        locked(&self.record).name.clone()
    }

    pub(crate) fn label(&self, label: &str) -> Option<String> {
        locked(&self.record).config.labels.get(label).cloned()
    }

    pub(crate) fn has_links(&self) -> bool {
        !locked(&self.record).config.host.links.is_empty()
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status.borrow().running
    }

    /// Whether it is frozen, by request.
    pub(crate) fn is_paused(&self) -> bool {
        matches!(
            locked(&self.record).phase,
            Phase::Running { paused: true, .. }
        )
    }

    /// Whether it has ended and is about to be started again.
    pub(crate) fn is_restarting(&self) -> bool {
        self.status.borrow().restarting
    }

    /// Whether the host holds addresses, ports and names for its process.
    pub(crate) fn is_active(&self) -> bool {
        locked(&self.process).active
    }

    pub(crate) fn set_active(&self, active: bool) {
        let mut process = locked(&self.process);
        (process.active, process.leaving) = (active, false);
    }

    /// Whether it is to get no more work, since it has been asked to end.
    pub(crate) fn is_leaving(&self) -> bool {
        locked(&self.process).leaving
    }

    pub(crate) fn set_leaving(&self) {
        locked(&self.process).leaving = true;
    }

    /// Changes the record, in its file first.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> anyhow::Result<T> {
        let mut record = locked(&self.record);
        let mut next = record.clone();
        let result = change(&mut next);
        state_file::write_soon(&self.directory.join(RECORD), &next)?;
        *record = next;
        Ok(result)
    }

    pub(crate) fn set_status(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.directory.join(format!("{}-json.log", self.id))
    }

    /// The running process's shim.
    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        locked(&self.process).shim.clone()
    }

    /// Attaches now, or as soon as the next start has made the process, before it runs its first instruction.
    pub(crate) async fn attach(&self, options: AttachOptions) -> anyhow::Result<Option<Attach>> {
        let answer = {
            let mut process = locked(&self.process);
            match process.shim.clone() {
                Some(shim) => Err(shim),
                None => {
                    let (answer, answered) = oneshot::channel();
                    process
                        .waiting
                        .retain(|waiting| !waiting.answer.is_closed());
                    process.waiting.push(Waiting { options, answer });
                    Ok(answered)
                }
            }
        };
        match answer {
            Err(shim) => Ok(Some(shim.attach(options).await?)),
            Ok(answered) => Ok(answered.await.ok()),
        }
    }

    /// Makes `shim` the container's and connects those who attached early.
    pub(crate) async fn adopt(&self, shim: Arc<Shim>) -> anyhow::Result<()> {
        let waiting = {
            let mut process = locked(&self.process);
            process.active = true;
            process.shim = Some(Arc::clone(&shim));
            std::mem::take(&mut process.waiting)
        };
        for Waiting { options, answer } in waiting {
            if !answer.is_closed() {
                // A client that has gone meanwhile takes its stream with it.
                let _ = answer.send(shim.attach(options).await?);
            }
        }
        Ok(())
    }

    /// How long to wait before it is started again after it `ran` so long.
    pub(super) fn pause_after(&self, ran: Duration) -> Duration {
        let mut process = locked(&self.process);
        process.pause = restart::pause(process.pause, ran);
        process.pause
    }

    /// What is known of its health; `None` if it is not checked.
    pub(crate) fn health(&self) -> Option<Health> {
        locked(&self.health).clone()
    }

    pub(super) fn set_health(&self, health: Option<Health>) {
        *locked(&self.health) = health;
    }

    pub(super) fn with_health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> Option<T> {
        locked(&self.health).as_mut().map(change)
    }

    pub(super) fn is_kept(&self) -> bool {
        locked(&self.process).kept
    }

    pub(super) fn set_kept(&self, kept: bool) {
        locked(&self.process).kept = kept;
    }

    /// Forgets the process, and tells those who still wait to attach that there is none.
    pub(crate) fn abandon(&self) {
        // What does not run is not well, as Docker has it.
        self.with_health(|health| health.status = HealthStatus::Unhealthy);
        let mut process = locked(&self.process);
        process.shim = None;
        process.waiting.clear();
    }
}

/// Locks state whose holders never panic between two writes that belong together.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
