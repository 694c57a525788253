//! What a page is told of a container of another host, which is asked for what it writes and takes, and nothing else.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use hyper::Response;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::watched::{BEFORE, GATHER, LINES, absent};
use crate::daemon::Daemon;
use crate::daemon::map::Elsewhere;

/// Messages that wait for a page; while there are as many, nothing more is read of the other host.
const QUEUE: usize = 8;
/// Bytes of a line that another host says.
const LONGEST: usize = 256 << 10;
/// Bytes of its reason for telling nothing.
const REASON: usize = 4 << 10;

/// A container of another host, as long as a page looks at it.
pub(super) struct There {
    told: Receiver<Value>,
    _asking: AbortOnDropHandle<()>,
}

impl There {
    /// Begins to ask its host.
    ///
    /// # Errors
    ///
    /// What to tell the page, if too many are looked at already.
    pub(super) fn begin(
        daemon: &Arc<Daemon>,
        id: &str,
        elsewhere: Elsewhere,
    ) -> Result<Self, String> {
        let room = daemon.pages.look_elsewhere()?;
        let (sender, told) = channel(QUEUE);
        let asker = Asker {
            daemon: Arc::clone(daemon),
            id: id.to_owned(),
            elsewhere,
            sender,
        };
        let asking = tokio::spawn(async move {
            let _room = room;
            tokio::join!(asker.writes(), asker.takes());
        });
        Ok(Self {
            told,
            _asking: AbortOnDropHandle::new(asking),
        })
    }

    /// The next thing to tell of it. Cancel safe.
    pub(super) async fn next(&mut self) -> Value {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await, // why has been told
        }
    }
}

struct Asker {
    daemon: Arc<Daemon>,
    id: String,
    elsewhere: Elsewhere,
    sender: Sender<Value>,
}

impl Asker {
    async fn writes(&self) {
        if let Err(error) = self.pass_lines().await {
            self.give_up(&error).await;
        }
    }

    async fn pass_lines(&self) -> anyhow::Result<()> {
        let path = format!(
            "/nuncio/v1/containers/{}/logs?follow=1&stdout=1&stderr=1&tail={BEFORE}",
            self.id
        );
        let mut lines = self.ask(&path).await?;
        while let Some(first) = lines.next().await {
            let mut gathered = vec![line(&first?)?];
            let until = Instant::now() + GATHER;
            while gathered.len() < LINES {
                match timeout_at(until, lines.next()).await {
                    Ok(Some(next)) => gathered.push(line(&next?)?),
                    Ok(None) | Err(_) => break,
                }
            }
            self.tell(json!({ "lines": { "id": self.id, "lines": gathered } }))
                .await;
        }
        Ok(())
    }

    async fn takes(&self) {
        let why = match self.pass_figures().await {
            Ok(()) => anyhow::anyhow!("it has been removed"),
            Err(error) => error,
        };
        self.give_up(&why).await;
    }

    /// Until the container is removed.
    async fn pass_figures(&self) -> anyhow::Result<()> {
        let mut lines = self.ask(&format!("/containers/{}/stats", self.id)).await?;
        while let Some(sample) = lines.next().await {
            let sample = serde_json::from_str(&sample?)?;
            fail_if_told(&sample)?;
            self.tell(taken(&self.id, &sample)).await;
        }
        Ok(())
    }

    /// The lines of the host's answer.
    async fn ask(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<String>> + Unpin + use<>> {
        let answer = self.daemon.peek(&self.elsewhere.node, path).await?;
        let Some(answer) = answer else {
            anyhow::bail!("it is not there any more");
        };
        let (head, body) = answer.map(Body::new).into_parts();
        if !head.status.is_success() {
            anyhow::bail!(reason(Response::from_parts(head, body)).await);
        }
        let body = body.into_data_stream().map_err(std::io::Error::other);
        let reader = StreamReader::new(body);
        let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LONGEST));
        Ok(lines.map_err(anyhow::Error::from))
    }

    async fn tell(&self, message: Value) {
        // Fails when the page has looked away, which ends this.
        let _ = self.sender.send(message).await;
    }

    async fn give_up(&self, error: &anyhow::Error) {
        let why = format!("{}, where it runs: {error:#}", self.elsewhere.host);
        self.tell(absent(&self.id, &why)).await;
    }
}

