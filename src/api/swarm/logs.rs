//! `GET /services/{id}/logs` and `/tasks/{id}/logs`: what the containers of tasks write, on whatever hosts they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http_body_util::BodyExt as _;
use nuncio_registry::{Catalog, TaskStatusRecord};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use crate::api::logs::{Asked, Lines};
use crate::api::query::Params;
use crate::api::raw_stream::{Channel, Framing};
use crate::api::slow::Reader;
use crate::api::version::ApiVersion;
use crate::api::{Answer, Server, log_lines};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

/// Lines of all tasks that wait for a client.
const WAITING: usize = 64;
/// The longest line that another host is believed to send.
const LONGEST: usize = 1 << 20;

/// Of which tasks the logs are wanted.
enum Wanted {
    Service(String),
    Task(String),
}

impl Wanted {
    /// What their hosts say of those that have a container.
    fn of(&self, catalog: &Catalog) -> Vec<Arc<TaskStatusRecord>> {
        let tasks = catalog.desired.tasks.values();
        let tasks = tasks.filter(|task| match self {
            Self::Service(id) => task.service == *id,
            Self::Task(id) => task.id == *id,
        });
        let said = tasks.filter_map(|task| catalog.desired.status(task).cloned());
        // The log of one that is yet to start would be found to have ended.
        let begun = |status: &Arc<TaskStatusRecord>| {
            let has_ended = status.exit_code.is_some() || status.state == "failed";
            !status.container.is_empty() && (status.started.is_some() || has_ended)
        };
        said.filter(begun).collect()
    }
}

/// A line as the host of its container tells it.
#[derive(Deserialize)]
struct Line {
    time: String,
    stream: String,
    text: String,
}

pub(super) async fn of_service(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    RawQuery(query): RawQuery,
    Extension(version): Extension<ApiVersion>,
    reader: Reader,
) -> Answer {
    let service = daemon.service(&id)?;
    let framing = framing(&service.spec);
    let wanted = Wanted::Service(service.id.clone());
    let gathered = Gathered::new(&daemon, wanted, service.id.clone(), asked, query, framing)?;
    Ok(gathered.answer(version, reader))
}

pub(super) async fn of_task(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    RawQuery(query): RawQuery,
    Extension(version): Extension<ApiVersion>,
    reader: Reader,
) -> Answer {
    let task = daemon.task(&id)?.record;
    let framing = framing(&task.spec);
    let wanted = Wanted::Task(task.id.clone());
    let gathered = Gathered::new(&daemon, wanted, task.service.clone(), asked, query, framing)?;
    Ok(gathered.answer(version, reader))
}

fn framing(spec: &serde_json::Value) -> Framing {
    Framing::of(spec["TaskTemplate"]["ContainerSpec"]["TTY"] == true)
}

/// The logs of several tasks, on their way into one.
struct Gathered {
    daemon: Arc<Daemon>,
    wanted: Wanted,
    service: String,
    asked: Asked,
    query: String,
    framing: Framing,
}

