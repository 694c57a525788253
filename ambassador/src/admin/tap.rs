//! Tells of flows as they come.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::refusal;
use crate::Control;
use crate::flow::{Entry, Event, Record, Tap};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFilter {
    forward: Option<String>,
}

/// One who taps.
struct Listener {
    tap: Tap,
    forward: Option<String>,
}

/// Why nobody more can tap.
#[derive(Debug, thiserror::Error)]
#[error("64 tap already; wait until one of them has left")]
struct TooMany;

pub(super) async fn tap(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let Query(WireFilter { forward }) = match Query::try_from_uri(&uri) {
        Ok(query) => query,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "malformed", None, &error),
    };
    let Some(tap) = control.ambassador().table().tap() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too-many", None, &TooMany);
    };
    let listener = Listener { tap, forward };
    let lines = stream::unfold(listener, async |mut listener| {
        let line = listener.line().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), listener))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

impl Listener {
    /// The next line that is wanted; none when the ambassador is gone.
    async fn line(&mut self) -> Option<String> {
        loop {
            let (event, entry) = match self.tap.next().await? {
                Err(missed) => return Some(format!("{}\n", json!({ "missed": missed }))),
                Ok(Event::Begun(entry)) => ("begin", entry),
                Ok(Event::Ended(entry)) => ("end", entry),
            };
            if (self.forward.as_deref()).is_none_or(|name| name == entry.forward()) {
                return Some(line(event, &entry));
            }
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    record: Record<'a>,
}

fn line(event: &'static str, entry: &Entry) -> String {
    let record = Record::from(entry);
    let line = serde_json::to_string(&Line { event, record });
    line.expect("words and finite numbers make JSON") + "\n"
}
