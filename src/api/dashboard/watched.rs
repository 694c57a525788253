//! What a page is told of one container: once what it is, and then what it writes and what it takes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use nuncio_runtime::logs::{LogLine, LogQuery, Logs, Stream, read};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::there::There;
use super::{Answer, Server};
use crate::daemon::Daemon;
use crate::daemon::container::{Container, Status};
use crate::daemon::map::Elsewhere;
use crate::daemon::stats::Sample;

/// Lines of the log that are told of what was written before.
pub(super) const BEFORE: u64 = 500;
/// Lines that go into one message at most, and for how long they are gathered.
pub(super) const LINES: usize = 200;
pub(super) const GATHER: Duration = Duration::from_millis(50);
/// Between two looks at what it takes.
const PERIOD: Duration = Duration::from_secs(1);

/// A container in short, without its environment, where secrets often are.
pub(super) async fn container(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = match daemon.container(&id) {
        Ok(container) => container,
        Err(error) => {
            let Some(Elsewhere {
                host, name, state, ..
            }) = daemon.container_elsewhere(&id)
            else {
                return Err(error.into());
            };
            let told =
                json!({ "id": id, "name": name, "host": host, "here": false, "state": state });
            return Ok(Json(told).into_response());
        }
    };
    let record = container.view();
    let config = &record.config;
    let endpoints = record.endpoints.iter();
    let networks = endpoints.map(|(name, endpoint)| (name.clone(), endpoint.address.to_string()));
    let links = record.links.iter();
    let links = links.map(|link| json!({ "alias": link.alias, "target": link.target }));
    let mut command = config.entrypoint.clone().unwrap_or_default();
    command.extend(config.cmd.iter().flatten().cloned());
    let told = json!({
        "id": record.id,
        "name": record.name,
        "host": daemon.node.name,
        "here": true,
        "image": config.image,
        "command": command,
        "state": record.phase.name(),
        "created": record.created,
        "labels": config.labels,
        "networks": networks.collect::<std::collections::BTreeMap<_, _>>(),
        "links": links.collect::<Value>(),
    });
    Ok(Json(told).into_response())
}

/// A container that a page looks at.
pub(super) enum Watched {
    Here(Box<Here>),
    There(There),
}

impl Watched {
    /// Begins with what it wrote last.
    ///
    /// # Errors
    ///
    /// What to tell the page instead.
    pub(super) fn begin(daemon: &Arc<Daemon>, id: &str) -> Result<Self, Value> {
        match daemon.container(id) {
            Ok(container) => Here::begin(container, id).map(|here| Self::Here(Box::new(here))),
            Err(error) => match daemon.container_elsewhere(id) {
                Some(elsewhere) => There::begin(daemon, id, elsewhere)
                    .map(Self::There)
                    .map_err(|why| absent(id, &why)),
                None => Err(absent(id, &format!("{error:#}"))),
            },
        }
    }

    /// The next thing to tell of it. Nothing more comes once it is removed. Cancel safe.
    pub(super) async fn next(&mut self, daemon: &Daemon) -> Value {
        match self {
            Self::Here(here) => here.next(daemon).await,
            Self::There(there) => there.next().await,
        }
    }
}

/// One of this host.
pub(super) struct Here {
    container: Arc<Container>,
    status: watch::Receiver<Status>,
    logs: Option<Logs>,
    /// Tells the log that the container has ended.
    end: CancellationToken,
    /// Lines that are told together, and when.
    gathered: Vec<Value>,
    told_by: Instant,
    before: Option<Sample>,
    /// When it is looked at again.
    due: Instant,
    gone: bool,
}

/// What came of waiting.
enum Heard {
    Line(Value),
    Gathered,
    EndOfLog,
    Broken(String),
    Due,
    Ended,
    Removed,
}