/// What a host says that refuses.
async fn reason(answer: Response<Body>) -> String {
    let status = answer.status();
    let body = to_bytes(answer.into_body(), REASON).await;
    let told = body.ok().and_then(|body| {
        let told: Value = serde_json::from_slice(&body).ok()?;
        Some(told["message"].as_str()?.to_owned())
    });
    told.unwrap_or_else(|| status.to_string())
}

/// What ends a stream is its last line.
fn fail_if_told(line: &Value) -> anyhow::Result<()> {
    match line["error"].as_str() {
        Some(error) => anyhow::bail!(error.to_owned()),
        None => Ok(()),
    }
}

/// A line of a log, as pages are told it.
fn line(text: &str) -> anyhow::Result<Value> {
    let line: Value = serde_json::from_str(text)?;
    fail_if_told(&line)?;
    let stream = match line["stream"].as_str() {
        Some("stderr") => 2,
        _ => 1,
    };
    let time = line["time"].as_str().and_then(|time| time.parse().ok());
    let time = time.map_or(0, Timestamp::as_millisecond);
    Ok(json!([stream, time, line["text"]]))
}

/// What it takes, from Docker's form of that; nothing of the machine's time is told of what does not run.
fn taken(id: &str, sample: &Value) -> Value {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (now, before) = (&sample["cpu_stats"], &sample["precpu_stats"]);
    if now["system_cpu_usage"].is_null() {
        return json!({ "taken": { "id": id, "runs": false } });
    }
    let passed = |of: &dyn Fn(&Value) -> u64| of(now).saturating_sub(of(before));
    let share = before["system_cpu_usage"].as_u64().map(|_| {
        let own = passed(&|stats| number(&stats["cpu_usage"]["total_usage"]));
        let all = passed(&|stats| number(&stats["system_cpu_usage"])).max(1);
        own as f64 / all as f64 * number(&now["online_cpus"]) as f64 * 100.0
    });
    let devices = sample["networks"].as_object();
    let sum = |name: &str| -> u64 {
        let devices = devices.into_iter().flat_map(serde_json::Map::values);
        devices.map(|device| number(&device[name])).sum()
    };
    json!({ "taken": {
        "id": id,
        "runs": true,
        "cpu": share,
        "memory": sample["memory_stats"]["usage"],
        "limit": sample["memory_stats"]["limit"],
        "processes": sample["pids_stats"]["current"],
        "received": sum("rx_bytes"),
        "sent": sum("tx_bytes"),
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_hosts_words_are_those_of_this_one() {
        let told = r#"{"time":"1970-01-01T00:00:01.500000000Z","stream":"stderr","text":"hi\n"}"#;
        assert_eq!(line(told).ok(), Some(json!([2, 1500, "hi\n"])));
        assert!(line(r#"{"error":"you read too slowly"}"#).is_err());
        let stats = |used: u64, machine: u64| json!({ "cpu_usage": { "total_usage": used }, "system_cpu_usage": machine, "online_cpus": 2 });
        let mut sample = json!({
            "cpu_stats": stats(30, 200),
            "precpu_stats": stats(10, 100),
            "memory_stats": { "usage": 5, "limit": 9 },
            "pids_stats": { "current": 3 },
            "networks": { "eth0": { "rx_bytes": 1, "tx_bytes": 2 }, "eth1": { "rx_bytes": 4 } },
        });
        let shown = &taken("abc", &sample)["taken"];
        assert_eq!(shown["cpu"], 40.0);
        assert_eq!(
            (&shown["memory"], &shown["processes"]),
            (&5.into(), &3.into())
        );
        assert_eq!((&shown["received"], &shown["sent"]), (&5.into(), &2.into()));
        sample["precpu_stats"] = json!({});
        assert_eq!(taken("abc", &sample)["taken"]["cpu"], Value::Null);
        sample["cpu_stats"] = json!({});
        assert_eq!(taken("abc", &sample)["taken"]["runs"], false);
    }
}
