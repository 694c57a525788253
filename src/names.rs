//! The names that the ambassador of a host answers for its containers, as the daemon tells it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use nuncio_overlay::{NameServer, NameStats, NamesDocument};

/// More than the names of a mesh of thousands of containers take.
const LARGEST_DOCUMENT: usize = 32 << 20;

/// `PUT /names` replaces all names that are answered, `GET /names/stats` tells what was answered so far.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/names", put(put_names))
        .route("/names/stats", get(stats))
        .layer(DefaultBodyLimit::max(LARGEST_DOCUMENT))
        .with_state(Arc::new(NameServer::new()))
}

async fn stats(State(names): State<Arc<NameServer>>) -> Json<NameStats> {
    Json(names.stats())
}

async fn put_names(
    State(names): State<Arc<NameServer>>,
    Json(document): Json<NamesDocument>,
) -> Response {
    match names.apply(document).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            let body = serde_json::json!({ "message": error.to_string() });
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
    }
}
