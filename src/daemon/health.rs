//! Health checks: a command that is run in a container again and again, and what it says of the container.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use nuncio_ambassador::Check;
use nuncio_runtime::{AttachOptions, ExecSpec, Shim};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::{ContainerConfig, HealthCheck};
use super::container::Container;
use super::offering::services_of;
use super::ran::Ran;
use super::record::{Phase, Record};
use super::service_check::{Kind, ServiceCheck};
use super::{Daemon, outfit, state_file};

/// Results that are remembered.
const LOG: usize = 5;
/// Bytes of a check's output that are remembered.
const OUTPUT: usize = 4096;
/// How long what was killed may take to be gone, before the next check comes without waiting for it.
const FAREWELL: Duration = Duration::from_secs(5);
/// Holds what is known of a running container's health, in its run directory: it need not outlive the process.
const FILE: &str = "health.json";
/// What a check that could not be run, or took too long, exits with.
const FAILED: i32 = -1;

/// What is known of a container's health.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) status: HealthStatus,
    /// Checks that failed in a row.
    pub(crate) streak: u32,
    /// The last results, the oldest first.
    pub(crate) log: VecDeque<CheckResult>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthStatus {
    /// No check has succeeded yet, and not enough have failed.
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How one check ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckResult {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// 0: all is well.
    pub(crate) code: i32,
    pub(crate) output: String,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            status: HealthStatus::Starting,
            streak: 0,
            log: VecDeque::new(),
        }
    }

    /// Takes a result in; what the status has become, if that is another than before. Failures do not count in a
    /// `grace`, which a container has while it starts.
    fn note(&mut self, result: CheckResult, retries: u32, grace: bool) -> Option<HealthStatus> {
        let before = self.status;
        if result.code == 0 {
            (self.status, self.streak) = (HealthStatus::Healthy, 0);
        } else if !(grace && before == HealthStatus::Starting) {
            self.streak += 1;
            if self.streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(result);
        (self.status != before).then_some(self.status)
    }
}

/// A check as an image's configuration has it. Go writes no list as `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ImageCheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: u32,
}

/// What the user asked for, and what the image says where the user said nothing. An image whose check cannot be read
/// has none.
pub(super) fn merged(asked: Option<HealthCheck>, image: Option<&Value>) -> Option<HealthCheck> {
    let image = image.and_then(|check| ImageCheck::deserialize(check).ok());
    let Some(image) = image else { return asked };
    let asked = asked.unwrap_or_default();
    let or = |asked: i64, image: i64| if asked == 0 { image } else { asked };
    Some(HealthCheck {
        test: match asked.test.is_empty() {
            true => image.test.unwrap_or_default(),
            false => asked.test,
        },
        interval: or(asked.interval, image.interval),
        timeout: or(asked.timeout, image.timeout),
        start_period: or(asked.start_period, image.start_period),
        start_interval: or(asked.start_interval, image.start_interval),
        retries: if asked.retries == 0 {
            image.retries
        } else {
            asked.retries
        },
    })
}

/// What a check does.
#[derive(Clone, Debug)]
enum Probe {
    /// Runs a command in the container.
    Command(Vec<String>),
    /// Asks the container at each of these ports.
    Ask { check: Check, ports: Vec<u16> },
}

/// A check as it is run, Docker's defaults filled in.
#[derive(Clone, Debug)]
struct Plan {
    probe: Probe,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    start_period: Duration,
    start_interval: Duration,
}

