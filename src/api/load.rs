//! `POST /images/load`: images from an archive, which is unpacked as it comes.

use std::io;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::{TryStreamExt, stream};
use nuncio_runtime::image::{LoadError, Loaded, Progress, ProgressStatus};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::error::ApiError;
use super::pull::{self, STEPS};
use super::query::{Flag, Params};
use super::{Answer, Server};

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    quiet: Flag,
}

/// The load as it goes on; dropped with the answer's body, when the client has gone.
type Loading = Pin<Box<dyn Future<Output = Result<Vec<Loaded>, LoadError>> + Send>>;

pub(crate) async fn load(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    request: Request,
) -> Answer {
    let body = request.into_body().into_data_stream();
    let archive = StreamReader::new(Box::pin(body.map_err(io::Error::other)));
    let (sender, progress) = mpsc::channel(STEPS);
    let loading: Loading = Box::pin(async move { daemon.images().load(archive, sender).await });
    let mut steps = Steps {
        loading: Some(loading),
        progress,
        quiet: asked.quiet.0,
    };
    // Until the first step is known, a failure is an answer of its own.
    let first = steps.next().await.map_err(unloadable)?;
    let rest = stream::unfold(Some(steps), async |steps| {
        let mut steps = steps?;
        match steps.next().await {
            Ok(line) => line.map(|line| (line, Some(steps))),
            Err(error) => Some((pull::error_line(&unloadable(error).message), None)),
        }
    });
    let all = stream::StreamExt::chain(stream::iter(first), rest);
    let all = stream::StreamExt::map(all, Ok::<_, std::convert::Infallible>);
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(all)).into_response())
}

struct Steps {
    /// `None` once it is done.
    loading: Option<Loading>,
    progress: mpsc::Receiver<Progress>,
    quiet: bool,
}

impl Steps {
    /// The next line; `None` when all is said.
    async fn next(&mut self) -> Result<Option<Bytes>, LoadError> {
        loop {
            let Some(loading) = &mut self.loading else {
                return Ok(None);
            };
            tokio::select! {
                biased;
                Some(progress) = self.progress.recv() => {
                    if let Some(line) = self.step(&progress) {
                        return Ok(Some(line));
                    }
                }
                loaded = loading => {
                    let loaded = loaded?;
                    self.loading = None;
                    let mut lines = Vec::new();
                    while let Ok(progress) = self.progress.try_recv() {
                        lines.extend(self.step(&progress).into_iter().flatten());
                    }
                    loaded.iter().for_each(|image| lines.extend(outcome(image)));
                    return Ok(Some(lines.into()));
                }
            }
        }
    }

    /// Docker tells how far each new layer has come, and nothing else.
    fn step(&self, progress: &Progress) -> Option<Bytes> {
        let is_shown = !self.quiet && progress.status == ProgressStatus::Extracting;
        is_shown.then(|| pull::bytes_line(&progress.id, "Loading layer", progress))
    }
}

/// What became of one image.
fn outcome(image: &Loaded) -> Vec<u8> {
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
    let line = |text| pull::line(&json!({ "stream": text }));
    told.into_iter().flat_map(line).collect()
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
