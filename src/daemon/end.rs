//! The end of a container: by itself or by request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nuncio_overlay::{NetNs, detach, veth_name};
use nuncio_runtime::{ExitStatus, Shim, cleanup};
use tokio::time::timeout;

use super::config::ContainerConfig;
use super::container::Container;
use super::outfit::owns_namespace;
use super::record::{Phase, Record};
use super::refusal::Refusal;
use super::restart::Patience;
use super::{Daemon, namespaces, signal};

/// Seconds between the stop signal and SIGKILL unless the container says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long a process may take to be gone after SIGKILL; a device that hangs can hold it longer.
const KILL: Duration = Duration::from_secs(10);

impl Daemon {
    /// Waits for the process's end, in a task of its own, and then gives back what the container held.
    pub(super) fn watch_over(self: &Arc<Self>, container: Arc<Container>, shim: Arc<Shim>) {
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let ended = shim.wait().await;
            drop(shim);
            let _turn = container.turn.lock().await;
            let patience = Patience::One;
            if let Err(error) = daemon.ended(&container, ended.ok(), patience).await {
                tracing::error!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "clean up after a container"
                );
            }
        });
    }

    /// Notes an end, after which the container is started again if its policy says so. Without a status the shim died
    /// first, and the process was killed after it.
    pub(super) async fn ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        status: Option<ExitStatus>,
        patience: Patience,
    ) -> anyhow::Result<()> {
        let (code, oom) = status
            .as_ref()
            .map_or((137, false), |status| (status.code, status.oom));
        let lost = status.is_none();
        container.abandon();
        let torn_down = self.tear_down(container).await;
        let health = container.health();
        let (again, ran) = container.update(|record| {
            record.health = health;
            note_end(record, code, oom, lost)
        })?;
        tracing::info!(
            id = container.id,
            name = container.name(),
            code,
            oom,
            again,
            "ended"
        );
        if oom {
            self.tell(container, "oom");
        }
        let ran_for = ran.as_secs().to_string();
        let more = [("execDuration", ran_for), ("exitCode", code.to_string())];
        self.tell_more(container, "die", more);
        let record = container.view();
        self.tell_networks(&record, "disconnect");
        self.tell_unmounts(&record);
        container.set_status(|status| {
            status.running = false;
            status.restarting = again;
            status.ends += 1;
            status.code = code;
        });
        if again {
            let pause = container.pause_after(ran);
            self.restart_later(Arc::clone(container), pause, patience);
            return torn_down;
        }
        let removes = container.view().config.host.auto_remove && !container.is_kept();
        let removed = if removes {
            self.discard(container, true).await
        } else {
            Ok(())
        };
        torn_down.and(removed)
    }

    /// Gives back all that a container holds of the host while it runs; what is not there is no error.
    pub(super) async fn tear_down(&self, container: &Container) -> anyhow::Result<()> {
        for endpoint in container.view().endpoints.values() {
            self.presence.withdraw(&endpoint.network_id, &container.id);
        }
        container.set_active(false);
        self.give_back(container, true).await
    }

    /// As [`Daemon::tear_down`], of a container of which this daemon has told nobody. Without `rules` the kernel's are left
    /// for another time.
    pub(super) async fn give_back(&self, container: &Container, rules: bool) -> anyhow::Result<()> {
        let record = container.view();
        let mut failures = Vec::new();
        let mut note = |what: &str, result: anyhow::Result<()>| {
            failures.extend(result.err().map(|error| format!("{what}: {error:#}")));
        };
        note(
            "cgroup and process",
            clean_up(container.run_directory.clone()).await,
        );
        if rules {
            note("network rules", self.sync().await);
        }
        for endpoint in record.endpoints.values() {
            let link = veth_name(&container.id, endpoint.index);
            note(&link, detach(&link).await.map_err(Into::into));
        }
        if owns_namespace(&record.config.host.network) {
            note(
                "network namespace",
                NetNs::remove(&container.netns).map_err(Into::into),
            );
        }
        note("shared memory", namespaces::unmount_shm(container));
        note(
            "secrets and configs",
            self.unmount_task_files(&container.id),
        );
        note(
            "root file system",
            self.images
                .unmount(&container.directory)
                .await
                .map_err(Into::into),
        );
        self.detach_volumes(&record).await;
        match failures.is_empty() {
            true => Ok(()),
            false => Err(anyhow::anyhow!(failures.join("; "))),
        }
    }

    /// Asks a container to end, by `wanted` or its own stop signal, and kills it after `seconds`; `false` if it does
    /// not run.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        seconds: Option<i64>,
        wanted: Option<&str>,
    ) -> anyhow::Result<bool> {
        let config = container.view().config;
        let number = match wanted {
            Some(wanted) => signal::number(wanted)?,
            None => stop_signal(&config)?,
        };
        if self.call_off(container).await? {
            self.tell(container, "stop");
            return Ok(true);
        }
        let Some(shim) = container.shim().filter(|_| container.is_running()) else {
            await_end(container).await?; // it may be ending by itself
            return self.call_off(container).await;
        };
        let default = config.stop_timeout.unwrap_or(STOP_TIMEOUT);
        let seconds = seconds.unwrap_or(default);
        let mut status = container.status();
        let ended = async {
            // The sender lives as long as the container that this call holds.
            let _ = status.wait_for(|status| !status.running).await;
        };
        tokio::pin!(ended);
        container.update(|record| record.stopped = true)?;
        self.leave_service(container).await;
        if shim.signal(number).await.is_err() && !container.is_running() {
            return Ok(true);
        }
        self.tell_more(container, "kill", [("signal", number.to_string())]);
        self.thaw_to_end(container).await;
        match u64::try_from(seconds) {
            Err(_) => ended.await, // negative: as long as it takes
            Ok(seconds) => {
                if timeout(Duration::from_secs(seconds), &mut ended)
                    .await
                    .is_err()
                {
                    let _ = shim.signal(signal::KILL).await; // fails if it has ended just now
                    self.tell_more(container, "kill", [("signal", signal::KILL.to_string())]);
                    timeout(KILL, ended)
                        .await
                        .with_context(|| outlives(container))?;
                }
            }
        }
        self.tell(container, "stop");
        Ok(true)
    }

    /// Stops, then starts.
    pub(crate) async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        seconds: Option<i64>,
        wanted: Option<&str>,
    ) -> anyhow::Result<()> {
        container.set_kept(true); // --rm is for ends that are final
        let stopped = self.stop(container, seconds, wanted).await;
        container.set_kept(false);
        stopped?;
        self.start(container).await?;
        self.tell(container, "restart");
        Ok(())
    }

    /// Sends a signal, by name or number; an empty one is SIGKILL. One that is to end the container also keeps its
    /// restart policy from starting it again.
    pub(crate) async fn kill(
        &self,
        container: &Arc<Container>,
        wanted: &str,
    ) -> anyhow::Result<()> {
        let number = signal::number(if wanted.is_empty() { "KILL" } else { wanted })?;
        let ends = number == signal::KILL || number == stop_signal(&container.view().config)?;
        if ends && self.call_off(container).await? {
            return Ok(());
        }
        let ended = || {
            let id = &container.id;
            Refusal::conflict(format!(
                "cannot kill container: {id}: container {id} is not running"
            ))
        };
        let Some(shim) = container.shim().filter(|_| container.is_running()) else {
            return Err(ended().into());
        };
        if ends {
            container.update(|record| record.stopped = true)?;
        }
        match shim.signal(number).await {
            Err(error) if error.has_ended() => return Err(ended().into()), // just now, by itself
            sent => sent?,
        }
        self.tell_more(container, "kill", [("signal", number.to_string())]);
        if ends {
            self.thaw_to_end(container).await;
        }
        if number == signal::KILL {
            await_end(container).await?;
        }
        Ok(())
    }
}

