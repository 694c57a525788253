//! Tells what forwards do, and why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{direct_forward, refusal};
use crate::direct::DirectForward;
use crate::flow::rfc3339;
use crate::{Control, EndpointView, Explained, Failure, ForwardSpec, Target, Upstreams, spec};

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
    let direct = control.ambassador().direct();
    let told: Vec<Value> = (all.iter().filter(wanted))
        .map(|explained| {
            let is_its = |direct: &&DirectForward| direct.forward == explained.name;
            one(explained, of(explained), direct.iter().find(is_its))
        })
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
/// or target, the alias of a link that it stands for, or a server name that leads somewhere there.
fn is_meant(asked: &str, explained: &Explained, spec: Option<&ForwardSpec>) -> bool {
    let is_target = |target: &Target| match target {
        Target::Host(hosts) => hosts.iter().any(|host| host.name == asked),
        Target::Service(name, _) => name == asked,
    };
    let names_target = |spec: &ForwardSpec| {
        let named = spec.edge.sni.iter().map(|(_, target)| target);
        named.chain([&spec.target]).any(is_target)
    };
    let is_alias = |(alias, _): (&str, &str)| alias.eq_ignore_ascii_case(asked);
    let mut names = explained.names.iter();
    explained.name == asked
        || explained.name.split('/').any(|part| part == asked)
        || explained.name.split_once("_PORT_").is_some_and(is_alias)
        || explained.listen.to_string() == asked
        || explained.local.port().to_string() == asked
        || names.any(|(name, _)| name.is_for(asked) || name.to_string() == asked)
        || spec.is_some_and(names_target)
}

fn one(explained: &Explained, spec: Option<&ForwardSpec>, direct: Option<&DirectForward>) -> Value {
    let config = spec.map(|spec| spec::to_json(std::slice::from_ref(spec))[0].clone());
    let target = config.as_ref().map(|config| config["to"].clone());
    let target_of = |name: &str| config.as_ref().map(|config| config["sni"][name].clone());
    let names = explained.names.iter().map(|(name, named)| {
        let mut told = upstreams(named);
        told["name"] = name.to_string().into();
        told["target"] = json!(target_of(&name.to_string()));
        told
    });
    let mut told = json!({
        "forward": explained.name,
        "listen": explained.listen.to_string(),
        "local": explained.local,
        "target": target,
        "policy": explained.policy.name(),
        "flows": explained.flows,
        "names": names.collect::<Vec<_>>(),
        "direct": direct.map(direct_forward),
        "not_direct": spec.and_then(|spec| spec.not_direct.as_ref()),
        "config": config,
    });
    if let (Value::Object(told), Value::Object(own)) = (&mut told, upstreams(&explained.own)) {
        told.extend(own);
    }
    told
}

fn upstreams(upstreams: &Upstreams) -> Value {
    let discovery = &upstreams.discovery;
    json!({
        "resolved": upstreams.resolved,
        "known": {
            "answered": discovery.answered.map(rfc3339),
            "age": discovery.answered.map(age),
            "revision": discovery.revision,
            "failure": discovery.failure.as_ref().map(failure),
        },
        "next": { "endpoint": upstreams.next.endpoint, "why": upstreams.next.why },
        "endpoints": upstreams.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
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
