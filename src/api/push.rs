//! `POST /images/{name}/push`: an image to its registry, with a line of JSON for each step.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use nuncio_runtime::image::{PushError, PushOptions, Reference};
use serde_json::json;

use super::Answer;
use super::error::ApiError;
use super::pull::parse;
use super::registry_auth::credentials;
use super::steps::{self, Told};
use crate::daemon::Daemon;

/// Pushes the tag, or without one all that this repository has here.
pub(super) async fn push(
    daemon: Arc<Daemon>,
    name: &str,
    tag: &str,
    headers: &HeaderMap,
) -> Answer {
    let whole = parse(name, tag)?;
    let options = PushOptions {
        auth: credentials(headers)?,
        registries: Arc::clone(daemon.registries()),
    };
    let repository = |reference: &Reference| {
        let same = reference.registry() == whole.registry();
        same && reference.repository() == whole.repository()
    };
    let known: Vec<Reference> = daemon
        .images()
        .list()
        .iter()
        .flat_map(|image| &image.names)
        .filter_map(|name| name.parse().ok())
        .filter(repository)
        .collect();
    if known.is_empty() {
        let name = whole.familiar_repository();
        let message = format!("An image does not exist locally with the tag: {name}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    let wanted = match super::pull::is_name_only(name) && tag.is_empty() {
        true => known,
        false => vec![whole.clone()],
    };
    let repository = format!("{}/{}", whole.registry(), whole.repository());
    steps::answer(async move |told| {
        told.status(format!("The push refers to repository [{repository}]"))
            .await;
        for reference in &wanted {
            push_one(&daemon, reference, &options, &told)
                .await
                .map_err(|error| ApiError::from(anyhow::Error::from(error)))?;
        }
        Ok(())
    })
    .await
}

async fn push_one(
    daemon: &Daemon,
    reference: &Reference,
    options: &PushOptions,
    told: &Told,
) -> Result<(), PushError> {
    let (sender, mut progress) = steps::channel();
    let pushing = daemon.images().push(reference, options.clone(), sender);
    let tell = async {
        while let Some(step) = progress.recv().await {
            told.progress(&step, step.status.to_string()).await;
        }
    };
    let (pushed, ()) = tokio::join!(pushing, tell);
    let pushed = pushed?;
    let repository = reference.familiar_repository();
    daemon.tell_image("push", &reference.familiar(), &repository);
    let (tag, digest, size) = (&pushed.tag, &pushed.digest, pushed.size);
    told.status(format!("{tag}: digest: {digest} size: {size}"))
        .await;
    // What programs read.
    told.line(&json!({
        "progressDetail": {},
        "aux": {"Tag": tag, "Digest": digest, "Size": size},
    }))
    .await;
    Ok(())
}
