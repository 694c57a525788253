//! `POST /images/load`: images from an archive, which is unpacked as it comes.

use std::io;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use futures_util::TryStreamExt;
use nuncio_runtime::image::{LoadError, Loaded, Platform, ProgressStatus};
use serde::Deserialize;
use serde_json::json;
use tokio_util::io::StreamReader;

use super::body::drain;
use super::error::ApiError;
use super::query::{Flag, Params};
use super::{Answer, Server, image_platform, steps};
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    quiet: Flag,
    #[serde(default)]
    platform: String,
}

pub(crate) async fn load(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    request: Request,
) -> Answer {
    let host = Platform::host();
    if let Some(platform) = image_platform::parse(&asked.platform)?
        && (platform.os(), platform.architecture()) != (host.os(), host.architecture())
    {
        // A client that is still sending would not hear why.
        drain(request.into_body()).await;
        let message = format!("not built: load --platform {platform}; only {host} is loaded here");
        return Err(Refusal::unsupported(message).into());
    }
    let body = request.into_body().into_data_stream();
    let archive = StreamReader::new(Box::pin(body.map_err(io::Error::other)));
    let quiet = asked.quiet.0;
    steps::answer(async move |told| {
        let (sender, mut progress) = steps::channel();
        let loading = daemon.images().load(archive, sender);
        let tell = async {
            while let Some(step) = progress.recv().await {
                // Docker tells how far each new layer has come, and nothing else.
                if !quiet && step.status == ProgressStatus::Extracting {
                    told.progress(&step, "Loading layer").await;
                }
            }
        };
        let (loaded, ()) = tokio::join!(loading, tell);
        for image in loaded.map_err(unloadable)? {
            daemon.tell_image("load", &image.id, &image.id);
            for text in outcome(&image) {
                told.line(&json!({ "stream": text })).await;
            }
        }
        Ok(())
    })
    .await
}

/// What became of one image.
fn outcome(image: &Loaded) -> Vec<String> {
    let moved = image.replaced.iter().map(|(name, id)| {
        format!(
            "The image {name} already exists, renaming the old one with ID {id} to empty string\n"
        )
    });
    let names = image
        .names
        .iter()
        .map(|name| format!("Loaded image: {name}\n"));
    let mut told: Vec<String> = moved.chain(names).collect();
    if image.names.is_empty() {
        told.push(format!("Loaded image ID: {}\n", image.id));
    }
    told
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
