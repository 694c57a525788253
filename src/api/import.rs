//! `POST /images/create?fromSrc=`: an image from the tar of a root file system.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use futures_util::TryStreamExt;
use nuncio_runtime::image::{About, ImportError, Platform, Reference};
use serde_json::Map;
use tokio_util::io::StreamReader;

use super::error::ApiError;
use super::pull::{Asked, parse, platform};
use super::{Answer, changes, steps, upload};
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

/// The archive is the body; a URL is refused, as the daemon fetches nothing but images.
pub(super) async fn import(
    daemon: Arc<Daemon>,
    asked: Asked,
    instructions: Vec<String>,
    body: Body,
) -> Answer {
    let (name, platform, about) = match understand(&asked, &instructions) {
        Ok(understood) => understood,
        Err(refusal) => {
            upload::drain(body).await;
            return Err(refusal);
        }
    };
    let archive = StreamReader::new(Box::pin(body.into_data_stream().map_err(io::Error::other)));
    steps::answer(async move |told| {
        let imported = daemon.images().import(archive, name, about, platform).await;
        let id = imported.map_err(unimportable)?.id;
        daemon.tell_image("import", &id, &id);
        told.status(id).await;
        Ok(())
    })
    .await
}

/// What the image is to be called, for which platform it is, and what is told of it.
fn understand(
    asked: &Asked,
    instructions: &[String],
) -> Result<(Option<Reference>, Option<Platform>, About), ApiError> {
    if asked.from_src != "-" {
        return Err(Refusal::unsupported(format!(
            "not built: import from a URL; fetch it yourself, as in: curl -L {} | nuncio import -",
            asked.from_src
        ))
        .into());
    }
    let name = match asked.repo.as_str() {
        "" => None,
        repo => Some(parse(repo, &asked.tag)?),
    };
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(ApiError::bad_request("cannot import digest reference"));
    }
    let platform = platform(&asked.platform)?;
    let mut config = Map::new();
    changes::apply(&mut config, instructions)?;
    let about = About {
        config: config.into(),
        comment: match asked.message.as_str() {
            "" => "Imported from -".to_owned(),
            message => message.to_owned(),
        },
        ..About::default()
    };
    Ok((name, platform, about))
}

/// What is wrong with the archive is its sender's to mend.
fn unimportable(error: ImportError) -> ApiError {
    use nuncio_runtime::image::InstallError;
    let theirs = matches!(
        error,
        ImportError::Receive(_) | ImportError::Install(InstallError::Layer { .. })
    );
    let message = format!("{:#}", anyhow::Error::from(error));
    match theirs {
        true => ApiError::bad_request(message),
        false => ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message),
    }
}
