//! Spans of flows, from what the host's ambassador tells of their ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Loss, SpanDraft, Traces};
use crate::daemon::Daemon;

/// How long until an ambassador that is not there, or has gone, is looked for again.
const LOOK: Duration = Duration::from_secs(1);
/// How flows end that end well.
const WELL: [&str; 3] = ["finished", "idle", "aborted"];

/// A line of the ambassador's `GET /tap`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Missed { missed: u64 },
    Flow(Box<Told>),
}

#[derive(Debug, Deserialize)]
struct Told {
    event: String,
    /// Of its end.
    time: Timestamp,
    forward: String,
    protocol: String,
    client: SocketAddr,
    local: Option<SocketAddr>,
    endpoint: Option<SocketAddr>,
    bytes_in: i64,
    bytes_out: i64,
    /// Seconds.
    duration: f64,
    connect_time: Option<f64>,
    datapaths: Vec<String>,
    end: Option<String>,
    side: Option<String>,
    error: Option<String>,
}

/// Listens to the ambassador until `stop`.
pub(in crate::daemon) async fn follow(daemon: Arc<Daemon>, stop: CancellationToken) {
    let Some(traces) = &daemon.traces else {
        return;
    };
    let listening = async {
        loop {
            if let Err(error) = listen(&daemon, traces).await {
                tracing::debug!(error = format!("{error:#}"), "listen to the ambassador");
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = listening => {}
    }
}

async fn listen(daemon: &Daemon, traces: &Traces) -> anyhow::Result<()> {
    let mut lines = daemon.ambassador.lines("/tap").await?;
    while let Some(line) = lines.next().await {
        match serde_json::from_str(&line?)? {
            Line::Missed { missed } => traces.lose(Loss::Missed, missed),
            Line::Flow(told) if told.event == "end" => traces.record(span(*told)),
            Line::Flow(_) => {}
        }
    }
    Ok(())
}

/// From the flow's beginning to its end, as a call of the upstream.
fn span(told: Told) -> Span {
    let took = SignedDuration::try_from_secs_f64(told.duration).unwrap_or_default();
    let began = told.time.checked_sub(took).unwrap_or(told.time);
    let mut span = SpanDraft::new(told.forward.clone(), SpanKind::Client, began);
    let mut parts = told.forward.split('/');
    if parts.next() == Some("link")
        && let Some(target) = parts.next()
    {
        span.text("nuncio.link.target", target);
    }
    span.text("nuncio.forward", told.forward);
    span.text("network.transport", told.protocol);
    span.text("client.address", told.client.ip().to_string());
    span.number("client.port", told.client.port());
    for (of, address) in [("network.local", told.local), ("server", told.endpoint)] {
        if let Some(address) = address {
            span.text(&format!("{of}.address"), address.ip().to_string());
            span.number(&format!("{of}.port"), address.port());
        }
    }
    span.number("nuncio.flow.bytes_in", told.bytes_in);
    span.number("nuncio.flow.bytes_out", told.bytes_out);
    if let Some(took) = told.connect_time {
        span.fraction("nuncio.flow.connect_seconds", took);
    }
    span.texts("nuncio.flow.datapaths", told.datapaths);
    let end = told.end.unwrap_or_default();
    if let Some(side) = told.side {
        span.text("nuncio.flow.ended_by", side);
    }
    if !WELL.contains(&end.as_str()) {
        span.text("error.type", end.clone());
        span.fail(told.error.unwrap_or_else(|| end.clone()));
    }
    span.text("nuncio.flow.end", end);
    span.end(told.time)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    use super::*;

    fn read(line: &str) -> Span {
        match serde_json::from_str(line).expect("a line") {
            Line::Flow(told) => span(*told),
            Line::Missed { missed } => panic!("missed {missed}"),
        }
    }

    #[test]
    fn a_flow_is_a_span_from_its_beginning_to_its_end() {
        let line = r#"{"event":"end","time":"2026-01-02T03:04:05.500000Z","id":7,"forward":"link/redis/6379/tcp","protocol":"tcp","client":"172.17.0.3:5000","local":"172.17.0.9:6379","endpoint":"10.0.0.2:6379","bytes_in":10,"bytes_out":20,"duration":0.5,"connect_time":0.001,"datapath":"copy","reason":"not bulk","datapaths":["copy"],"end":"finished","side":"client","error":null,"errno":null}"#;
        let span = read(line);
        assert_eq!(span.name, "link/redis/6379/tcp");
        assert_eq!(span.end_time_unix_nano, 1_767_323_045_500_000_000);
        assert_eq!(span.start_time_unix_nano, 1_767_323_045_000_000_000);
        assert_eq!(span.status, None);
        let value = |key: &str| {
            let found = span.attributes.iter().find(|one| one.key == key);
            found.and_then(|one| one.value.clone()?.value)
        };
        assert_eq!(
            value("nuncio.link.target"),
            Some(Value::StringValue("redis".to_owned()))
        );
        assert_eq!(value("server.port"), Some(Value::IntValue(6379)));
        assert_eq!(value("nuncio.flow.bytes_out"), Some(Value::IntValue(20)));

        let refused = line.replace("finished", "refused");
        let refused = refused.replace(r#""endpoint":"10.0.0.2:6379""#, r#""endpoint":null"#);
        let span = read(&refused);
        assert_eq!(
            span.status.map(|status| status.message),
            Some("refused".to_owned())
        );
        assert!(
            span.attributes
                .iter()
                .all(|one| one.key != "server.address")
        );
        let missed = serde_json::from_str(r#"{"missed":3}"#).expect("a line");
        assert!(matches!(missed, Line::Missed { missed: 3 }));
    }
}
