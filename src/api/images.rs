//! Images that are here: listed, inspected, named, removed and loaded.

use std::collections::BTreeMap;
use std::io;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bollard_stubs::models::{ImageDeleteResponseItem, ImageSummary};
use futures_util::TryStreamExt;
use nuncio_runtime::image::{
    FindImageError, Image, ImageUse, LoadError, RemoveImageError, Removed, TagImageError,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::error::ApiError;
use super::filters::Filters;
use super::query::{Flag, Params};
use super::{Answer, Server, image_view, json, not_found, pull};
use crate::daemon::refusal::Refusal;

const FILTERS: &[&str] = &["dangling", "label", "reference"];

#[derive(Deserialize)]
pub(crate) struct List {
    filters: Option<String>,
}

pub(crate) async fn list(State(daemon): Server, Params(asked): Params<List>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let mut summaries: Vec<ImageSummary> = Vec::new();
    for image in daemon.images().list() {
        if accepts(&filters, &image) {
            summaries.push(image_view::summary(&image));
        }
    }
    summaries.sort_by_key(|summary| std::cmp::Reverse(summary.created));
    json::sorted(summaries)
}

fn accepts(filters: &Filters, image: &Image) -> bool {
    let config = image.config.config().as_ref();
    let labels: BTreeMap<String, String> = config
        .and_then(|config| config.labels().clone())
        .unwrap_or_default()
        .into_iter()
        .collect();
    let dangling = |wanted: &str| matches!(wanted, "1" | "true" | "True") == image.names.is_empty();
    filters.labels(&labels)
        && filters.any("dangling", dangling)
        && filters.any("reference", |pattern| {
            image.names.iter().any(|name| is_named(name, pattern))
        })
}

/// A pattern is a name with or without its tag; `*` stands for anything but slashes.
fn is_named(name: &str, pattern: &str) -> bool {
    let repository = name
        .rsplit_once(':')
        .map_or(name, |(repository, _)| repository);
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star.filter(|(_, from)| text[*from] != b'/') {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// `{name}/json`; what else is known of an image is not built.
pub(crate) async fn inspect(State(daemon): Server, Path(path): Path<String>) -> Answer {
    match path.rsplit_once('/') {
        Some((name, "json")) => {
            let image = daemon.find_image(name).await?;
            json::sorted(image_view::inspect(&image))
        }
        Some((name, "history")) => {
            Err(Refusal::unsupported(format!("not built: history {name}")).into())
        }
        Some((name, "get")) => Err(Refusal::unsupported(format!("not built: save {name}")).into()),
        _ => Err(not_found().await),
    }
}

#[derive(Deserialize)]
pub(crate) struct Tag {
    #[serde(default)]
    repo: String,
    #[serde(default)]
    tag: String,
}

/// `{name}/tag` or `{name}/push`.
pub(crate) async fn tag(
    State(daemon): Server,
    Path(path): Path<String>,
    Params(asked): Params<Tag>,
) -> Answer {
    let name = match path.rsplit_once('/') {
        Some((name, "tag")) => name,
        Some((name, "push")) => {
            return Err(Refusal::unsupported(format!("not built: push {name}")).into());
        }
        _ => return Err(not_found().await),
    };
    let new = if asked.tag.is_empty() {
        asked.repo
    } else {
        format!("{}:{}", asked.repo, asked.tag)
    };
    let image = daemon.find_image(name).await?;
    daemon
        .images()
        .tag(&image.id, &new)
        .await
        .map_err(|error| match error {
            TagImageError::Find(error) => unfound(&error).into(),
            TagImageError::Reference(_) | TagImageError::Digest(_) => {
                ApiError::bad_request(error.to_string())
            }
            _ => ApiError::from(anyhow::Error::from(error)),
        })?;
    Ok(StatusCode::CREATED.into_response())
}

#[derive(Deserialize)]
pub(crate) struct Remove {
    #[serde(default)]
    force: Flag,
}

pub(crate) async fn remove(
    State(daemon): Server,
    Path(name): Path<String>,
    Params(asked): Params<Remove>,
) -> Answer {
    let users = std::sync::Arc::clone(&daemon);
    let in_use = move |id: &str| {
        let records = users
            .containers()
            .into_iter()
            .map(|container| (container.is_running(), container.view()));
        let mut uses: Vec<ImageUse> = records
            .filter(|(_, record)| record.image_id == id)
            .map(|(running, record)| ImageUse {
                container: record.name,
                running,
            })
            .collect();
        uses.sort_by_key(|used| !used.running);
        uses.into_iter().next()
    };
    let removed = daemon
        .images()
        .remove(&name, asked.force.0, in_use)
        .await
        .map_err(|error| match error {
            RemoveImageError::Find(error) => unfound(&error).into(),
            RemoveImageError::Running { .. }
            | RemoveImageError::Stopped { .. }
            | RemoveImageError::LastName { .. }
            | RemoveImageError::SeveralNames { .. } => {
                ApiError::from(Refusal::conflict(error.to_string()))
            }
            _ => ApiError::from(anyhow::Error::from(error)),
        })?;
    let items = removed.into_iter().map(|removed| match removed {
        Removed::Untagged(name) => ImageDeleteResponseItem {
            untagged: Some(name),
            deleted: None,
        },
        Removed::Deleted(id) => ImageDeleteResponseItem {
            untagged: None,
            deleted: Some(id),
        },
    });
    Ok(Json(items.collect::<Vec<_>>()).into_response())
}

fn unfound(error: &FindImageError) -> Refusal {
    match error {
        FindImageError::NoSuchImage(name) => Refusal::not_found(format!("No such image: {name}")),
        FindImageError::Ambiguous(_) => Refusal::invalid(error.to_string()),
    }
}

/// The archive is the body, as long as it may be; it is unpacked as it comes.
pub(crate) async fn load(State(daemon): Server, request: Request) -> Answer {
    let body = request
        .into_body()
        .into_data_stream()
        .map_err(io::Error::other);
    let archive = StreamReader::new(Box::pin(body));
    let (progress, _) = mpsc::channel(1); // nobody listens: the answer comes when all is done
    let loaded = daemon
        .images()
        .load(archive, progress)
        .await
        .map_err(unloadable)?;
    let mut lines = Vec::new();
    for image in loaded {
        let names = match image.names.as_slice() {
            [] => vec![format!("Loaded image ID: {}\n", image.id)],
            names => names
                .iter()
                .map(|name| format!("Loaded image: {name}\n"))
                .collect(),
        };
        for text in names {
            lines.extend(pull::line(&json!({ "stream": text })));
        }
    }
    Ok(([(CONTENT_TYPE, "application/json")], lines).into_response())
}

/// Most that can go wrong is in the archive; the rest is this host's.
fn unloadable(error: LoadError) -> ApiError {
    let ours = matches!(
        error,
        LoadError::Io(_)
            | LoadError::Stopped(_)
            | LoadError::Install { .. }
            | LoadError::Blob { .. }
    );
    let message = format!("{:#}", anyhow::Error::from(error));
    match ours {
        true => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message),
        false => ApiError::bad_request(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_images_with_or_without_tag() {
        for (pattern, name, expected) in [
            ("redis", "redis:7", true),
            ("redis:7", "redis:7", true),
            ("redis:*", "redis:7", true),
            ("*:7", "redis:7", true),
            ("re*", "redis:7", true),
            ("*", "some/redis:7", false),
            ("*/*", "some/redis:7", true),
            ("nginx", "redis:7", false),
        ] {
            assert_eq!(is_named(name, pattern), expected, "{pattern} {name}");
        }
    }
}