impl Here {
    fn begin(container: Arc<Container>, id: &str) -> Result<Self, Value> {
        let status = container.status();
        let end = CancellationToken::new();
        if !status.borrow().running {
            end.cancel();
        }
        let query = LogQuery {
            tail: Some(BEFORE),
            follow: Some(end.clone()),
            ..LogQuery::default()
        };
        let logs = match container.view().config.host.no_log {
            true => None,
            false => read(&container.log_path(), query)
                .map_err(|error| absent(id, &format!("{:#}", anyhow::Error::from(error))))
                .map(Some)?,
        };
        Ok(Self {
            container,
            status,
            logs,
            end,
            gathered: Vec::new(),
            told_by: Instant::now(),
            before: None,
            due: Instant::now(),
            gone: false,
        })
    }

    async fn next(&mut self, daemon: &Daemon) -> Value {
        let id = self.container.id.clone();
        loop {
            if self.gathered.len() >= LINES {
                return self.lines();
            }
            match self.hear().await {
                Heard::Line(line) => {
                    if self.gathered.is_empty() {
                        self.told_by = Instant::now() + GATHER;
                    }
                    self.gathered.push(line);
                }
                Heard::Gathered => return self.lines(),
                Heard::EndOfLog => self.logs = None,
                Heard::Broken(why) => {
                    self.logs = None;
                    return absent(&id, &why);
                }
                Heard::Due => {
                    self.due = Instant::now() + PERIOD;
                    let now = daemon.sample(&self.container);
                    let told = taken(&id, self.before.as_ref(), now.as_ref());
                    self.before = now;
                    return told;
                }
                Heard::Ended => self.end.cancel(),
                Heard::Removed => {
                    self.gone = true;
                    return absent(&id, "it has been removed");
                }
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let Self {
            logs, status, gone, ..
        } = self;
        if *gone {
            return std::future::pending().await;
        }
        let line = async {
            match logs {
                Some(logs) => logs.next().await,
                None => std::future::pending().await,
            }
        };
        let ended = self.end.is_cancelled();
        tokio::select! {
            line = line => match line {
                Ok(Some(found)) => Heard::Line(self::line(&found)),
                Ok(None) => Heard::EndOfLog,
                Err(error) => Heard::Broken(format!("{:#}", anyhow::Error::from(error))),
            },
            () = sleep_until(self.told_by), if !self.gathered.is_empty() => Heard::Gathered,
            () = sleep_until(self.due) => Heard::Due,
            status = status.wait_for(|status| status.removed || !status.running && !ended) => match status {
                Ok(status) if !status.removed => Heard::Ended,
                _ => Heard::Removed,
            },
        }
    }

    /// The lines that were gathered.
    fn lines(&mut self) -> Value {
        let lines = std::mem::take(&mut self.gathered);
        json!({ "lines": { "id": self.container.id, "lines": lines } })
    }
}

pub(super) fn absent(id: &str, why: &str) -> Value {
    json!({ "absent": { "id": id, "why": why } })
}

fn line(line: &LogLine) -> Value {
    let stream = match line.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let time = Timestamp::try_from(line.time).map_or(0, Timestamp::as_millisecond);
    json!([stream, time, line.text])
}

/// What it takes now; rates, since the last look.
fn taken(id: &str, before: Option<&Sample>, now: Option<&Sample>) -> Value {
    let Some(now) = now else {
        return json!({ "taken": { "id": id, "runs": false } });
    };
    let share = before.map(|before| {
        let own = now.stats.cpu.total.saturating_sub(before.stats.cpu.total);
        let all = now.machine.saturating_sub(before.machine).max(1);
        own as f64 / all as f64 * f64::from(now.cpus) * 100.0
    });
    let traffic = |sample: &Sample| {
        let devices = sample.networks.values();
        devices.fold((0, 0), |(received, sent), device| {
            (received + device.received.bytes, sent + device.sent.bytes)
        })
    };
    let (received, sent) = traffic(now);
    json!({ "taken": {
        "id": id,
        "runs": true,
        "cpu": share,
        "memory": now.stats.memory.usage,
        "limit": now.stats.memory.limit.unwrap_or(u64::MAX).min(now.memory),
        "processes": now.stats.pids.0,
        "received": received,
        "sent": sent,
    } })
}
