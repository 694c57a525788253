//! Tells what forwards do, and why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal;
use crate::flow::rfc3339;
use crate::{Control, EndpointView, Explained, Failure, ForwardSpec, Target, spec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFilter {
    forward: Option<String>,
}

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
#[error("there is no forward {asked:?}; there is {}", known(.names))]
struct NoForward {
    asked: String,
    names: Vec<String>,
}

fn known(names: &[String]) -> String {
    match names {
        [] => "none at all".to_owned(),
        // Enough to see how they are named.
        names => names[..names.len().min(20)].join(", "),
    }
}

pub(super) async fn explain(State(control): State<Arc<Control>>, uri: Uri) -> Response {
    let Query(WireFilter { forward }) = match Query::try_from_uri(&uri) {
        Ok(query) => query,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "malformed", None, &error),
    };
    let specs = control.specs().await;
    let all = control.ambassador().explain();
    let of = |explained: &Explained| specs.iter().find(|spec| spec.name == explained.name);
    let wanted = |explained: &&Explained| match &forward {
        Some(asked) => is_meant(asked, explained, of(explained)),
        None => true,
    };
    let told: Vec<Value> = (all.iter().filter(wanted))
        .map(|explained| one(explained, of(explained)))
        .collect();
    match forward {
        Some(asked) if told.is_empty() => {
            let names = all.into_iter().map(|explained| explained.name).collect();
            let error = NoForward { asked, names };
            refusal(StatusCode::NOT_FOUND, "no-forward", None, &error)
        }
        _ => Json(told).into_response(),
    }
}

/// Whether `asked` names a forward: in whole or by a part between slashes, or by its listener, port
/// or target.
fn is_meant(asked: &str, explained: &Explained, spec: Option<&ForwardSpec>) -> bool {
    let names_target = |spec: &ForwardSpec| match &spec.target {
        Target::Host(hosts) => hosts.iter().any(|host| host.name == asked),
        Target::Service(name, _) => name == asked,
    };
    explained.name == asked
        || explained.name.split('/').any(|part| part == asked)
        || explained.listen.to_string() == asked
        || explained.local.port().to_string() == asked
        || spec.is_some_and(names_target)
}

fn one(explained: &Explained, spec: Option<&ForwardSpec>) -> Value {
    let discovery = &explained.discovery;
    let config = spec.map(|spec| spec::to_json(std::slice::from_ref(spec))[0].clone());
    let target = config.as_ref().map(|config| config["to"].clone());
    json!({
        "forward": explained.name,
        "listen": explained.listen.to_string(),
        "local": explained.local,
        "target": target,
        "policy": explained.policy.name(),
        "flows": explained.flows,
        "resolved": explained.resolved,
        "known": {
            "answered": discovery.answered.map(rfc3339),
            "age": discovery.answered.map(age),
            "revision": discovery.revision,
            "failure": discovery.failure.as_ref().map(failure),
        },
        "next": { "endpoint": explained.next.endpoint, "why": explained.next.why },
        "endpoints": explained.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "config": config,
    })
}

fn endpoint(view: &EndpointView) -> Value {
    json!({
        "address": view.address,
        "state": view.state.name(),
        "usable": view.usable,
        "weight": view.weight,
        "flows": view.active,
        "connect_time": view.connect_time.as_ref().map(Duration::as_secs_f64),
        "failures": view.failures,
        "ejected_until": view.ejected_until.map(rfc3339),
        "last_failure": view.last_failure.as_ref().map(failure),
        "last_check_failure": view.last_check_failure.as_ref().map(failure),
        "first_seen": rfc3339(view.first_seen),
        "last_seen": rfc3339(view.last_seen),
    })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "time": rfc3339(failure.at),
        "age": age(failure.at),
        "error": failure.error,
    })
}

/// In seconds.
fn age(then: SystemTime) -> f64 {
    then.elapsed().unwrap_or_default().as_secs_f64()
}
