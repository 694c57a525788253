//! `GET /containers/{id}/stats`: what a container takes, once or every second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use jiff::Timestamp;
use nuncio_runtime::{CpuStats, IoStats};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::query::{Flag, Params};
use super::slow::{Reader, json_line};
use super::{Answer, Server};
use crate::daemon::Daemon;
use crate::daemon::container::Container;
use crate::daemon::stats::{Machine, NetworkStats, Sample, Traffic};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Containers in one answer about all of a host; the others are counted.
const MOST: usize = 1000;
/// Go's zero time, which stands for never.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Deserialize)]
pub(crate) struct Asked {
    stream: Option<Flag>,
    #[serde(default, rename = "one-shot")]
    one_shot: Flag,
}

pub(crate) async fn stats(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    reader: Reader,
) -> Answer {
    let container = daemon.container(&id)?;
    let forever = asked.stream.is_none_or(|stream| stream.0);
    let headers = [(CONTENT_TYPE, "application/json")];
    if !forever {
        let mut before = None;
        if !asked.one_shot.0 && container.is_running() {
            before = daemon.sample(&container);
            sleep_until(Instant::now() + PERIOD).await;
        }
        let now = daemon.sample(&container);
        let line = line(&container, before.as_ref(), now.as_ref()).map_err(anyhow::Error::from)?;
        return Ok((headers, line).into_response());
    }
    let what = format!("stats of {}", container.name());
    let looking = (daemon, container, None::<Option<Sample>>, Instant::now());
    let lines = stream::try_unfold(looking, async |(daemon, container, before, due)| {
        sleep_until(due).await;
        let mut status = container.status();
        // What does not run is waited for, but looked at once, as its client waits for a first answer.
        let gone = match &before {
            Some(None) => status
                .wait_for(|status| status.running || status.removed)
                .await
                .map_or(true, |status| status.removed),
            _ => status.borrow().removed,
        };
        if gone {
            return Ok(None);
        }
        let now = daemon.sample(&container);
        let line = line(&container, before.flatten().as_ref(), now.as_ref())?;
        let next = (daemon, container, Some(now), Instant::now() + PERIOD);
        anyhow::Ok(Some((line, next)))
    });
    let body = reader.body(what, Box::pin(lines), json_line);
    Ok((headers, body).into_response())
}

#[derive(Deserialize)]
pub(crate) struct AllAsked {
    #[serde(default)]
    stream: Flag,
    #[serde(default)]
    all: Flag,
}

/// `GET /nuncio/v1/stats`: what all containers of this host take that run, or `all=1`; once, or `stream=1`: a line each second.
pub(crate) async fn all(
    State(daemon): Server,
    Params(asked): Params<AllAsked>,
    reader: Reader,
) -> Answer {
    let headers = [(CONTENT_TYPE, "application/json")];
    if !asked.stream.0 {
        let (_, before) = look(&daemon, asked.all.0, &BTreeMap::new())?;
        sleep_until(Instant::now() + PERIOD).await;
        let (line, _) = look(&daemon, asked.all.0, &before)?;
        return Ok((headers, line).into_response());
    }
    let looking = (daemon, BTreeMap::new(), Instant::now());
    let lines = stream::try_unfold(
        looking,
        move |(daemon, before, due): (Arc<Daemon>, Samples, _)| async move {
            sleep_until(due).await;
            let (line, now) = look(&daemon, asked.all.0, &before)?;
            anyhow::Ok(Some((line, (daemon, now, Instant::now() + PERIOD))))
        },
    );
    let body = reader.body("stats of all".to_owned(), Box::pin(lines), json_line);
    Ok((headers, body).into_response())
}

type Samples = BTreeMap<String, Sample>;

/// A line about all containers, and what the next is compared with.
fn look(daemon: &Daemon, all: bool, before: &Samples) -> anyhow::Result<(Bytes, Samples)> {
    let (mut samples, mut views, mut omitted) = (BTreeMap::new(), Vec::new(), 0);
    let machine = Machine::now();
    for container in daemon.containers() {
        if !all && !container.is_running() {
            continue;
        }
        if views.len() == MOST {
            omitted += 1;
            continue;
        }
        let now = daemon.sample_beside(&container, machine);
        let earlier = before.get(&container.id);
        views.push(view(
            &container.id,
            &container.name(),
            earlier,
            now.as_ref(),
        ));
        samples.extend(now.map(|now| (container.id.clone(), now)));
    }
    let line = json!({ "containers": views, "omitted": omitted });
    Ok((format!("{line}\n").into(), samples))
}

fn line(
    container: &Container,
    before: Option<&Sample>,
    now: Option<&Sample>,
) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(&view(&container.id, &container.name(), before, now))?;
    line.push(b'\n');
    Ok(line.into())
}

