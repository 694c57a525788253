//! A container's files: `cp`, `diff` and `export`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use nuncio_runtime::files::{ContainerPath, PathStat};
use nuncio_runtime::image::{Change, ChangeKind};
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::query::{Flag, Params};
use super::{Answer, Server};
use crate::pipe;

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
/// Bytes of a body that are still read after its sender was refused, so that it comes to read why.
const DRAIN: usize = 16 << 20;

#[derive(Deserialize)]
pub(crate) struct Where {
    #[serde(default)]
    path: String,
}

fn parse(path: &str) -> Result<ContainerPath, ApiError> {
    ContainerPath::parse(path)
        .map_err(|error| ApiError::bad_request(format!("bad parameter: '{path}': {error}")))
}

/// What is at a path, in a header; the body is empty.
pub(crate) async fn stat(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Where>,
) -> Answer {
    let container = daemon.container(&id)?;
    let stat = daemon.archive_stat(&container, parse(&asked.path)?).await?;
    Ok(([(STAT, encode(&stat))], ()).into_response())
}

pub(crate) async fn read(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Where>,
) -> Answer {
    let container = daemon.container(&id)?;
    let (stat, chunks) = daemon.archive_read(&container, parse(&asked.path)?).await?;
    let headers = [
        (STAT, encode(&stat)),
        (CONTENT_TYPE, "application/x-tar".to_owned()),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Write {
    #[serde(default)]
    path: String,
    #[serde(default, rename = "noOverwriteDirNonDir")]
    keep_kinds: Flag,
    #[serde(default, rename = "copyUIDGID")]
    as_user: Flag,
}

pub(crate) async fn write(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Write>,
    request: Request,
) -> Answer {
    let container = daemon.container(&id)?;
    let path = parse(&asked.path)?;
    let (to, content) = pipe::incoming();
    let unpacking = tokio::spawn(async move {
        let (keep_kinds, as_user) = (asked.keep_kinds.0, asked.as_user.0);
        daemon
            .archive_write(&container, path, content, keep_kinds, as_user)
            .await
    });
    let mut body = request
        .into_body()
        .into_data_stream()
        .map_err(std::io::Error::other);
    while let Some(chunk) = body.next().await {
        if to.send(chunk).await.is_err() {
            drain(&mut body).await;
            break;
        }
    }
    drop(to);
    unpacking.await.map_err(anyhow::Error::from)??;
    Ok(StatusCode::OK.into_response())
}

async fn drain(body: &mut (impl futures_util::Stream<Item = std::io::Result<Bytes>> + Unpin)) {
    let mut drained = 0;
    while let Some(Ok(chunk)) = body.next().await {
        drained += chunk.len();
        if drained > DRAIN {
            return;
        }
    }
}

/// The header's value: JSON in base64, the mode as Go has it.
fn encode(stat: &PathStat) -> String {
    let (seconds, nanoseconds) = stat.modified;
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
    let modified = Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let value = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": modified.to_string(),
        "linkTarget": stat.link_target,
    });
    STANDARD.encode(value.to_string())
}

/// `os.FileMode` of Go, which keeps type and special bits elsewhere than stat(2).
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => (1 << 26) | (1 << 21),
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.into_iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(kind | (mode & 0o777), |all, (_, bit)| all | bit)
}

pub(crate) async fn changes(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = daemon.container(&id)?;
    let changes = daemon.changes(&container).await?;
    let view = |change: &Change| {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        json!({ "Path": change.path, "Kind": kind })
    };
    Ok(Json(changes.iter().map(view).collect::<Vec<_>>()).into_response())
}

pub(crate) async fn export(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let container = daemon.container(&id)?;
    let chunks = daemon.export(&container).await?;
    let headers = [(CONTENT_TYPE, "application/x-tar")];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        for (mode, expected) in [
            (0o100_644, 0o644),
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o104_755, (1 << 23) | 0o755),
            (0o041_777, (1 << 31) | (1 << 20) | 0o777),
            (0o020_666, (1 << 26) | (1 << 21) | 0o666),
        ] {
            assert_eq!(go_mode(mode), expected, "{mode:o}");
        }
    }
}
