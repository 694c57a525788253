//! `POST /images/create`: an image from its registry, with a line of JSON for each step.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use nuncio_runtime::image::{Platform, PullError, PullOptions, Reference};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::error::ApiError;
use super::query::Params;
use super::registry_auth::credentials;
use super::steps::{self, Told};
use super::{Answer, Server, import};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    #[serde(default)]
    from_image: String,
    #[serde(default)]
    pub(super) from_src: String,
    #[serde(default)]
    pub(super) repo: String,
    #[serde(default)]
    pub(super) tag: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) platform: String,
}

/// The query with `changes`, which may be repeated.
pub(crate) async fn create(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    Params(pairs): Params<Vec<(String, String)>>,
    request: Request,
) -> Answer {
    if !asked.from_src.is_empty() {
        let changes = pairs.into_iter().filter(|(key, _)| key == "changes");
        let changes = changes.map(|(_, value)| value).collect();
        return import::import(daemon, asked, changes, request.into_body()).await;
    }
    if asked.from_image.is_empty() {
        return Err(ApiError::bad_request(
            "invalid reference format: fromImage names no image",
        ));
    }
    let name = parse(&asked.from_image, &asked.tag)?;
    let whole_repository = asked.tag.is_empty() && is_name_only(&asked.from_image);
    let options = PullOptions {
        auth: credentials(request.headers())?,
        registries: Arc::clone(daemon.registries()),
        platform: platform(&asked.platform)?,
    };
    steps::answer(async move |told| {
        let mut names = vec![name.clone()];
        if whole_repository {
            let tags = daemon.images().remote_tags(&name, &options).await;
            let tags = tags.map_err(failure)?;
            names = tags
                .iter()
                .filter_map(|tag| parse(&name.familiar_repository(), tag).ok())
                .collect();
        }
        let mut is_new = false;
        for name in &names {
            is_new |= pull(&daemon, name, &options, &told)
                .await
                .map_err(failure)?;
        }
        let news = if is_new {
            "Downloaded newer image for"
        } else {
            "Image is up to date for"
        };
        let what = if whole_repository {
            name.familiar_repository()
        } else {
            name.familiar()
        };
        told.status(format!("Status: {news} {what}")).await;
        Ok(())
    })
    .await
}

/// Pulls one image; whether it is another than before.
async fn pull(
    daemon: &Daemon,
    name: &Reference,
    options: &PullOptions,
    told: &Told,
) -> Result<bool, PullError> {
    let before = daemon.images().find(&name.familiar()).ok();
    let (sender, progress) = steps::channel();
    let pulling = daemon.images().pull(name, options.clone(), sender);
    let (pulled, ()) = tokio::join!(pulling, tell(progress, name, told));
    let pulled = pulled?;
    daemon.tell_image("pull", &name.familiar(), &name.familiar_repository());
    told.status(format!("Digest: {}", pulled.digest)).await;
    Ok(before.is_none_or(|before| before.id != pulled.image.id))
}

/// Passes on how far the layers have come, once there are any.
async fn tell(
    mut progress: mpsc::Receiver<nuncio_runtime::image::Progress>,
    name: &Reference,
    told: &Told,
) {
    let digest = name.digest().map(|digest| digest.to_string());
    let id = digest.as_deref().or(name.tag()).unwrap_or_default();
    let mut has_begun = false;
    while let Some(step) = progress.recv().await {
        if !std::mem::replace(&mut has_begun, true) {
            let from = format!("Pulling from {}", name.repository());
            told.status_of(id, from).await;
        }
        told.progress(&step, step.status.to_string()).await;
    }
}

pub(super) fn failure(error: PullError) -> ApiError {
    let is_unknown = matches!(error, PullError::Denied { .. } | PullError::NotFound { .. });
    let error = ApiError::from(anyhow::Error::from(error));
    match is_unknown {
        true => ApiError::new(StatusCode::NOT_FOUND, error.message),
        false => error,
    }
}

/// A name and a tag or digest that came apart.
pub(super) fn parse(name: &str, tag: &str) -> Result<Reference, Refusal> {
    let whole = match tag {
        "" => name.to_owned(),
        digest if digest.contains(':') => format!("{name}@{digest}"),
        tag => format!("{name}:{tag}"),
    };
    whole
        .parse()
        .map_err(|error| Refusal::invalid(format!("{error}")))
}

pub(super) fn platform(text: &str) -> Result<Option<Platform>, Refusal> {
    let given = Some(text).filter(|text| !text.is_empty());
    let parsed = given.map(str::parse).transpose();
    parsed.map_err(|error| Refusal::invalid(format!("{error}")))
}

/// Whether a name has neither tag nor digest.
pub(super) fn is_name_only(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    !last.contains([':', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together_and_shown_as_people_write_them() {
        let familiar = |name, tag| parse(name, tag).expect("a name").familiar();
        assert_eq!(familiar("docker.io/library/redis", "7"), "redis:7");
        assert_eq!(familiar("redis", ""), "redis:latest");
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(familiar("redis", &digest), format!("redis@{digest}"));
        assert!(parse("Redis", "").is_err());
    }

    #[test]
    fn a_registrys_port_is_no_tag() {
        for name in ["redis", "localhost:5000/redis", "docker.io/library/redis"] {
            assert!(is_name_only(name), "{name}");
        }
        for name in ["redis:7", "localhost:5000/redis:7", "redis@sha256:00"] {
            assert!(!is_name_only(name), "{name}");
        }
    }
}
