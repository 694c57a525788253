//! `POST /images/create`: an image from its registry, with a line of JSON for each step.

use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bollard_stubs::models::{CreateImageInfo, ErrorDetail, ProgressDetail};
use futures_util::stream;
use nuncio_runtime::image::{Image, Progress, PullError};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::query::Params;
use super::{Answer, Server};
use crate::daemon::refusal::Refusal;

/// Steps that wait for a slow client; further ones are left out.
pub(super) const STEPS: usize = 256;
/// Docker's clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    #[serde(default)]
    from_image: String,
    #[serde(default)]
    from_src: String,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    platform: String,
}

/// The pull as it goes on; dropped with the answer's body, when the client has gone.
type Pulling = Pin<Box<dyn Future<Output = anyhow::Result<Arc<Image>>> + Send>>;

pub(crate) async fn create(
    State(daemon): Server,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Answer {
    if !asked.from_src.is_empty() {
        return Err(
            Refusal::unsupported("not built: import; load takes an archive made by save").into(),
        );
    }
    if asked.from_image.is_empty() {
        return Err(ApiError::bad_request(
            "invalid reference format: fromImage names no image",
        ));
    }
    let auth = credentials(&headers)?;
    let name = familiar(&asked.from_image, &asked.tag);
    let before = daemon.images().find(&name).ok().map(|image| image.id);
    let (sender, progress) = mpsc::channel(STEPS);
    let pulling: Pulling = Box::pin(async move {
        let platform = Some(asked.platform.as_str()).filter(|platform| !platform.is_empty());
        daemon
            .pull(&asked.from_image, &asked.tag, auth, platform, sender)
            .await
    });
    let mut steps = Steps {
        pulling: Some(pulling),
        progress,
        before,
        name,
    };
    // Until the first step is known, a failure is an answer of its own.
    let first = steps.next().await.map_err(failure)?;
    let rest = stream::unfold(Some(steps), async |steps| {
        let mut steps = steps?;
        match steps.next().await {
            Ok(line) => line.map(|line| (line, Some(steps))),
            Err(error) => Some((error_line(&failure(error).message), None)),
        }
    });
    let all = stream::StreamExt::chain(stream::iter(first), rest);
    let body = Body::from_stream(stream::StreamExt::map(
        all,
        Ok::<_, std::convert::Infallible>,
    ));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

struct Steps {
    /// `None` once it is done.
    pulling: Option<Pulling>,
    progress: mpsc::Receiver<Progress>,
    /// The image's id before.
    before: Option<String>,
    name: String,
}

impl Steps {
    /// The next line; `None` when all is said.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        let Some(pulling) = &mut self.pulling else {
            return Ok(None);
        };
        tokio::select! {
            biased;
            Some(progress) = self.progress.recv() => Ok(Some(progress_line(&progress))),
            image = pulling => {
                let image = image?;
                self.pulling = None;
                let mut lines = Vec::new();
                while let Ok(progress) = self.progress.try_recv() {
                    lines.extend(progress_line(&progress));
                }
                lines.extend(status_line(&format!("Digest: {}", image.manifest)));
                let news = match &self.before {
                    Some(before) if *before == image.id => "Image is up to date for",
                    _ => "Downloaded newer image for",
                };
                lines.extend(status_line(&format!("Status: {news} {}", self.name)));
                Ok(Some(lines.into()))
            }
        }
    }
}

fn failure(error: anyhow::Error) -> ApiError {
    let unknown = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(PullError::Denied { .. } | PullError::NotFound { .. })
        )
    });
    let error = ApiError::from(error);
    match unknown {
        true => ApiError::new(StatusCode::NOT_FOUND, error.message),
        false => error,
    }
}

/// The name as people read it, with its tag.
fn familiar(reference: &str, tag: &str) -> String {
    let whole = match tag {
        "" => reference.to_owned(),
        digest if digest.contains(':') => format!("{reference}@{digest}"),
        tag => format!("{reference}:{tag}"),
    };
    whole
        .parse()
        .map_or(whole, |name: nuncio_runtime::image::Reference| {
            name.familiar()
        })
}

