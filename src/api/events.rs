//! `GET /events`: what happened, and what goes on to happen, a line of JSON each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::filters::Filters;
use super::query::{Params, moment};
use super::slow::{Missed, Reader, json_line};
use super::{Answer, Server};
use crate::daemon::events::{Event, Kind, Listener};

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];
/// Actions that say more behind a colon, so that a filter names their beginning.
const WITH_MORE: [&str; 3] = ["exec_create", "exec_start", "health_status"];

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    filters: Option<String>,
}

pub(crate) async fn events(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    reader: Reader,
) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let since = moment("since", &asked.since)?;
    let until = moment("until", &asked.until)?;
    let (history, live) = daemon.events.listen();
    let remembered = since.is_some() || until.is_some();
    let bound = |time: Option<SystemTime>| time.and_then(|time| Timestamp::try_from(time).ok());
    let (first, last) = (bound(since), bound(until));
    let after = |event: &Event| first.is_none_or(|first| event.time >= first);
    let before = |event: &Event| last.is_none_or(|last| event.time <= last);
    let past = history
        .into_iter()
        .filter(|event| remembered && after(event) && before(event) && includes(&filters, event));
    let left = |until: SystemTime| {
        until
            .duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO)
    };
    let telling = Telling {
        past: past.collect(),
        live,
        filters,
        end: until.map(|until| Instant::now() + left(until)),
    };
    let lines = stream::try_unfold(telling, Telling::next);
    let body = reader.body("events".to_owned(), lines, json_line);
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Events on their way to a client.
struct Telling {
    past: VecDeque<Arc<Event>>,
    live: Listener,
    filters: Filters,
    end: Option<Instant>,
}

impl Telling {
    /// The next line. It is an error, and so the answer ends, if the client does not keep up.
    async fn next(mut self) -> anyhow::Result<Option<(Bytes, Self)>> {
        if let Some(event) = self.past.pop_front() {
            return Ok(Some((line(&event)?, self)));
        }
        loop {
            let over = async {
                match self.end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                heard = self.live.recv() => heard,
                () = over => return Ok(None),
            };
            match heard {
                Ok(event) if includes(&self.filters, &event) => {
                    return Ok(Some((line(&event)?, self)));
                }
                Ok(_) => {}
                Err(RecvError::Closed) => return Ok(None),
                Err(RecvError::Lagged(missed)) => return Err(Missed(missed).into()),
            }
        }
    }
}

/// Whether the filters let an event through.
fn includes(filters: &Filters, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let action = |wanted: &str| {
        let more = WITH_MORE.iter().any(|kind| event.action.starts_with(kind));
        event.action == wanted || more && event.action.starts_with(wanted)
    };
    let named = |kind: Kind| {
        move |wanted: &str| {
            event.kind == kind
                && (event.id.starts_with(wanted) || attribute("name") == Some(wanted))
        }
    };
    let image = |wanted: &str| {
        let name = match event.kind {
            Kind::Image => attribute("name"),
            Kind::Container => attribute("image"),
            _ => None,
        };
        let is = |name: &str| name == wanted || untagged(name) == wanted;
        (event.kind == Kind::Image && is(&event.id)) || name.is_some_and(is)
    };
    filters.any("type", |kind| kind == event.kind.word())
        && filters.any("event", action)
        && filters.any("scope", |scope| scope == event.kind.scope())
        && filters.any("container", named(Kind::Container))
        && filters.any("daemon", named(Kind::Daemon))
        && filters.any("network", named(Kind::Network))
        && filters.any("volume", named(Kind::Volume))
        && filters.any("image", image)
        && filters.any("config", named(Kind::Config))
        && filters.any("node", named(Kind::Node))
        && filters.any("secret", named(Kind::Secret))
        && filters.any("service", named(Kind::Service))
        // Of what there is none here, nothing happens.
        && filters.any("plugin", |_| false)
        && filters.labels(&event.attributes)
}