/// Writes an end into the record; whether it is to be started again, and how long it ran.
fn note_end(record: &mut Record, code: i32, oom: bool, lost: bool) -> (bool, Duration) {
    let finished = jiff::Timestamp::now();
    let started = match record.phase {
        Phase::Running { started, .. } => Some(started),
        Phase::Created | Phase::Restarting { .. } | Phase::Exited { .. } => None,
    };
    let ran = started.map(|started| finished.duration_since(started));
    let ran = ran.and_then(|ran| Duration::try_from(ran).ok());
    let again = record.config.host.restart.wants_again(record, code);
    record.phase = if again {
        record.restarts += 1;
        Phase::Restarting {
            code,
            started,
            finished,
            oom,
        }
    } else {
        let error = if lost {
            "the process that held the container was killed".into()
        } else {
            String::new()
        };
        Phase::Exited {
            code,
            started,
            finished,
            oom,
            error,
        }
    };
    (again, ran.unwrap_or_default())
}

/// The number of the signal that stops a container.
fn stop_signal(config: &ContainerConfig) -> Result<i32, Refusal> {
    match config.stop_signal.as_str() {
        "" => signal::number("TERM"),
        wanted => signal::number(wanted),
    }
}

/// Waits until a container whose process has been killed, or has ended by itself, has given back what it held.
pub(super) async fn await_end(container: &Container) -> anyhow::Result<()> {
    let mut status = container.status();
    let ended = timeout(KILL, status.wait_for(|status| !status.running)).await;
    ended
        .with_context(|| outlives(container))?
        .context("the daemon is ending")?;
    Ok(())
}

fn outlives(container: &Container) -> String {
    format!(
        "container {} is still there {KILL:?} after SIGKILL",
        container.id
    )
}

/// Ends what is left of a container's processes, and removes its cgroups and run directory.
pub(super) async fn clean_up(run_directory: PathBuf) -> anyhow::Result<()> {
    let cleaning = tokio::task::spawn_blocking(move || cleanup(&run_directory));
    Ok(cleaning.await??)
}
