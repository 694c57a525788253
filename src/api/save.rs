//! `GET /images/get`: images as an archive.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use nuncio_runtime::image::{Platform, SaveError};

use super::error::ApiError;
use super::images::unfound;
use super::query::Params;
use super::{Answer, Server, image_platform};

/// Each `names` is an image; the parameter may be repeated.
pub(crate) async fn several(
    daemon: Server,
    Params(pairs): Params<Vec<(String, String)>>,
) -> Answer {
    let all = |wanted: &'static str| {
        let pairs = pairs.iter().filter(move |(key, _)| key == wanted);
        pairs
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())
    };
    let names: Vec<String> = all("names").cloned().collect();
    let platform = match all("platform").next() {
        Some(text) => image_platform::parse(text)?,
        None => None,
    };
    save(daemon, &names, platform.as_ref()).await
}

pub(super) async fn save(
    State(daemon): Server,
    names: &[String],
    platform: Option<&Platform>,
) -> Answer {
    let mut ids = Vec::new();
    for name in names {
        // what is built in is made when it is asked for
        let image = daemon.find_image(name).await?;
        image_platform::check(platform, &image, name)?;
        ids.push(image.id.clone());
    }
    let archive = daemon.images().save(names).await.map_err(unsaved)?;
    for id in ids {
        daemon.tell_image("save", &id, &id);
    }
    let body = Body::from_stream(archive.into_stream());
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

fn unsaved(error: SaveError) -> ApiError {
    match error {
        SaveError::Find(error) => unfound(&error).into(),
        error => anyhow::Error::from(error).into(),
    }
}
