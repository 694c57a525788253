//! `POST /images/prune`: images that nothing needs.

use std::time::SystemTime;

use axum::extract::State;
use bollard_stubs::models::ImagePruneResponse;
use nuncio_runtime::image::Image;
use serde::Deserialize;

use super::filters::Filters;
use super::image_list::{labels, moment};
use super::images::{ids, in_use, item, not_removed, tell_removed};
use super::query::Params;
use super::{Answer, Server, json};
use crate::daemon::events::Kind;

const FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

#[derive(Deserialize)]
pub(crate) struct Prune {
    filters: Option<String>,
}

/// Takes those without a name, or with `dangling=false` all that no container uses.
pub(crate) async fn prune(State(daemon): Server, Params(asked): Params<Prune>) -> Answer {
    let filters = Filters::parse(asked.filters.as_deref(), FILTERS)?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let until = filters.values("until").map(moment);
    let until: Option<SystemTime> = until.collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let wanted = move |image: &Image| {
        let old = until.is_none_or(|until| image.created.is_some_and(|made| made <= until));
        let labels = labels(image);
        (!dangling || image.names.is_empty())
            && old
            && filters.labels(&labels)
            && filters.no_labels(&labels)
    };
    let before = ids(&daemon);
    let pruned = daemon
        .images()
        .prune(wanted, in_use(&daemon))
        .await
        .map_err(not_removed)?;
    tell_removed(&daemon, &before, &pruned.removed);
    daemon.tell_pruned(Kind::Image, pruned.reclaimed);
    let removed: Vec<_> = pruned.removed.into_iter().map(item).collect();
    json::sorted(ImagePruneResponse {
        images_deleted: (!removed.is_empty()).then_some(removed),
        space_reclaimed: Some(i64::try_from(pruned.reclaimed).unwrap_or(i64::MAX)),
    })
}