impl Gathered {
    fn new(
        daemon: &Arc<Daemon>,
        wanted: Wanted,
        service: String,
        asked: Asked,
        query: Option<String>,
        framing: Framing,
    ) -> Result<Self, Refusal> {
        if !asked.stdout.0 && !asked.stderr.0 {
            return Err(Refusal::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        Ok(Self {
            daemon: Arc::clone(daemon),
            wanted,
            service,
            asked,
            query: query.unwrap_or_default(),
            framing,
        })
    }

    fn answer(self, version: ApiVersion, reader: Reader) -> axum::response::Response {
        let framing = self.framing;
        let (sender, frames) = mpsc::channel(WAITING);
        let what = format!("logs of service {}", self.service);
        let follows = self.asked.follow.0;
        tokio::spawn(self.gather(sender));
        let frames = ReceiverStream::new(frames).map(anyhow::Ok);
        let last = move |why: &str| framing.frame(Channel::Error, why.as_bytes());
        let body = match follows {
            true => reader.body(what, Box::pin(frames), last),
            // As with a container's: who pages through what has an end may take as long as that takes.
            false => Body::from_stream(frames),
        };
        ([(CONTENT_TYPE, framing.content_type(version))], body).into_response()
    }

    /// Reads all of them at once; when it is to follow, those too that come meanwhile.
    async fn gather(self, sender: mpsc::Sender<Bytes>) {
        let this = Arc::new(self);
        let mut catalog = this.daemon.news_of_mesh();
        let (mut known, mut reading) = (BTreeSet::new(), JoinSet::new());
        loop {
            let now = catalog.borrow_and_update().clone();
            for status in this.wanted.of(&now) {
                if known.insert(status.container.clone()) {
                    let (this, sender) = (Arc::clone(&this), sender.clone());
                    reading.spawn(async move { this.read(&status, &sender).await });
                }
            }
            let follows = this.asked.follow.0;
            tokio::select! {
                () = sender.closed() => return,
                changed = catalog.changed(), if follows => if changed.is_err() { return },
                ended = reading.join_next(), if !reading.is_empty() => drop(ended),
                else => return,
            }
            if !follows && reading.is_empty() {
                return;
            }
        }
    }

    async fn read(&self, status: &TaskStatusRecord, sender: &mpsc::Sender<Bytes>) {
        let lines = self.open(status).await;
        let mut lines = match lines {
            Ok(lines) => lines,
            Err(error) => {
                let told = format!("task {}: {error:#}\n", status.task);
                let frame = self
                    .framing
                    .frame(Channel::Stderr, self.told(status, "", &told).as_bytes());
                let _ = sender.send(frame).await; // who has gone is told nothing
                return;
            }
        };
        while let Some(line) = lines.next().await {
            let frame = match line {
                Ok(line) => {
                    let channel = match line.stream.as_str() {
                        "stderr" => Channel::Stderr,
                        _ => Channel::Stdout,
                    };
                    let text = self.told(status, &line.time, &line.text);
                    self.framing.frame(channel, text.as_bytes())
                }
                Err(error) => {
                    let told = format!("task {}: {error:#}\n", status.task);
                    let text = self.told(status, "", &told);
                    self.framing.frame(Channel::Stderr, text.as_bytes())
                }
            };
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    }

    /// The log of one task's container, here or on another host.
    async fn open(
        &self,
        status: &TaskStatusRecord,
    ) -> anyhow::Result<std::pin::Pin<Box<dyn Stream<Item = anyhow::Result<Line>> + Send>>> {
        let path = format!(
            "/nuncio/v1/containers/{}/logs?{}",
            status.container, self.query
        );
        let lines = match self.daemon.peek(&status.node, &path).await? {
            None => {
                let container = self.daemon.container(&status.container)?;
                let lines = Lines::open(&container, self.asked.clone())
                    .map_err(|error| anyhow::anyhow!(error.message))?;
                let own = stream::try_unfold(lines, async |mut lines: Lines| {
                    let line = lines.next().await?;
                    anyhow::Ok(line.map(|line| (log_lines::document(&line), lines)))
                });
                let own = own.map_err(std::io::Error::other);
                parsed(own)
            }
            Some(answer) => {
                anyhow::ensure!(
                    answer.status().is_success(),
                    "its host answers with {}",
                    answer.status()
                );
                let body = answer.into_body().into_data_stream();
                parsed(body.map_err(std::io::Error::other))
            }
        };
        Ok(lines)
    }

    /// A line as it is sent: after its time and whose it is, if that is asked for.
    fn told(&self, status: &TaskStatusRecord, time: &str, text: &str) -> String {
        let mut told = String::new();
        if self.asked.timestamps.0 {
            told.push_str(if time.is_empty() { "-" } else { time });
            told.push(' ');
        }
        if self.asked.details.0 {
            told.push_str(&format!(
                "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={} ",
                status.node, self.service, status.task
            ));
        }
        told.push_str(text);
        told
    }
}

fn parsed(
    bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> std::pin::Pin<Box<dyn Stream<Item = anyhow::Result<Line>> + Send>> {
    let reader = StreamReader::new(Box::pin(bytes));
    let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LONGEST));
    Box::pin(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}
