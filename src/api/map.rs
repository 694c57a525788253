//! `GET /nuncio/v1/map`: hosts, containers, services and links, with what passes. `?history=1`: and what did in the last hour;
//! `?all=1`: as all hosts tell, and not this one alone.

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
    #[serde(default)]
    pub(super) all: Flag,
}

pub(crate) async fn map(State(daemon): Server, Params(asked): Params<Asked>) -> Answer {
    let history = asked.history.0;
    if asked.all.0 {
        return Ok(Json(daemon.map_of_all_now(history).await?).into_response());
    }
    Ok(Json(daemon.map(history).await?).into_response())
}
