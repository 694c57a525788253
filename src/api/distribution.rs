//! `GET /distribution/{name}/json`: what a registry has under a name, without pulling it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use nuncio_runtime::image::{Platform, PullOptions};
use serde_json::{Value, json};

use super::registry_auth::credentials;
use super::{Answer, Server, not_found, pull};

pub(crate) async fn inspect(
    State(daemon): Server,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some(name) = path.strip_suffix("/json") else {
        return Err(not_found().await);
    };
    let name = pull::parse(name, "")?;
    let options = PullOptions {
        auth: credentials(&headers)?,
        registries: Arc::clone(daemon.registries()),
        platform: None,
    };
    let found = daemon.images().look_up(&name, &options).await;
    let found = found.map_err(pull::failure)?;
    let platforms: Vec<Value> = found.platforms.iter().map(platform).collect();
    super::json::sorted(json!({
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest.to_string(),
            "size": found.size,
        },
        "Platforms": platforms,
    }))
}

/// In the words of an index, which leaves out what is not said.
fn platform(platform: &Platform) -> Value {
    let mut shown = json!({"architecture": platform.architecture(), "os": platform.os()});
    if let Some(variant) = platform.variant() {
        shown["variant"] = variant.into();
    }
    shown
}
