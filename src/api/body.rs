//! Request bodies, with Docker's words for the wrong ones.

use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::ApiError;

/// More than any client sends, and little enough to hold in memory.
const LIMIT: usize = 2 << 20;

/// A JSON body; an empty one is the default.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        read(&parts.headers, body).await.map(Self)
    }
}

/// The JSON of a request whose other parts are still needed.
pub(crate) async fn read<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, ApiError> {
    check_content_type(headers)?;
    let bytes = to_bytes(body, LIMIT).await.map_err(unreadable)?;
    parse(&bytes)
}

/// Reads what a refused request still sends, within bounds: who is cut off while it writes does not read why.
pub(crate) async fn drain(body: Body) {
    const MOST: usize = 256 << 20;
    const LONGEST: Duration = Duration::from_secs(30);
    let mut left = MOST;
    let mut pieces = body.into_data_stream();
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(LONGEST, reading).await; // then it is cut off
}

/// An empty body is the default.
pub(super) fn parse<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("invalid JSON: {error}")))
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        let empty = headers
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length == "0");
        return if empty && !headers.contains_key("transfer-encoding") {
            Ok(())
        } else {
            Err(ApiError::bad_request(
                "malformed Content-Type header (): mime: no media type",
            ))
        };
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        let message =
            format!("unsupported Content-Type header ({media_type}): must be 'application/json'");
        Err(ApiError::bad_request(message))
    }
}

fn unreadable(error: axum::Error) -> ApiError {
    if error
        .source()
        .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
    {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request body too large: at most 2 MiB are taken",
        )
    } else {
        ApiError::bad_request(format!("read request body: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn sent(content_type: Option<&str>, body: impl Into<Body>) -> Result<Value, ApiError> {
        let mut request = Request::new(body.into());
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert(CONTENT_TYPE, content_type.parse().expect("a valid header"));
        } else {
            request
                .headers_mut()
                .insert(CONTENT_LENGTH, "2".parse().expect("a valid header"));
        }
        JsonBody::from_request(request, &())
            .await
            .map(|JsonBody(value)| value)
    }

    #[tokio::test]
    async fn json_is_read_with_any_parameters_of_its_type() {
        let body = sent(Some("application/json; charset=utf-8"), r#"{"a":1}"#).await;
        assert_eq!(body.expect("valid"), json!({"a": 1}));
        assert_eq!(
            sent(Some("application/json"), "").await.expect("empty"),
            Value::Null
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_in_dockers_words() {
        for (content_type, body, message) in [
            (
                Some("text/plain"),
                "{}",
                "unsupported Content-Type header (text/plain): must be 'application/json'",
            ),
            (
                None,
                "{}",
                "malformed Content-Type header (): mime: no media type",
            ),
            (
                Some("application/json"),
                "{",
                "invalid JSON: EOF while parsing an object at line 1 column 1",
            ),
            (
                Some("application/json"),
                "{} {}",
                "invalid JSON: trailing characters at line 1 column 4",
            ),
        ] {
            let error = sent(content_type, body).await.expect_err(body);
            assert_eq!(
                (error.status, error.message.as_str()),
                (StatusCode::BAD_REQUEST, message)
            );
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        let error = sent(Some("application/json"), vec![b' '; LIMIT + 1])
            .await
            .expect_err("too large");
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
