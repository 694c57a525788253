//! `GET /nuncio/v1/map`: hosts, containers, services and links, with what passes. `?history=1`: and what did in the last hour.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse as _;
use serde::Deserialize;

use super::query::{Flag, Params};
use super::{Answer, Server};

#[derive(Default, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    pub(super) history: Flag,
}

pub(crate) async fn map(State(daemon): Server, Params(asked): Params<Asked>) -> Answer {
    Ok(Json(daemon.map(asked.history.0).await?).into_response())
}
