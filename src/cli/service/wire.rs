//! Services as they are sent and received.

use anyhow::Context as _;
use bollard_stubs::models::{Service, ServiceSpec};
use serde_json::Value;

use crate::client::Client;

/// As daemons and clients write it, and as the documentation of the API does, which the types follow.
const SPOKEN: &str = "Healthcheck";
const DOCUMENTED: &str = "HealthCheck";

/// A specification as a body.
///
/// # Errors
///
/// None that is known of: what is in it was parsed.
pub(in crate::cli) fn body(spec: &ServiceSpec) -> anyhow::Result<Value> {
    let mut body = serde_json::to_value(spec)?;
    rename(&mut body, DOCUMENTED, SPOKEN);
    Ok(body)
}

/// A service by name, the beginning of its id, or its id.
///
/// # Errors
///
/// The daemon's words if there is none.
pub(in crate::cli) async fn service(client: &Client, name: &str) -> anyhow::Result<Service> {
    let call = client.get(&format!("/services/{name}"));
    let body: Value = call
        .query("insertDefaults", "false")
        .send()
        .await?
        .json()
        .await?;
    read(body).with_context(|| format!("read what the daemon says of service {name}"))
}

/// A service out of what a daemon says.
///
/// # Errors
///
/// What is no service.
pub(in crate::cli) fn read(mut body: Value) -> serde_json::Result<Service> {
    for spec in ["Spec", "PreviousSpec"] {
        if let Some(spec) = body.get_mut(spec) {
            rename(spec, SPOKEN, DOCUMENTED);
        }
    }
    serde_json::from_value(body)
}

fn rename(spec: &mut Value, from: &str, to: &str) {
    let container = spec.pointer_mut("/TaskTemplate/ContainerSpec");
    if let Some(container) = container.and_then(Value::as_object_mut)
        && let Some(check) = container.remove(from)
    {
        container.insert(to.to_owned(), check);
    }
}