impl Plan {
    /// `None` if there is nothing to run.
    fn of(check: &HealthCheck) -> Option<Self> {
        let (kind, words) = check.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => ["/bin/sh", "-c"]
                .map(str::to_owned)
                .into_iter()
                .chain(words.iter().cloned())
                .collect(),
            _ => return None,
        };
        let or = |nanos: i64, default: u64| match u64::try_from(nanos) {
            Ok(nanos @ 1..) => Duration::from_nanos(nanos),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            probe: Probe::Command(command),
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            retries: if check.retries == 0 { 3 } else { check.retries },
            start_period: or(check.start_period, 0),
            start_interval: or(check.start_interval, 5),
        })
    }

    /// What the container's health check says, else what its labels say of its services.
    fn of_container(config: &ContainerConfig) -> Option<Self> {
        /// A service that has only begun is looked at more often, and may not listen yet.
        const STARTS: Duration = Duration::from_secs(5);
        const EAGER: Duration = Duration::from_millis(200);
        /// Checks of a service that fail in a row, before it is taken for down.
        const RETRIES: u32 = 2;
        let of_docker = config.healthcheck.as_ref().and_then(Self::of);
        if of_docker.is_some() {
            return of_docker;
        }
        let check = ServiceCheck::of(&config.labels).ok().flatten()?;
        let probe = match (&check.kind, check.of_ambassador()) {
            (Kind::Command(line), _) => {
                Probe::Command(["/bin/sh", "-c", line].map(str::to_owned).to_vec())
            }
            (_, Some(ask)) => {
                let offers = services_of(config);
                let ports = offers.iter().flat_map(|offer| &offer.ports);
                let tcp = ports.filter(|port| port.protocol == nuncio_registry::Protocol::Tcp);
                let ports: Vec<u16> = tcp.map(|port| port.port).collect();
                match ports.is_empty() {
                    false => Probe::Ask { check: ask, ports },
                    true => return None,
                }
            }
            (_, None) => return None,
        };
        Some(Self {
            probe,
            interval: check.interval,
            timeout: check.timeout,
            retries: RETRIES,
            start_period: STARTS,
            start_interval: check.interval.min(EAGER),
        })
    }

    /// How long to wait for the next check of a container of that status, which has run for so long.
    fn pause(&self, status: HealthStatus, ran: Duration) -> Duration {
        if status == HealthStatus::Starting && ran < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }
}

impl Daemon {
    /// Goes on with the checks of a container that the last daemon checked.
    pub(super) fn take_over_health(self: &Arc<Self>, container: &Arc<Container>) {
        let path = container.run_directory.join(FILE);
        let known = state_file::read(&path).unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(id = container.id, error, "what was known of its health");
            None
        });
        self.watch_health(container, known.unwrap_or_else(Health::new));
    }

    /// Checks a container that runs until it has ended, in a task of its own, if it has a check.
    pub(super) fn watch_health(self: &Arc<Self>, container: &Arc<Container>, known: Health) {
        let record = container.view();
        let plan = Plan::of_container(&record.config);
        let (Some(plan), Phase::Running { started, .. }) = (plan, record.phase) else {
            container.set_health(None);
            return;
        };
        container.set_health(Some(known));
        let (daemon, container) = (Arc::clone(self), Arc::clone(container));
        let mut status = container.status();
        let ends = status.borrow().ends;
        tokio::spawn(async move {
            let ended = status.wait_for(|status| status.ends > ends || !status.running);
            tokio::select! {
                _ = ended => {}
                () = daemon.check_again_and_again(&container, &plan, started, ends) => {}
            }
        });
    }

    async fn check_again_and_again(
        self: &Arc<Self>,
        container: &Arc<Container>,
        plan: &Plan,
        started: Timestamp,
        ends: u64,
    ) {
        let ran = Ran::since(started);
        loop {
            let health = container.health();
            let status = health.map_or(HealthStatus::Starting, |health| health.status);
            sleep(plan.pause(status, ran.so_far())).await;
            if container.is_paused() {
                continue;
            }
            let grace = ran.so_far() < plan.start_period;
            // A task of its own, which takes away what the check left even when the container ends meanwhile.
            let (daemon, checked) = (Arc::clone(self), Arc::clone(container));
            let check = plan.clone();
            let checking = tokio::spawn(async move { daemon.check(&checked, &check).await });
            let Ok(result) = checking.await else { return };
            if container.status().borrow().ends != ends {
                return;
            }
            let noted = container.with_health(|health| {
                let changed = health.note(result, plan.retries, grace);
                (changed, health.clone())
            });
            let Some((changed, health)) = noted else {
                return;
            };
            let kept = state_file::write_unsynced(&container.run_directory.join(FILE), &health);
            if let Err(error) = kept {
                let error = format!("{error:#}");
                tracing::warn!(id = container.id, error, "keep what is known of its health");
            }
            if let Some(status) = changed {
                self.tell(container, &format!("health_status: {}", status.word()));
                self.publish_health(container, ends).await;
            }
        }
    }

    /// Tells other hosts how a container is now, and has its services lead to it or not.
    async fn publish_health(&self, container: &Container, ends: u64) {
        {
            // What has ended meanwhile has been withdrawn, and must stay so.
            let _turn = container.turn.lock().await;
            if container.status().borrow().ends != ends || !container.is_running() {
                return;
            }
            self.publish(&container.view());
        }
        if let Err(error) = self.sync().await {
            let error = format!("{error:#}");
            tracing::warn!(id = container.id, error, "have others told of its health");
        }
    }

    /// One check.
    async fn check(&self, container: &Container, plan: &Plan) -> CheckResult {
        let start = Timestamp::now();
        let directory = self.options.exec_root.join("exec").join(super::new_id());
        let checked = match &plan.probe {
            Probe::Command(command) => {
                self.run_check(container, command, plan.timeout, &directory)
                    .await
            }
            Probe::Ask { check, ports } => Ok(ask(container, check, ports).await),
        };
        let (code, output) = match checked {
            Ok(found) => found,
            Err(error) => (FAILED, format!("{error:#}")),
        };
        CheckResult {
            start,
            end: Timestamp::now(),
            code,
            output,
        }
    }

    async fn run_check(
        &self,
        container: &Container,
        command: &[String],
        limit: Duration,
        directory: &std::path::Path,
    ) -> anyhow::Result<(i32, String)> {
        let spec = ExecSpec {
            args: command.to_vec(),
            env: outfit::environment(&container.view()),
            ..ExecSpec::default()
        };
        let deadline = Instant::now() + limit;
        let place = &container.run_directory;
        let shim = self.shims.spawn_exec(place, directory, &spec).await;
        let shim = match shim {
            Ok(shim) => shim,
            Err(error) => {
                super::end::clean_up(directory.to_owned()).await?;
                return Err(error.into());
            }
        };
        let exec = || {
            directory
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        for action in ["exec_create", "exec_start"] {
            let action = format!("{action}: {}", command.join(" "));
            self.tell_check(container, action, [("execID", exec())]);
        }
        let mut output = Vec::new();
        let ran = timeout_at(deadline, run(&shim, &mut output)).await;
        if ran.is_err() {
            // It may have ended just now.
            let _ = shim.signal_all(super::signal::KILL).await;
        }
        let gone = timeout(FAREWELL, shim.wait()).await;
        match gone {
            Ok(_) => super::end::clean_up(directory.to_owned()).await?,
            // Something that it began in the background has its output still.
            Err(_) => super::take_over::take_over_exec(directory.to_owned()).await?,
        }
        let code = match &gone {
            Ok(Ok(status)) => status.code.to_string(),
            _ => FAILED.to_string(),
        };
        let more = [("execID", exec()), ("exitCode", code)];
        self.tell_check(container, "exec_die".to_owned(), more);
        let text = text(&output);
        let Ok(ran) = ran else {
            let more = if text.is_empty() { "" } else { ": " };
            let took = format!("{limit:?}");
            return Ok((
                FAILED,
                format!("Health check exceeded timeout ({took}){more}{text}"),
            ));
        };
        ran?;
        let status = gone.context("it closed its output but does not end")??;
        Ok((status.code, text))
    }
}

