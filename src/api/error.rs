//! What went wrong, as Docker's clients expect to hear it: a status and `{"message": …}`.

use axum::Json;
use axum::body::to_bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bollard_stubs::models::ErrorResponse;

use crate::daemon::refusal::{Refusal, RefusalKind};

/// Bytes of what axum says of a request; it says a line.
const LONGEST: usize = 4096;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(status(refusal.kind), refusal.message)
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        let refusal = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Refusal>());
        let status = refusal.map_or(StatusCode::INTERNAL_SERVER_ERROR, |refusal| {
            status(refusal.kind)
        });
        Self::new(status, format!("{error:#}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(message = self.message, "a request failed");
        }
        (
            self.status,
            Json(ErrorResponse {
                message: self.message,
            }),
        )
            .into_response()
    }
}

/// Puts what axum itself has to say of a request, as of a path that is no text, into the form of all other errors.
pub(crate) async fn in_form(response: Response) -> Response {
    let is_plain = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    if !response.status().is_client_error()
        || !response.headers().get(CONTENT_TYPE).is_some_and(is_plain)
    {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, LONGEST).await.unwrap_or_default();
    ApiError::new(parts.status, String::from_utf8_lossy(&text)).into_response()
}

fn status(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_refusal_decides_the_status_wherever_it_stands_in_the_chain() {
        let error = Err::<(), _>(Refusal::conflict("name in use"))
            .context("create container web")
            .expect_err("a refusal");
        let error = ApiError::from(error);
        assert_eq!(error.status, StatusCode::CONFLICT);
        assert_eq!(error.message, "create container web: name in use");
    }

    #[test]
    fn anything_else_is_the_servers_fault_and_tells_the_whole_chain() {
        let error = ApiError::from(
            anyhow!("no space left on device (os error 28)").context("write record"),
        );
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            error.message,
            "write record: no space left on device (os error 28)"
        );
    }
}
