//! The end of a container: by itself, by request, or found dead after the daemon was away.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nuncio_overlay::{NetNs, detach, veth_name};
use nuncio_runtime::{ConnectError, ExitStatus, Shim, cleanup};
use tokio::time::timeout;

use super::container::{Container, locked};
use super::outfit::owns_namespace;
use super::record::{Phase, Record};
use super::refusal::Refusal;
use super::{Daemon, services, signal, state_file};

/// Seconds between the stop signal and SIGKILL unless the container says otherwise.
const STOP_TIMEOUT: u32 = 10;
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
            if let Err(error) = daemon.ended(&container, ended.ok()).await {
                tracing::error!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "clean up after a container"
                );
            }
        });
    }

    /// Notes an end. Without a status the shim died first, and the process was killed after it.
    async fn ended(
        &self,
        container: &Arc<Container>,
        status: Option<ExitStatus>,
    ) -> anyhow::Result<()> {
        let (code, oom) = status
            .as_ref()
            .map_or((137, false), |status| (status.code, status.oom));
        let finished = jiff::Timestamp::now();
        container.abandon();
        let torn_down = self.tear_down(container).await;
        container.update(|record| {
            let started = match record.phase {
                Phase::Running { started, .. } => Some(started),
                Phase::Created | Phase::Exited { .. } => None,
            };
            let error = if status.is_none() {
                "the process that held the container was killed".into()
            } else {
                String::new()
            };
            record.phase = Phase::Exited {
                code,
                started,
                finished,
                oom,
                error,
            };
        })?;
        tracing::info!(
            id = container.id,
            name = container.name(),
            code,
            oom,
            "ended"
        );
        container.set_status(|status| {
            status.running = false;
            status.ends += 1;
            status.code = code;
        });
        let removed = if container.view().config.host.auto_remove {
            self.discard(container, true).await
        } else {
            Ok(())
        };
        torn_down.and(removed)
    }

    /// Gives back all that a container holds of the host while it runs; what is not there is no error.
    pub(super) async fn tear_down(&self, container: &Container) -> anyhow::Result<()> {
        let record = container.view();
        let mut failures = Vec::new();
        let mut note = |what: &str, result: anyhow::Result<()>| {
            failures.extend(result.err().map(|error| format!("{what}: {error:#}")));
        };
        for endpoint in record.endpoints.values() {
            self.presence.withdraw(&endpoint.network_id, &container.id);
        }
        container.set_active(false);
        note(
            "cgroup and process",
            clean_up(container.run_directory.clone()).await,
        );
        note("network rules", self.sync().await);
        for index in 0..record.endpoints.len() {
            let link = veth_name(&container.id, u8::try_from(index).unwrap_or(u8::MAX));
            note(&link, detach(&link).await.map_err(Into::into));
        }
        if owns_namespace(&record.config.host.network) {
            note(
                "network namespace",
                NetNs::remove(&container.netns).map_err(Into::into),
            );
        }
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

    /// Removes a container that does not run: directory, addresses, name, and with `volumes` those that have no name.
    pub(super) async fn discard(
        &self,
        container: &Arc<Container>,
        volumes: bool,
    ) -> anyhow::Result<()> {
        let mounts = container.view().mounts;
        locked(&self.addresses).release(&container.id)?;
        state_file::remove(&container.directory)
            .with_context(|| format!("remove {}", container.directory.display()))?;
        state_file::remove(&container.run_directory)?;
        self.forget_container(&container.id);
        self.release_unused_links()?;
        let removed = match volumes {
            true => self.remove_anonymous(&mounts).await,
            false => Ok(()),
        };
        container.set_status(|status| status.removed = true);
        removed
    }

    /// Asks a container to end, and kills it after `seconds`; `false` if it does not run.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        seconds: Option<i64>,
    ) -> anyhow::Result<bool> {
        let Some(shim) = container.shim().filter(|_| container.is_running()) else {
            return Ok(false);
        };
        let config = container.view().config;
        let wanted = if config.stop_signal.is_empty() {
            "TERM"
        } else {
            &config.stop_signal
        };
        let default = i64::from(config.stop_timeout.unwrap_or(STOP_TIMEOUT));
        let seconds = seconds.unwrap_or(default);
        let mut status = container.status();
        let ended = async {
            // The sender lives as long as the container that this call holds.
            let _ = status.wait_for(|status| !status.running).await;
        };
        tokio::pin!(ended);
        self.leave_service(container).await;
        if shim.signal(signal::number(wanted)?).await.is_err() && !container.is_running() {
            return Ok(true);
        }
        match u64::try_from(seconds) {
            Err(_) => ended.await, // negative: as long as it takes
            Ok(seconds) => {
                if timeout(Duration::from_secs(seconds), &mut ended)
                    .await
                    .is_err()
                {
                    let _ = shim.signal(signal::KILL).await; // fails if it has ended just now
                    let late = || {
                        format!(
                            "container {} is still there {KILL:?} after SIGKILL",
                            container.id
                        )
                    };
                    timeout(KILL, ended).await.with_context(late)?;
                }
            }
        }
        Ok(true)
    }

    /// Stops, then starts.
    pub(crate) async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        seconds: Option<i64>,
    ) -> anyhow::Result<()> {
        self.stop(container, seconds).await?;
        self.start(container).await.map(|_| ())
    }

    /// Sends a signal, by name or number; an empty one is SIGKILL.
    pub(crate) async fn kill(
        &self,
        container: &Arc<Container>,
        wanted: &str,
    ) -> anyhow::Result<()> {
        let number = signal::number(if wanted.is_empty() { "KILL" } else { wanted })?;
        let Some(shim) = container.shim().filter(|_| container.is_running()) else {
            let id = &container.id;
            return Err(Refusal::conflict(format!(
                "cannot kill container: {id}: container {id} is not running"
            ))
            .into());
        };
        shim.signal(number).await?;
        if number == signal::KILL {
            let mut status = container.status();
            let late = || {
                format!(
                    "container {} is still there {KILL:?} after SIGKILL",
                    container.id
                )
            };
            let ended = timeout(KILL, status.wait_for(|status| !status.running)).await;
            ended.with_context(late)?.context("the daemon is ending")?;
        }
        Ok(())
    }

    /// Removes a container; one that runs only with `force`.
    pub(crate) async fn remove(
        &self,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> anyhow::Result<()> {
        if container.is_running() {
            if !force {
                return Err(Refusal::conflict(format!(
                    "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                    container.name()
                ))
                .into());
            }
            if let Err(error) = self.kill(container, "KILL").await
                && container.is_running()
            {
                return Err(error);
            }
        }
        let _turn = container.turn.lock().await;
        if container.status().borrow().removed {
            return Ok(()); // by --rm, meanwhile
        }
        if container.is_running() {
            return Err(Refusal::conflict(format!(
                "container {} was started meanwhile",
                container.name()
            ))
            .into());
        }
        self.tear_down(container).await?;
        self.discard(container, volumes).await
    }

    /// Finds out what became of every container while no daemon was there.
    pub(super) async fn take_over(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut dead = Vec::new();
        for container in self.containers() {
            let Phase::Running { .. } = container.view().phase else {
                dead.push((container, None));
                continue;
            };
            match Shim::connect(&container.run_directory).await {
                Ok(shim) => {
                    let shim = Arc::new(shim);
                    container.set_status(|status| status.running = true);
                    container.adopt(Arc::clone(&shim)).await?;
                    self.publish(&container.view());
                    self.watch_over(container, shim);
                }
                Err(ConnectError::Gone(status) | ConnectError::Dead(status)) => {
                    dead.push((container, Some(Some(status))));
                }
                Err(error) => {
                    tracing::warn!(
                        id = container.id,
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "lost its shim"
                    );
                    dead.push((container, Some(None)));
                }
            }
        }
        for (container, end) in dead {
            let _turn = container.turn.lock().await;
            let done = match end {
                Some(status) => self.ended(&container, status).await,
                None if container.view().config.host.auto_remove => self
                    .tear_down(&container)
                    .await
                    .and(self.discard(&container, true).await),
                None => self.tear_down(&container).await,
            };
            if let Err(error) = done {
                tracing::error!(
                    id = container.id,
                    error = format!("{error:#}"),
                    "clean up after a container"
                );
            }
        }
        self.release_orphans().await
    }

    /// Gives back what belongs to no container: run directories, namespaces and addresses that a crash left.
    async fn release_orphans(&self) -> anyhow::Result<()> {
        let known: Vec<Record> = self
            .containers()
            .iter()
            .map(|container| container.view())
            .collect();
        let is_known = |id: &str| known.iter().any(|record| record.id == id);
        for entry in std::fs::read_dir(self.options.exec_root.join("run"))? {
            let path = entry?.path();
            let id = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !is_known(&id) {
                clean_up(path).await?;
            }
        }
        for entry in std::fs::read_dir(self.options.exec_root.join("exec"))? {
            take_over_exec(entry?.path()).await?;
        }
        for entry in std::fs::read_dir(self.options.exec_root.join("netns"))? {
            let path = entry?.path();
            if !is_known(&path.file_name().unwrap_or_default().to_string_lossy()) {
                NetNs::remove(&path)?;
            }
        }
        let mut addresses = locked(&self.addresses);
        for owner in addresses.owners() {
            let stands_in = owner.starts_with("link:") || owner.starts_with(services::OWNER);
            if !stands_in && !is_known(&owner) {
                addresses.release(&owner)?;
            }
        }
        drop(addresses);
        self.release_unused_links()
    }
}

/// Lets an exec of the last daemon go on, and cleans up when it has ended. Who asked for it has lost it.
async fn take_over_exec(run_directory: PathBuf) -> anyhow::Result<()> {
    let Ok(shim) = Shim::connect(&run_directory).await else {
        return clean_up(run_directory).await;
    };
    tokio::spawn(async move {
        let ended = match shim.wait().await {
            Ok(_) => clean_up(run_directory).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = ended {
            tracing::warn!(error = format!("{error:#}"), "clean up after an exec");
        }
    });
    Ok(())
}

/// Ends what is left of a container's processes, and removes its cgroups and run directory.
async fn clean_up(run_directory: PathBuf) -> anyhow::Result<()> {
    let cleaning = tokio::task::spawn_blocking(move || cleanup(&run_directory));
    Ok(cleaning.await??)
}
