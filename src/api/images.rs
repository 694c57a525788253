//! One image: inspected, named and removed.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use bollard_stubs::models::ImageDeleteResponseItem;
use nuncio_runtime::image::{
    FindImageError, ImageUse, RemoveImageError, RemoveOptions, Removed, TagImageError,
};
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::query::{Flag, Params};
use super::version::{ApiVersion, ONE_SIZE};
use super::{Answer, Server, image_platform, image_view, json, not_found, nulls, push, save};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    platform: String,
}

/// What is asked of an image by its path: `{name}/json`, `{name}/history` or `{name}/get`.
pub(crate) async fn get(
    State(daemon): Server,
    Extension(version): Extension<ApiVersion>,
    Path(path): Path<String>,
    Params(asked): Params<Which>,
) -> Answer {
    let platform = image_platform::parse(&asked.platform)?;
    let platform = platform.as_ref();
    match path.rsplit_once('/') {
        Some((name, "json")) => {
            let image = daemon.find_image(name).await?;
            image_platform::check(platform, &image, name)?;
            let mut shown = json!(image_view::inspect(&image, version < ONE_SIZE));
            nulls::image(&mut shown);
            // The first docker-compose takes from here which volumes the image has, whatever the version it speaks.
            shown["ContainerConfig"] = shown["Config"].clone();
            json::sorted(shown)
        }
        Some((name, "history")) => {
            let image = daemon.find_image(name).await?;
            image_platform::check(platform, &image, name)?;
            json::sorted(image_view::history(&image, daemon.images()))
        }
        Some((name, "get")) => save::save(State(daemon), &[name.to_owned()], platform).await,
        _ => Err(not_found().await),
    }
}

/// What is done with an image by its path: `{name}/tag` or `{name}/push`.
pub(crate) async fn post(
    daemon: Server,
    Path(path): Path<String>,
    Params(asked): Params<Tag>,
    headers: HeaderMap,
) -> Answer {
    match path.rsplit_once('/') {
        Some((name, "tag")) => tag(daemon, name, asked).await,
        Some((name, "push")) => push::push(daemon.0, name, &asked.tag, &headers).await,
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

async fn tag(State(daemon): Server, name: &str, asked: Tag) -> Answer {
    let new = if asked.tag.is_empty() {
        asked.repo
    } else {
        format!("{}:{}", asked.repo, asked.tag)
    };
    let image = daemon.find_image(name).await?;
    let tagged = daemon.images().tag(&image.id, &new).await;
    let tagged = tagged.map_err(|error| match error {
        TagImageError::Find(error) => unfound(&error).into(),
        TagImageError::Reference(_) | TagImageError::Digest(_) => {
            ApiError::bad_request(error.to_string())
        }
        _ => ApiError::from(anyhow::Error::from(error)),
    })?;
    daemon.tell_image("tag", &tagged.id, &new);
    Ok(StatusCode::CREATED.into_response())
}

#[derive(Deserialize)]
pub(crate) struct Remove {
    #[serde(default)]
    force: Flag,
    #[serde(default)]
    noprune: Flag,
}

pub(crate) async fn remove(
    State(daemon): Server,
    Path(name): Path<String>,
    Params(asked): Params<Remove>,
) -> Answer {
    let options = RemoveOptions {
        force: asked.force.0,
        keep_parents: asked.noprune.0,
    };
    let before = ids(&daemon);
    let removed = daemon
        .images()
        .remove(&name, options, in_use(&daemon))
        .await
        .map_err(not_removed)?;
    tell_removed(&daemon, &before, &removed);
    json::sorted(removed.into_iter().map(item).collect::<Vec<_>>())
}

/// The images that there are.
pub(super) fn ids(daemon: &Daemon) -> HashSet<String> {
    let images = daemon.images().list().into_iter();
    images.map(|image| image.id).collect()
}

/// Tells of the names and images that went, of those that were there `before`.
pub(super) fn tell_removed(daemon: &Daemon, before: &HashSet<String>, removed: &[Removed]) {
    for gone in removed {
        match gone {
            Removed::Untagged(name) => daemon.tell_image("untag", name, name),
            Removed::Deleted(id) if before.contains(id) => daemon.tell_image("delete", id, id),
            Removed::Deleted(_) => {} // a layer
        }
    }
}

/// Tells which container uses an image; one that runs if there is any.
pub(super) fn in_use(daemon: &Arc<Daemon>) -> impl Fn(&str) -> Option<ImageUse> + Send + 'static {
    let daemon = Arc::clone(daemon);
    move |id| {
        let containers = daemon.containers().into_iter();
        let records = containers.map(|container| (container.is_running(), container.view()));
        let mut uses: Vec<ImageUse> = records
            .filter(|(_, record)| record.image_id == id)
            .map(|(running, record)| ImageUse {
                container: record.id.chars().take(12).collect(),
                running,
            })
            .collect();
        uses.sort_by_key(|used| !used.running);
        uses.into_iter().next()
    }
}

pub(super) fn not_removed(error: RemoveImageError) -> ApiError {
    match error {
        RemoveImageError::Find(error) => unfound(&error).into(),
        RemoveImageError::Running { .. }
        | RemoveImageError::Stopped { .. }
        | RemoveImageError::LastName { .. }
        | RemoveImageError::SeveralNames { .. }
        | RemoveImageError::Children { .. } => Refusal::conflict(error.to_string()).into(),
        RemoveImageError::Index(_) | RemoveImageError::Stop(_) => {
            ApiError::from(anyhow::Error::from(error))
        }
    }
}

pub(super) fn item(removed: Removed) -> ImageDeleteResponseItem {
    match removed {
        Removed::Untagged(name) => ImageDeleteResponseItem {
            untagged: Some(name),
            deleted: None,
        },
        Removed::Deleted(id) => ImageDeleteResponseItem {
            untagged: None,
            deleted: Some(id),
        },
    }
}

pub(super) fn unfound(error: &FindImageError) -> Refusal {
    match error {
        FindImageError::NoSuchImage(name) => Refusal::not_found(format!("No such image: {name}")),
        FindImageError::Ambiguous(_) => Refusal::invalid(error.to_string()),
    }
}
