//! What several sources say, a JSON document a line each, in the order of its times.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::merge::Merge;
use crate::client::{Answer, ClientError, Lines};

/// Lines of one source that are read and not yet told; then it is not read on.
const AHEAD: usize = 1024;
/// How long a line of what goes on waits for earlier ones of others.
const HOLD: Duration = Duration::from_millis(400);
/// How long a source of what has an end is waited for when it says nothing; meanwhile others wait.
const LATE: Duration = Duration::from_secs(2);
/// How long it may say nothing at all; then it is given up.
const SILENT: Duration = Duration::from_secs(10);

/// A line that was read.
struct Line {
    document: Value,
    _place: OwnedSemaphorePermit,
}

enum Heard {
    Line {
        source: usize,
        time: Timestamp,
        bytes: usize,
        line: Line,
    },
    End {
        source: usize,
        error: Option<anyhow::Error>,
    },
}

/// Sources, each called `Origin`.
pub(super) struct Gather<Origin> {
    merge: Merge<Line>,
    origins: Vec<Origin>,
    open: usize,
    endless: bool,
    sender: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    reading: JoinSet<()>,
}

/// What comes next.
pub(super) enum Next<'g, Origin> {
    Line(&'g Origin, Value),
    /// A source has ended, perhaps because of an error.
    End(&'g Origin, Option<anyhow::Error>),
}

impl<Origin> Gather<Origin> {
    /// `endless`: what is told goes on, so that nobody need say anything for long.
    pub(super) fn new(endless: bool) -> Self {
        let (sender, heard) = mpsc::channel(64);
        Self {
            merge: Merge::new(if endless { HOLD } else { LATE }, endless),
            origins: Vec::new(),
            open: 0,
            endless,
            sender,
            heard,
            reading: JoinSet::new(),
        }
    }

    /// Reads on from what `ask` is answered, each line of which has its time by `time`.
    pub(super) fn add(
        &mut self,
        origin: Origin,
        ask: impl Future<Output = Result<Answer, ClientError>> + Send + 'static,
        time: fn(&Value) -> Timestamp,
    ) {
        let source = self.merge.open();
        self.origins.push(origin);
        self.open += 1;
        let (sender, endless) = (self.sender.clone(), self.endless);
        self.reading.spawn(async move {
            let read = async {
                let answer = ask.await?;
                read(answer.lines(), source, endless, time, &sender).await
            };
            let error = read.await.err();
            let _ = sender.send(Heard::End { source, error }).await; // else nobody wants to know
        });
    }

    /// What comes next, in order; `None` when all sources have ended. May be given up and called again.
    ///
    /// # Errors
    ///
    /// If a source does not take the question: then none does.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Next<'_, Origin>>> {
        loop {
            let now = Instant::now();
            if let Some((source, line)) = self.merge.pop(now) {
                return Ok(Some(Next::Line(&self.origins[source], line.document)));
            }
            if self.open == 0 {
                return Ok(None);
            }
            let due = self.merge.due();
            let waited = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = self.heard.recv() => heard,
                () = waited => continue,
            };
            match heard {
                Some(Heard::Line {
                    source,
                    time,
                    bytes,
                    line,
                }) => self.merge.push(source, time, bytes, line, Instant::now()),
                Some(Heard::End { source, error }) => {
                    self.merge.close(source);
                    self.open -= 1;
                    let refused = error.as_ref().and_then(|error| error.downcast_ref());
                    if refused.is_some_and(ClientError::is_bad_request)
                        && let Some(error) = error
                    {
                        return Err(error);
                    }
                    return Ok(Some(Next::End(&self.origins[source], error)));
                }
                None => return Ok(None),
            }
        }
    }
}

async fn read(
    mut lines: Lines,
    source: usize,
    endless: bool,
    time: fn(&Value) -> Timestamp,
    sender: &mpsc::Sender<Heard>,
) -> anyhow::Result<()> {
    let ahead = Arc::new(Semaphore::new(AHEAD));
    loop {
        let next = lines.next();
        let next = match endless {
            true => next.await,
            false => match timeout(SILENT, next).await {
                Ok(next) => next,
                Err(_) => bail!("nothing was heard of it for {SILENT:?}"),
            },
        };
        let Some(text) = next? else { return Ok(()) };
        let document: Value = serde_json::from_slice(&text)?;
        if let Some(error) = document["error"].as_str() {
            bail!("{error}");
        }
        let line = Heard::Line {
            source,
            time: time(&document),
            bytes: text.len(),
            line: Line {
                document,
                _place: Arc::clone(&ahead).acquire_owned().await?,
            },
        };
        if sender.send(line).await.is_err() {
            return Ok(()); // nobody wants to know
        }
    }
}
