//! What takes room on the disk, and giving back what nothing needs.

use std::collections::HashMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use bollard_stubs::models::{ContainerPruneResponse, ContainerSummary, ImageSummary};
use jiff::Timestamp;
use nuncio_runtime::image::LayerId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::filters::Filters;
use super::image_list::moment;
use super::query::Params;
use super::{Answer, Server, container_summary, image_view, volumes};
use crate::daemon::Daemon;
use crate::daemon::container::Container;
use crate::daemon::events::Kind;
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct Prune {
    filters: Option<String>,
}

/// Up to when what is to be removed was made; `None`: whenever it was.
pub(super) fn until(filters: &Filters) -> Result<Option<SystemTime>, Refusal> {
    let until = filters.values("until").map(moment);
    Ok(until.collect::<Result<Vec<_>, _>>()?.into_iter().min())
}

/// Removes the containers that do not run.
pub(crate) async fn containers(State(daemon): Server, Params(asked): Params<Prune>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), &["label", "label!", "until"])?;
    let until = until(&filters)?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0u64);
    for container in daemon.containers() {
        let record = container.view();
        let labels = &record.config.labels;
        let made = SystemTime::try_from(record.created).ok();
        let old = until.is_none_or(|until| made.is_some_and(|made| made <= until));
        let wanted = old && filters.labels(labels) && filters.no_labels(labels);
        if !wanted || container.is_running() || container.is_active() {
            continue;
        }
        let size = daemon.written(&container).await.unwrap_or_default();
        match daemon.remove(&container, false, false).await {
            Ok(()) => {
                reclaimed = reclaimed.saturating_add(size);
                deleted.push(record.id);
            }
            Err(error) => tracing::info!(
                container = record.name,
                error = format!("{error:#}"),
                "not pruned"
            ),
        }
    }
    daemon.tell_pruned(Kind::Container, reclaimed);
    Ok(Json(ContainerPruneResponse {
        containers_deleted: Some(deleted),
        space_reclaimed: Some(number(reclaimed)),
    })
    .into_response())
}

/// There is no build, and so no cache of one.
pub(crate) async fn builds() -> Answer {
    Ok(Json(json!({ "CachesDeleted": null, "SpaceReclaimed": 0 })).into_response())
}

/// What is to be told of, by `type`, which may come several times; all if it does not.
pub(crate) async fn usage(
    State(daemon): Server,
    Query(asked): Query<Vec<(String, String)>>,
) -> Answer {
    const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];
    let asked = asked.into_iter().filter(|(key, _)| key == "type");
    let asked: Vec<String> = asked.map(|(_, kind)| kind).collect();
    if let Some(unknown) = asked.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return Err(Refusal::invalid(format!("unknown object type: {unknown}")).into());
    }
    let wants = |kind: &str| asked.is_empty() || asked.iter().any(|asked| asked == kind);
    let mut answer = json!({});
    if wants("image") {
        let (images, size) = images(&daemon);
        answer["LayersSize"] = json!(size);
        answer["Images"] = json!(images);
    }
    if wants("container") {
        answer["Containers"] = json!(containers_usage(&daemon).await?);
    }
    if wants("volume") {
        let mut all: Vec<Value> = Vec::new();
        for view in daemon.volume_list() {
            let size = daemon.volume_size(&view.volume.name).await;
            all.push(volumes::view(&view, Some(size.unwrap_or_default())));
        }
        answer["Volumes"] = json!(all);
    }
    if wants("build-cache") {
        answer["BuildCache"] = json!([]);
        answer["BuilderSize"] = json!(0);
    }
    Ok(Json(answer).into_response())
}

/// Each image with what it shares and how many containers have it, and the bytes of all layers.
fn images(daemon: &Daemon) -> (Vec<ImageSummary>, u64) {
    let sizes = daemon.images().layer_sizes();
    let all = daemon.images().list();
    let mut users: HashMap<LayerId, usize> = HashMap::new();
    for layer in all.iter().flat_map(|image| &image.layers) {
        *users.entry(*layer).or_default() += 1;
    }
    let containers: Vec<String> = daemon
        .containers()
        .iter()
        .map(|container| container.view().image_id)
        .collect();
    let summaries = all.iter().map(|image| {
        let shared = image
            .layers
            .iter()
            .filter(|layer| users.get(layer) > Some(&1));
        let shared: u64 = shared.filter_map(|layer| sizes.get(layer)).sum();
        let of_image = containers.iter().filter(|id| **id == image.id).count();
        ImageSummary {
            shared_size: number(shared),
            containers: i64::try_from(of_image).unwrap_or(i64::MAX),
            ..image_view::summary(image, false)
        }
    });
    (summaries.collect(), sizes.values().sum())
}

async fn containers_usage(daemon: &Daemon) -> anyhow::Result<Vec<ContainerSummary>> {
    let (now, volumes) = (Timestamp::now(), daemon.volumes_root());
    let mut all = Vec::new();
    for container in daemon.containers() {
        let (record, health) = (container.view(), container.health());
        let summary = container_summary::summary(&record, health.as_ref(), now, &volumes);
        all.push(with_sizes(daemon, &container, summary).await);
    }
    Ok(all)
}

/// The summary with what the container has written, and with what its image has below that.
pub(crate) async fn with_sizes(
    daemon: &Daemon,
    container: &Container,
    summary: ContainerSummary,
) -> ContainerSummary {
    let (written, whole) = sizes(daemon, container).await;
    ContainerSummary {
        size_rw: Some(written),
        size_root_fs: Some(whole),
        ..summary
    }
}

/// Bytes that a container has written, and those together with its image's.
pub(super) async fn sizes(daemon: &Daemon, container: &Container) -> (i64, i64) {
    // One that goes meanwhile takes nothing.
    let written = daemon.written(container).await.unwrap_or_default();
    let image = daemon.images().find(&container.view().image_id).ok();
    let below = image.map_or(0, |image| image.size);
    (number(written), number(written.saturating_add(below)))
}

fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
