//! `POST /commit`: an image from a container.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use nuncio_runtime::image::About;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::body::JsonBody;
use super::error::ApiError;
use super::health::check_view;
use super::pull::parse;
use super::query::Params;
use super::{Answer, Server, changes};
use crate::daemon::record::Record;

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    container: String,
    #[serde(default)]
    repo: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    author: String,
    /// Absent means yes.
    pause: Option<super::query::Flag>,
}

/// Fields of a body that may say otherwise than the container does.
const FIELDS: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// The query with `changes`, which may be repeated.
pub(crate) async fn commit(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    Params(pairs): Params<Vec<(String, String)>>,
    JsonBody(body): JsonBody<Value>,
) -> Answer {
    let container = daemon.container(&asked.container)?;
    let name = match asked.repo.as_str() {
        "" => None,
        repo => Some(parse(repo, &asked.tag)?),
    };
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(ApiError::bad_request("cannot commit to digest reference"));
    }
    let record = container.view();
    let mut config = process_defaults(&record);
    if let Value::Object(fields) = body {
        config.extend(fields.into_iter().filter(is_said));
    }
    let instructions = pairs.into_iter().filter(|(key, _)| key == "changes");
    let instructions: Vec<String> = instructions.map(|(_, value)| value).collect();
    changes::apply(&mut config, &instructions)?;
    let about = About {
        created_by: command(&config),
        config: config.into(),
        author: asked.author,
        comment: asked.comment,
    };
    let pause = asked.pause.is_none_or(|pause| pause.0);
    let image = daemon.commit(&container, name, about, pause).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": image.id }))).into_response())
}

/// What an image of this container says of its processes, as Docker's JSON has it.
fn process_defaults(record: &Record) -> Map<String, Value> {
    let given = &record.config;
    let keys = |keys: Vec<String>| -> Value {
        let entries = keys.into_iter().map(|key| (key, json!({})));
        Value::Object(entries.collect())
    };
    let volumes = given.volumes.iter().cloned().collect();
    let ports = given.exposed.iter().map(ToString::to_string).collect();
    let labels = given.labels.iter();
    let labels: Map<String, Value> = labels
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    let fields = [
        ("User", given.user.clone().into()),
        ("ExposedPorts", keys(ports)),
        ("Env", given.env.clone().into()),
        ("Entrypoint", given.entrypoint.clone().into()),
        ("Cmd", given.cmd.clone().into()),
        ("Volumes", keys(volumes)),
        ("WorkingDir", given.working_dir.clone().into()),
        ("Labels", labels.into()),
        ("StopSignal", given.stop_signal.clone().into()),
        (
            "Healthcheck",
            json!(given.healthcheck.as_ref().map(check_view)),
        ),
    ];
    let named = fields.map(|(key, value)| (key.to_owned(), value));
    named.into_iter().filter(is_said).collect()
}

/// Clients send all fields, most of them empty.
fn is_said((key, value): &(String, Value)) -> bool {
    let is_empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    FIELDS.contains(&key.as_str()) && !is_empty
}

/// The command as the history tells it.
fn command(config: &Map<String, Value>) -> String {
    let words = config.get("Cmd").and_then(Value::as_array);
    let words = words.into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}
