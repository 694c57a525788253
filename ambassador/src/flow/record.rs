//! The one written form of a flow, for listings, taps and logs.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Entry;

/// A flow as it is written. Times that something took are in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    /// When it ended; when it began, if it goes on (RFC 3339).
    time: String,
    id: u64,
    forward: &'a str,
    protocol: String,
    client: SocketAddr,
    local: Option<SocketAddr>,
    endpoint: Option<SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    duration: f64,
    connect_time: Option<f64>,
    /// What carries it now, or did in the end, and why.
    datapath: &'static str,
    reason: &'static str,
    /// What carried it, in either direction, at any time.
    datapaths: Vec<&'static str>,
    #[serde(flatten)]
    end: Option<End>,
}

#[derive(Debug, Serialize)]
struct End {
    end: &'static str,
    side: &'static str,
    error: Option<String>,
    errno: Option<i32>,
}

impl<'a> From<&'a Entry> for Record<'a> {
    fn from(entry: &'a Entry) -> Self {
        let joined = entry.joined();
        let duration = entry.duration();
        let (datapath, reason) = entry.way().describe();
        let end = entry.ended.get().map(|ended| End {
            end: ended.cause.name(),
            side: ended.side.name(),
            error: ended.error.as_ref().map(ToString::to_string),
            errno: ended.error.as_ref().and_then(std::io::Error::raw_os_error),
        });
        let time = match end {
            Some(_) => entry.since() + duration,
            None => entry.since(),
        };
        Self {
            time: rfc3339(time),
            id: entry.id,
            forward: &entry.forward,
            protocol: entry.protocol.to_string(),
            client: joined.client,
            local: joined.local,
            endpoint: joined.upstream,
            bytes_in: entry.inward.bytes.load(Ordering::Relaxed),
            bytes_out: entry.outward.bytes.load(Ordering::Relaxed),
            duration: duration.as_secs_f64(),
            connect_time: joined.connect_time.as_ref().map(Duration::as_secs_f64),
            datapath: datapath.name(),
            reason,
            datapaths: entry.datapaths().map(super::Datapath::name).collect(),
            end,
        }
    }
}

/// `time` in UTC, to the microsecond.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    // A clock before the year -9999 or after 9999 has other troubles.
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.6}")
}

impl Record<'_> {
    /// An object, which is one line.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("words and finite numbers make JSON")
    }

    /// A line of `KEY=VALUE`, without its end; a value is quoted if it is not a plain word.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(256);
        let mut add = |key: &str, value: &dyn fmt::Display| {
            let value = value.to_string();
            let space = if text.is_empty() { "" } else { " " };
            let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
            // Writing to a string cannot fail.
            let _ = if !value.is_empty() && value.chars().all(plain) {
                write!(text, "{space}{key}={value}")
            } else {
                write!(text, "{space}{key}={value:?}")
            };
        };
        add("time", &self.time);
        add("id", &self.id);
        add("forward", &self.forward);
        add("protocol", &self.protocol);
        add("client", &self.client);
        add("local", &or_dash(self.local));
        add("endpoint", &or_dash(self.endpoint));
        add("bytes_in", &self.bytes_in);
        add("bytes_out", &self.bytes_out);
        add("duration", &format_args!("{:.6}", self.duration));
        let connect_time = self.connect_time.map(|took| format!("{took:.6}"));
        add("connect_time", &or_dash(connect_time));
        add("datapaths", &self.datapaths.join(","));
        if let Some(end) = &self.end {
            add("end", &end.end);
            add("side", &end.side);
            if let Some(error) = &end.error {
                add("error", error);
            }
        }
        text
    }
}

fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
