//! `GET /images/get`: images as an archive.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use nuncio_runtime::image::SaveError;

use super::error::ApiError;
use super::images::unfound;
use super::query::Params;
use super::{Answer, Server};

/// Each `names` is an image; the parameter may be repeated.
pub(crate) async fn several(
    daemon: Server,
    Params(pairs): Params<Vec<(String, String)>>,
) -> Answer {
    let named =
        |(key, name): (String, String)| (key == "names" && !name.is_empty()).then_some(name);
    let names: Vec<String> = pairs.into_iter().filter_map(named).collect();
    save(daemon, &names).await
}

pub(super) async fn save(State(daemon): Server, names: &[String]) -> Answer {
    let mut ids = Vec::new();
    for name in names {
        // what is built in is made when it is asked for
        ids.push(daemon.find_image(name).await?.id.clone());
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
