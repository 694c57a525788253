//! Lists and ends flows.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};

use super::refusal;
use crate::flow::{Entry, Record};
use crate::{Address, Control, FlowFilter};

/// The filter as a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFilter {
    id: Option<u64>,
    forward: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    endpoint: Option<Address>,
    #[serde(default, deserialize_with = "parsed")]
    client: Option<Address>,
}

fn parsed<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

/// Why a request for flows is not done.
#[derive(Debug, thiserror::Error)]
enum FlowsError {
    #[error("say which flows to end: with id=N, forward=NAME, endpoint=ADDR:PORT or client=ADDR")]
    All,
}

pub(super) async fn list(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let filter = match filter(&uri) {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let entries = control.ambassador().table().entries(&filter);
    let reasons = reasons(&control).await;
    let flows: Vec<Value> = entries
        .iter()
        .map(|entry| listed(entry, &reasons))
        .collect();
    Json(flows).into_response()
}

/// Why flows are relayed, by their forward, as far as one might have them go straight.
async fn reasons(control: &Control) -> HashMap<String, String> {
    let specs = control.specs().await.into_iter();
    let given = specs.filter_map(|spec| Some((spec.name, spec.not_direct?)));
    let mut reasons: HashMap<_, _> = given.collect();
    let found = control.ambassador().direct().into_iter();
    reasons.extend(found.map(|direct| {
        let reason = direct.reason().to_owned();
        (direct.forward, reason)
    }));
    reasons
}

/// The record, and what the list had before there were records.
fn listed(entry: &Entry, reasons: &HashMap<String, String>) -> Value {
    let mut record = json!(Record::from(entry));
    record["not_direct"] = json!(reasons.get(entry.forward()));
    let since = entry.since().duration_since(UNIX_EPOCH);
    record["upstream"] = record["endpoint"].clone();
    record["since"] = json!(since.unwrap_or_default().as_secs_f64());
    record
}

pub(super) async fn end(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let filter = match filter(&uri) {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    if filter.is_empty() {
        return refusal(StatusCode::BAD_REQUEST, "no-filter", None, &FlowsError::All);
    }
    let ended = control.ambassador().end_flows(&filter);
    tracing::info!(?filter, ended, "flows are ended on demand");
    Json(json!({ "ended": ended })).into_response()
}

fn filter(uri: &Uri) -> Result<FlowFilter, Box<Response>> {
    match Query::<WireFilter>::try_from_uri(uri) {
        Ok(Query(wire)) => Ok(FlowFilter {
            id: wire.id,
            forward: wire.forward,
            endpoint: wire.endpoint,
            client: wire.client,
        }),
        Err(error) => {
            let refused = refusal(StatusCode::BAD_REQUEST, "malformed", None, &error);
            Err(Box::new(refused))
        }
    }
}