/// Asks a container at its ports, from its host; the first that does not answer decides.
async fn ask(container: &Container, check: &Check, ports: &[u16]) -> (i32, String) {
    let record = container.view();
    let Some(endpoint) = record.endpoints.values().next() else {
        return (FAILED, "it is in no network".to_owned());
    };
    for port in ports {
        let asked = check.ask((endpoint.address, *port).into()).await;
        if let Err(fault) = asked {
            return (1, fault);
        }
    }
    (0, String::new())
}

/// What is known of a container that is about to run; `None`, if nobody looks.
pub(super) fn begun(config: &ContainerConfig) -> Option<Health> {
    Plan::of_container(config).map(|_| Health::new())
}

/// What was known of the health of a container that runs, when the last daemon ended.
pub(super) fn remembered(exec_root: &Path, record: &Record) -> Option<HealthStatus> {
    Plan::of_container(&record.config)?;
    let path = exec_root.join("run").join(&record.id).join(FILE);
    let known = state_file::read::<Health>(&path).ok().flatten();
    Some(known.map_or(HealthStatus::Starting, |health| health.status))
}

/// Runs a check's process to the end of its output, of which the beginning is kept.
async fn run(shim: &Shim, output: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut attached = shim
        .attach(AttachOptions {
            stdin: false,
            stdout: true,
            stderr: true,
        })
        .await?;
    shim.start().await?;
    while let Some(piece) = attached.output.next().await? {
        let room = (OUTPUT + 1).saturating_sub(output.len());
        output.extend_from_slice(&piece.bytes[..piece.bytes.len().min(room)]);
    }
    Ok(())
}

fn text(output: &[u8]) -> String {
    match output.get(..OUTPUT) {
        Some(beginning) if output.len() > OUTPUT => {
            format!("{}...", String::from_utf8_lossy(beginning))
        }
        _ => String::from_utf8_lossy(output).into_owned(),
    }
}

#[cfg(test)]
mod tests;