/// `X-Registry-Auth`: base64 of `{"username", "password"}`; without a name it is nobody's.
fn credentials(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    #[derive(Deserialize)]
    struct Auth {
        #[serde(default)]
        username: String,
        #[serde(default)]
        password: String,
        #[serde(default)]
        identitytoken: String,
    }
    let Some(value) = headers
        .get("x-registry-auth")
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    // What is in it must not be repeated in a message.
    let wrong =
        || Refusal::invalid("invalid X-Registry-Auth header: expected base64 of a JSON object");
    let standard = String::from_utf8_lossy(value.as_bytes())
        .replace('+', "-")
        .replace('/', "_");
    let json = BASE64.decode(standard).map_err(|_| wrong())?;
    let auth: Auth = serde_json::from_slice(&json).map_err(|_| wrong())?;
    if !auth.identitytoken.is_empty() {
        return Err(Refusal::unsupported(
            "not built: identity tokens of registries; give a name and a password",
        ));
    }
    Ok((!auth.username.is_empty()).then_some((auth.username, auth.password)))
}

fn progress_line(progress: &Progress) -> Bytes {
    bytes_line(&progress.id, &progress.status.to_string(), progress)
}

/// How far what is called `id` has come.
pub(super) fn bytes_line(id: &str, status: &str, progress: &Progress) -> Bytes {
    let count = |bytes: u64| (bytes > 0).then(|| i64::try_from(bytes).unwrap_or(i64::MAX));
    line(&CreateImageInfo {
        id: Some(id.to_owned()),
        status: Some(status.to_owned()),
        progress_detail: Some(ProgressDetail {
            current: count(progress.current),
            total: count(progress.total),
        }),
        ..CreateImageInfo::default()
    })
}

fn status_line(status: &str) -> Bytes {
    line(&CreateImageInfo {
        status: Some(status.to_owned()),
        ..CreateImageInfo::default()
    })
}

pub(super) fn error_line(message: &str) -> Bytes {
    line(&CreateImageInfo {
        error: Some(message.to_owned()),
        error_detail: Some(ErrorDetail {
            message: Some(message.to_owned()),
            ..ErrorDetail::default()
        }),
        ..CreateImageInfo::default()
    })
}

/// One object of a stream of JSON.
pub(crate) fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("strings and numbers always serialise");
    line.extend(b"\r\n");
    line.into()
}

#[cfg(test)]
mod tests {
    use nuncio_runtime::image::ProgressStatus;

    use super::*;

    fn sent(value: &str) -> Result<Option<(String, String)>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", value.parse().expect("a valid header"));
        credentials(&headers)
    }

    #[test]
    fn credentials_are_read_padded_or_not() {
        let expected = Some(("me".to_owned(), "pw".to_owned()));
        for value in [
            "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwdyJ9",
            "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJwdyJ9Cg==",
        ] {
            assert_eq!(sent(value).expect(value), expected);
        }
        assert_eq!(sent("e30=").expect("nobody's"), None);
        assert_eq!(sent("").expect("none"), None);
        let error = sent("c2VjcmV0").expect_err("no JSON");
        assert!(!error.message.contains("c2VjcmV0"), "{}", error.message);
    }

    #[test]
    fn steps_and_errors_are_lines_of_json() {
        let progress = Progress {
            id: "ab".to_owned(),
            status: ProgressStatus::Downloading,
            current: 5,
            total: 10,
        };
        assert_eq!(
            progress_line(&progress),
            "{\"id\":\"ab\",\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10}}\r\n"
        );
        let error: serde_json::Value = serde_json::from_slice(&error_line("gone")).expect("JSON");
        assert_eq!(
            (&error["error"], &error["errorDetail"]["message"]),
            (&"gone".into(), &"gone".into())
        );
    }

    #[test]
    fn names_are_shown_as_people_write_them() {
        assert_eq!(familiar("docker.io/library/redis", "7"), "redis:7");
        assert_eq!(familiar("redis", ""), "redis:latest");
    }
}