/// `name` without its tag.
fn untagged(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

fn line(event: &Event) -> serde_json::Result<Bytes> {
    let mut fields = Map::new();
    if matches!(event.kind, Kind::Container | Kind::Image) {
        // Where these stood before there were events of other things.
        fields.insert("status".to_owned(), event.action.as_str().into());
        fields.insert("id".to_owned(), event.id.as_str().into());
    }
    if event.kind == Kind::Container {
        let image = event.attributes.get("image").cloned().unwrap_or_default();
        fields.insert("from".to_owned(), image.into());
    }
    fields.insert("Type".to_owned(), event.kind.word().into());
    fields.insert("Action".to_owned(), event.action.as_str().into());
    fields.insert(
        "Actor".to_owned(),
        json!({ "ID": event.id, "Attributes": event.attributes }),
    );
    fields.insert("scope".to_owned(), event.kind.scope().into());
    fields.insert("time".to_owned(), event.time.as_second().into());
    fields.insert("timeNano".to_owned(), nanos(event.time).into());
    let mut line = serde_json::to_vec(&Value::Object(fields))?;
    line.push(b'\n');
    Ok(line.into())
}

fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, action: &str) -> Event {
        let attributes = [("image", "redis:7"), ("name", "db"), ("tier", "back")];
        Event {
            kind,
            action: action.to_owned(),
            id: "abcdef".to_owned(),
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            time: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
        }
    }

    fn accepted(event: &Event, filters: &str) -> bool {
        includes(
            &Filters::parse(Some(filters), FILTERS).expect("valid"),
            event,
        )
    }

    #[test]
    fn filters_choose_by_what_and_by_whom() {
        let start = event(Kind::Container, "start");
        for (filters, expected) in [
            ("{}", true),
            (r#"{"event":["start"]}"#, true),
            (r#"{"event":["star"]}"#, false),
            (r#"{"event":["die","start"]}"#, true),
            (r#"{"type":["network"]}"#, false),
            (r#"{"container":["db"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["d"]}"#, false),
            (r#"{"image":["redis"]}"#, true),
            (r#"{"image":["redis:7"]}"#, true),
            (r#"{"image":["redis:6"]}"#, false),
            (r#"{"label":["tier"]}"#, true),
            (r#"{"label":["tier=front"]}"#, false),
            (r#"{"scope":["swarm"]}"#, false),
            (r#"{"volume":["x"]}"#, false),
        ] {
            assert_eq!(accepted(&start, filters), expected, "{filters}");
        }
        let check = event(Kind::Container, "health_status: healthy");
        assert!(accepted(&check, r#"{"event":["health_status"]}"#));
        assert!(accepted(&check, r#"{"event":["health_status: healthy"]}"#));
        assert!(!accepted(
            &check,
            r#"{"event":["health_status: unhealthy"]}"#
        ));
        let update = event(Kind::Service, "update");
        for (filters, expected) in [
            (r#"{"scope":["swarm"]}"#, true),
            (r#"{"scope":["local"]}"#, false),
            (r#"{"service":["db"]}"#, true),
            (r#"{"node":["db"]}"#, false),
        ] {
            assert_eq!(accepted(&update, filters), expected, "{filters}");
        }
        let connect = event(Kind::Network, "connect");
        assert!(accepted(&connect, r#"{"network":["db"]}"#));
        assert!(!accepted(&connect, r#"{"container":["db"]}"#));
    }

    #[test]
    fn a_line_says_it_in_both_forms() {
        let bytes = line(&event(Kind::Container, "start")).expect("encodes");
        let told: Value = serde_json::from_slice(&bytes).expect("JSON");
        let expected = json!({
            "status": "start", "id": "abcdef", "from": "redis:7", "Type": "container", "Action": "start",
            "Actor": {"ID": "abcdef", "Attributes": {"image": "redis:7", "name": "db", "tier": "back"}},
            "scope": "local", "time": 1_767_323_045, "timeNano": 1_767_323_045_678_000_000_i64,
        });
        assert_eq!(told, expected);
        assert_eq!(bytes.last(), Some(&b'\n'));
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(untagged("localhost:5000/redis"), "localhost:5000/redis");
        assert_eq!(untagged("localhost:5000/redis:7"), "localhost:5000/redis");
    }
}
