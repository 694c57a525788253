//! What holds of each parser of what clients send, whatever bytes it is given.
//!
//! The tests try what lies in `corpus`, and what small changes make of it; the targets in `fuzz/` go on from there for as
//! long as one likes. Each function panics when something does not hold, and tells whether the bytes were taken for what
//! they should be.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use bollard_stubs::models::NetworkConnectRequest;
use nuncio_runtime::files::ContainerPath;
use oci_spec::image::Config;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::filters::Filters;
use super::query::{self, Params};
use super::{
    archive, body, changes, container_create, containers, endpoint, glob, host_options, host_view,
    mounts, network_view, pull, registry_auth, rights, update, volumes, wait,
};
use crate::daemon::config::ContainerConfig;

/// The body of a create request: what is taken can be written down, read again, and shown.
#[must_use]
pub fn create_body(bytes: &[u8]) -> bool {
    let parsed = json::<Value>(bytes).and_then(container_create::parse);
    let Some(config) = taken(parsed) else {
        return false;
    };
    let written = serde_json::to_value(&config).expect("a configuration has a form in JSON");
    let read = serde_json::from_value::<ContainerConfig>(written.clone());
    let read = read.expect("what is written can be read");
    let again = serde_json::to_value(read).expect("as before");
    assert_eq!(again, written);
    let _ = host_view::host_view(&config.host, "web");
    true
}

/// The body of an update request.
#[must_use]
pub fn update_body(bytes: &[u8]) -> bool {
    taken(json::<Value>(bytes).and_then(update::parse)).is_some()
}

/// The body of a request for a network.
#[must_use]
pub fn network_body(bytes: &[u8]) -> bool {
    let parsed = json(bytes).and_then(|body| Ok(network_view::parse(body)?));
    taken(parsed).is_some()
}

/// The body of a request to connect a container to a network.
#[must_use]
pub fn connect_body(bytes: &[u8]) -> bool {
    let parsed = json::<NetworkConnectRequest>(bytes).and_then(|body| {
        Ok(endpoint::request(
            "net",
            body.endpoint_config.unwrap_or_default(),
        )?)
    });
    taken(parsed).is_some()
}

/// The body of a request for a volume.
#[must_use]
pub fn volume_body(bytes: &[u8]) -> bool {
    taken(json::<Value>(bytes).and_then(volumes::parse)).is_some()
}

/// The `filters` of a query: what is taken means the same in Go's form and in Python's.
#[must_use]
pub fn filters(bytes: &[u8]) -> bool {
    const KNOWN: &[&str] = &["dangling", "label", "label!", "name", "status", "until"];
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let parsed = Filters::parse(Some(text), KNOWN).map_err(ApiError::from);
    let Some(filters) = taken(parsed) else {
        return false;
    };
    let form = |value: &dyn Fn(Vec<&str>) -> Value| {
        let keys = KNOWN.iter().filter(|key| filters.has(key));
        let fields = keys.map(|key| ((*key).to_owned(), value(filters.values(key).collect())));
        let text = Value::Object(fields.collect()).to_string();
        Filters::parse(Some(&text), KNOWN).expect("what was taken is taken in any form")
    };
    let go = |values: Vec<&str>| {
        let entries = values
            .into_iter()
            .map(|value| (value.to_owned(), true.into()));
        Value::Object(entries.collect())
    };
    assert_eq!(form(&go), filters);
    assert_eq!(form(&|values| values.into()), filters);
    for key in KNOWN {
        let _ = taken(filters.flag(key).map_err(ApiError::from));
        for value in filters.values(key) {
            let _ = taken(glob::matches(value, "web-1").map_err(ApiError::from));
        }
    }
    true
}

/// A query string, for requests that have numbers, switches and moments in theirs.
#[must_use]
pub fn query(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(uri) = format!("/x?{text}").parse::<Uri>() else {
        return false;
    };
    for pair in text.split('&') {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        let _ = taken(query::moment("since", value).map_err(ApiError::from));
    }
    let _ = taken(Params::<containers::Resize>::of(&uri)); // has no defaults
    let condition = taken(Params::<wait::Wait>::of(&uri));
    let place = taken(Params::<archive::Where>::of(&uri));
    let list = taken(Params::<volumes::List>::of(&uri));
    condition.is_some() && place.is_some() && list.is_some()
}

/// An `X-Registry-Auth` header: what is in it, be it a password, is not told.
#[must_use]
pub fn registry_auth(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return false;
    };
    let headers = HeaderMap::from_iter([("x-registry-auth".parse().expect("a name"), value)]);
    match registry_auth::credentials(&headers) {
        Ok(_) => true,
        Err(refusal) => {
            let sent = String::from_utf8_lossy(bytes);
            assert!(
                sent.len() < 8 || !refusal.message.contains(&*sent),
                "{}",
                refusal.message
            );
            false
        }
    }
}

/// Dockerfile instructions of commit and import: what they make, an image's configuration can have.
#[must_use]
pub fn changes(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut config = Map::new();
    let applied = changes::apply(&mut config, &[text]).map_err(ApiError::from);
    if taken(applied).is_none() {
        return false;
    }
    let config = Value::Object(config);
    let read = serde_json::from_value::<Config>(config.clone());
    assert!(read.is_ok(), "{config}: {read:?}");
    true
}

/// What stands in create requests as text, or in a path or a query: each parser takes or refuses it.
#[must_use]
pub fn words(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let text = &*text;
    let options = [text.to_owned()];
    let found = [
        is_taken(mounts::volumes_from(text)),
        is_taken(mounts::anonymous_targets(options.iter().cloned())),
        is_taken(host_options::link(text)),
        is_taken(rights::pid(text)),
        is_taken(rights::ipc(text)),
        is_taken(rights::host_uts(text)),
        is_taken(rights::security(&options)),
        is_taken(rights::device_rules(Some(options.to_vec()))),
        is_taken(pull::parse(text, "")),
        is_taken(pull::platform(text)),
        ContainerPath::parse(text).is_ok(),
    ];
    found.contains(&true)
}

fn is_taken<T>(parsed: Result<T, impl Into<ApiError>>) -> bool {
    taken(parsed.map_err(Into::into)).is_some()
}

fn json<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, ApiError> {
    body::parse(bytes)
}

/// What was parsed. What was not is the sender's to mend, and is told in words.
fn taken<T>(parsed: Result<T, ApiError>) -> Option<T> {
    parsed
        .inspect_err(|error| {
            let ApiError { status, message } = error;
            let is_theirs = status.is_client_error() || *status == StatusCode::NOT_IMPLEMENTED;
            assert!(is_theirs && !message.is_empty(), "{status}: {message:?}");
        })
        .ok()
}

#[cfg(test)]
mod tests;
