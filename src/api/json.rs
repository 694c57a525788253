//! Answers in JSON.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::error::ApiError;

/// Fields whose keys are the user's, not Docker's.
const MAPS: [&str; 12] = [
    "Containers",
    "EndpointsConfig",
    "ExposedPorts",
    "IndexConfigs",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// An answer whose maps are sorted by key, so that equal things look equal.
pub(crate) fn sorted(body: impl Serialize) -> Result<Response, ApiError> {
    let mut body =
        serde_json::to_value(body).map_err(|error| ApiError::from(anyhow::Error::from(error)))?;
    sort_maps(&mut body);
    Ok(Json(body).into_response())
}

fn sort_maps(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort_maps),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                sort_maps(value);
                if let Value::Object(map) = value
                    && MAPS.contains(&key.as_str())
                {
                    map.sort_keys();
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_are_sorted_and_fields_keep_their_order() {
        let mut value = json!({"Z": 1, "A": {"Labels": {"b": 1, "a": {"d": 1, "c": 2}}}});
        sort_maps(&mut value);
        assert_eq!(
            value.to_string(),
            r#"{"Z":1,"A":{"Labels":{"a":{"d":1,"c":2},"b":1}}}"#
        );
    }
}
