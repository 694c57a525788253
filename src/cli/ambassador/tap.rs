//! `tap`.

use clap::{Args, ValueEnum};
use hyper::Method;
use serde::Deserialize;

use super::{AdminFlag, Record, bytes, short};
use crate::cli::host::Host;
use crate::cli::output::{line, warn};

/// `nuncio tap`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio tap                                    all of this host's ambassador, until Ctrl-C
  nuncio tap redis                              of the forwards that explain knows by that name
  nuncio tap --format json | jq 'select(.end == \"reset\")'

Who reads too slowly is told on standard error how many events passed by.")]
pub(crate) struct TapArgs {
    /// A forward, by its name or a part of it, its port or its target
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Lines for people, or JSON
    #[arg(long, value_enum, value_name = "text|json", default_value = "text")]
    format: Format,

    #[command(flatten)]
    admin: AdminFlag,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A line of the stream.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Missed {
        missed: u64,
    },
    Event {
        event: String,
        #[serde(flatten)]
        record: Box<Record>,
    },
}

/// Prints flows as they begin and end.
pub(crate) async fn run(args: TapArgs, daemon: Option<Host>) -> anyhow::Result<u8> {
    #[derive(Deserialize)]
    struct Named {
        forward: String,
    }
    let client = args.admin.client(daemon).await?;
    let names: Option<Vec<String>> = match args.name {
        Some(name) => {
            let query = [("forward", name)];
            let named: Vec<Named> = client.json(Method::GET, "/explain", &query).await?;
            Some(named.into_iter().map(|named| named.forward).collect())
        }
        None => None,
    };
    // the ambassador picks one by itself; of several, others pass by here
    let query: Vec<_> = match names.as_deref() {
        Some([only]) => vec![("forward", only.clone())],
        _ => Vec::new(),
    };
    let mut lines = client.send(Method::GET, "/tap", &query).await?.lines();
    while let Some(text) = lines.next().await? {
        show(&text, args.format, names.as_deref())?;
    }
    anyhow::bail!("the ambassador has ended")
}

fn show(text: &[u8], format: Format, names: Option<&[String]>) -> anyhow::Result<()> {
    match serde_json::from_slice(text)? {
        Line::Missed { missed } => {
            warn(&format!("{missed} events passed by unseen"));
            Ok(())
        }
        Line::Event { record, .. } if names.is_some_and(|n| !n.contains(&record.forward)) => Ok(()),
        Line::Event { .. } if format == Format::Json => line(&String::from_utf8_lossy(text)),
        Line::Event { event, record } => line(&sentence(&event, &record)),
    }
}

fn sentence(event: &str, flow: &Record) -> String {
    let endpoint = flow.endpoint.as_deref().unwrap_or("-");
    let Record {
        time,
        forward,
        protocol,
        client,
        ..
    } = flow;
    // the time of day; the rest is the same all day long
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time);
    let who = format!("{time} {event:<5} {forward} {protocol} {client} -> {endpoint}");
    let Some(end) = &flow.end else {
        return match flow.connect_time {
            Some(took) => format!("{who} connected in {}", short(took)),
            None => who,
        };
    };
    let (received, sent) = (bytes(flow.bytes_in), bytes(flow.bytes_out));
    let (side, lasted) = (flow.side.as_deref().unwrap_or("-"), short(flow.duration));
    let error = flow.error.as_ref().map(|error| format!(": {error}"));
    let error = error.unwrap_or_default();
    format!("{who} in {received} out {sent} after {lasted}, {end} by {side}{error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(flow: &serde_json::Value) -> String {
        match serde_json::from_value(flow.clone()).expect("a line") {
            Line::Event { event, record } => sentence(&event, &record),
            Line::Missed { missed } => format!("{missed} missed"),
        }
    }

    #[test]
    fn events_are_sentences() {
        let mut flow = json!({
            "event": "begin", "time": "2026-01-01T12:34:56.123456Z", "id": 7, "forward": "web",
            "protocol": "tcp", "client": "10.0.0.7:1234", "local": null,
            "endpoint": "10.0.0.5:6379", "bytes_in": 0, "bytes_out": 0, "duration": 0.0,
            "connect_time": 0.0003, "datapath": "copy", "reason": "not bulk",
            "datapaths": ["copy"],
        });
        assert_eq!(
            told(&flow),
            "12:34:56.123456Z begin web tcp 10.0.0.7:1234 -> 10.0.0.5:6379 connected in 300us"
        );
        for (key, value) in [
            ("event", json!("end")),
            ("bytes_in", json!(1500)),
            ("duration", json!(2.5)),
            ("end", json!("reset")),
            ("side", json!("client")),
            ("error", json!("Connection reset by peer (os error 104)")),
            ("errno", json!(104)),
        ] {
            flow[key] = value;
        }
        assert_eq!(
            told(&flow),
            "12:34:56.123456Z end   web tcp 10.0.0.7:1234 -> 10.0.0.5:6379 in 1.5kB out 0B \
             after 2.5s, reset by client: Connection reset by peer (os error 104)"
        );
        assert_eq!(told(&json!({ "missed": 3 })), "3 missed");
    }
}