fn view(id: &str, name: &str, before: Option<&Sample>, now: Option<&Sample>) -> Value {
    let time = |sample: Option<&Sample>| {
        sample.map_or_else(|| NEVER.to_owned(), |sample| format_time(sample.time))
    };
    let mut view = json!({
        "name": format!("/{name}"),
        "id": id,
        "read": time(now),
        "preread": time(before),
        "pids_stats": {},
        "blkio_stats": blkio(now.map_or(&[][..], |now| &now.stats.io)),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(now),
        "precpu_stats": cpu(before),
        "memory_stats": {},
    });
    if let Some(now) = now {
        let (pids, most) = now.stats.pids;
        view["pids_stats"] = json!({ "current": pids, "limit": most.unwrap_or(u64::MAX) });
        view["memory_stats"] = memory(now);
        let networks: Map<String, Value> = now
            .networks
            .iter()
            .map(|(name, stats)| (name.clone(), network(stats)))
            .collect();
        if !networks.is_empty() {
            view["networks"] = networks.into();
        }
    }
    view
}

fn format_time(time: Timestamp) -> String {
    format!("{time:.9}")
}

fn cpu(sample: Option<&Sample>) -> Value {
    let none = CpuStats::default();
    let cpu = sample.map_or(&none, |sample| &sample.stats.cpu);
    let mut usage = json!({
        "total_usage": cpu.total,
        "usage_in_kernelmode": cpu.system,
        "usage_in_usermode": cpu.user,
    });
    if !cpu.each.is_empty() {
        usage["percpu_usage"] = cpu.each.clone().into();
    }
    let mut view = json!({
        "cpu_usage": usage,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled,
        },
    });
    if let Some(sample) = sample {
        view["system_cpu_usage"] = sample.machine.into();
        view["online_cpus"] = sample.cpus.into();
    }
    view
}

fn memory(sample: &Sample) -> Value {
    let memory = &sample.stats.memory;
    let mut view = json!({
        "usage": memory.usage,
        "stats": memory.details,
        "limit": memory.limit.unwrap_or(u64::MAX).min(sample.memory),
    });
    // With cgroup v2 Docker counts what was refused, rather than how often the limit was met.
    let failures = memory.refused.unwrap_or(memory.failures);
    for (name, value) in [
        ("max_usage", memory.most.unwrap_or_default()),
        ("failcnt", failures),
    ] {
        if value != 0 {
            view[name] = value.into();
        }
    }
    view
}

fn blkio(all: &[IoStats]) -> Value {
    let entries = |of: fn(&IoStats) -> (u64, u64)| -> Value {
        let entries = all.iter().flat_map(|stats| {
            let (read, written) = of(stats);
            let (major, minor) = stats.device;
            [("read", read), ("write", written)].map(
                |(op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }),
            )
        });
        match all.is_empty() {
            true => Value::Null,
            false => entries.collect(),
        }
    };
    json!({
        "io_service_bytes_recursive": entries(|stats| stats.bytes),
        "io_serviced_recursive": entries(|stats| stats.requests),
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}

fn network(stats: &NetworkStats) -> Value {
    let mut view = Map::new();
    for (direction, traffic) in [("rx", stats.received), ("tx", stats.sent)] {
        let Traffic {
            bytes,
            packets,
            errors,
            dropped,
        } = traffic;
        for (what, value) in [
            ("bytes", bytes),
            ("packets", packets),
            ("errors", errors),
            ("dropped", dropped),
        ] {
            view.insert(format!("{direction}_{what}"), value.into());
        }
    }
    view.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_takes_nothing() {
        let shown = view("abc", "web", None, None);
        assert_eq!(shown["name"], "/web");
        assert_eq!(shown["read"], NEVER);
        assert_eq!(shown["cpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert_eq!(shown["memory_stats"], json!({}));
    }

    #[test]
    fn the_machines_memory_is_the_limit_where_there_is_none() {
        let mut sample = nothing();
        let shown = view("abc", "web", None, Some(&sample));
        assert_eq!(shown["memory_stats"]["limit"], 1000);
        assert_eq!(shown["read"], "2026-01-02T03:04:05.000000000Z");
        assert_eq!(shown["networks"]["eth0"]["rx_bytes"], 0);
        assert_eq!(shown["blkio_stats"]["io_serviced_recursive"], Value::Null);
        sample.stats.memory.limit = Some(10);
        let shown = view("abc", "web", Some(&sample), Some(&sample));
        assert_eq!(shown["memory_stats"]["limit"], 10);
        assert_eq!(shown["precpu_stats"]["system_cpu_usage"], 7);
    }

    #[test]
    fn with_cgroup_v2_there_is_no_highest_usage_and_what_failed_is_what_was_refused() {
        let mut sample = nothing();
        sample.stats.memory.failures = 17;
        let with_v1 = view("abc", "web", None, Some(&sample));
        assert_eq!(with_v1["memory_stats"]["failcnt"], 17);
        sample.stats.memory.refused = Some(2);
        let shown = view("abc", "web", None, Some(&sample));
        assert_eq!(shown["memory_stats"]["failcnt"], 2);
        assert_eq!(shown["memory_stats"].get("max_usage"), None);
        sample.stats.memory.refused = Some(0);
        let shown = view("abc", "web", None, Some(&sample));
        assert_eq!(shown["memory_stats"].get("failcnt"), None);
    }

    fn nothing() -> Sample {
        Sample {
            time: "2026-01-02T03:04:05Z".parse().expect("a time"),
            stats: nuncio_runtime::Stats::default(),
            networks: [("eth0".to_owned(), NetworkStats::default())].into(),
            machine: 7,
            cpus: 2,
            memory: 1000,
        }
    }
}
