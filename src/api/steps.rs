//! Long work that tells its steps, each in a line of JSON.

use std::convert::Infallible;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bollard_stubs::models::{CreateImageInfo, ErrorDetail, ProgressDetail};
use futures_util::stream;
use nuncio_runtime::image::Progress;
use serde::Serialize;
use tokio::sync::mpsc;

use super::Answer;
use super::error::ApiError;

/// Steps that wait for a slow client; of how far a layer has come, further ones are left out.
const STEPS: usize = 256;

/// Where the work tells its steps.
#[derive(Clone)]
pub(super) struct Told(mpsc::Sender<Bytes>);

impl Told {
    /// Tells anything. With a slow client this waits.
    pub(super) async fn line(&self, value: &impl Serialize) {
        // a client that has gone has the work dropped
        let _ = self.0.send(line(value)).await;
    }

    /// Tells a status of the whole.
    pub(super) async fn status(&self, status: impl Into<String>) {
        self.line(&CreateImageInfo {
            status: Some(status.into()),
            ..CreateImageInfo::default()
        })
        .await;
    }

    /// Tells a status of what is called `id`.
    pub(super) async fn status_of(&self, id: &str, status: impl Into<String>) {
        self.line(&CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.into()),
            ..CreateImageInfo::default()
        })
        .await;
    }

    /// Tells how far a layer has come.
    pub(super) async fn progress(&self, progress: &Progress, status: impl Into<String>) {
        self.line(&progress_of(progress, status.into())).await;
    }
}

fn progress_of(progress: &Progress, status: String) -> CreateImageInfo {
    let count = |bytes: u64| (bytes > 0).then(|| i64::try_from(bytes).unwrap_or(i64::MAX));
    CreateImageInfo {
        id: Some(progress.id.clone()),
        status: Some(status),
        progress_detail: Some(ProgressDetail {
            current: count(progress.current),
            total: count(progress.total),
        }),
        ..CreateImageInfo::default()
    }
}

/// A channel for the store, whose reports never wait.
pub(super) fn channel() -> (mpsc::Sender<Progress>, mpsc::Receiver<Progress>) {
    mpsc::channel(STEPS)
}

/// The work as it goes on; dropped with the answer's body, when the client has gone.
type Work = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>;

/// Answers with what `work` tells. If it fails before it told anything, that is an answer of its own; else the
/// error is the last line.
pub(super) async fn answer<F>(work: impl FnOnce(Told) -> F) -> Answer
where
    F: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, lines) = mpsc::channel(STEPS);
    let mut steps = Steps {
        work: Some(Box::pin(work(Told(sender)))),
        lines,
    };
    let first = steps.next().await?;
    let rest = stream::unfold(Some(steps), async |steps| {
        let mut steps = steps?;
        match steps.next().await {
            Ok(line) => line.map(|line| (line, Some(steps))),
            Err(error) => {
                tracing::warn!(message = error.message, "a request failed halfway");
                Some((error_line(&error.message), None))
            }
        }
    });
    let all = stream::StreamExt::chain(stream::iter(first), rest);
    let all = stream::StreamExt::map(all, Ok::<_, Infallible>);
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(all)).into_response())
}

struct Steps {
    /// `None` once it is done.
    work: Option<Work>,
    lines: mpsc::Receiver<Bytes>,
}

impl Steps {
    /// The next line; `None` when all is said.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(work) = &mut self.work {
            tokio::select! {
                biased;
                Some(line) = self.lines.recv() => return Ok(Some(line)),
                done = work => {
                    self.work = None;
                    // What it told at its end comes before its error.
                    let mut left = Vec::new();
                    while let Ok(line) = self.lines.try_recv() {
                        left.extend(line);
                    }
                    match (done, left.is_empty()) {
                        (Ok(()), true) => return Ok(None),
                        (Ok(()), false) => return Ok(Some(left.into())),
                        (Err(error), true) => return Err(error),
                        (Err(error), false) => {
                            left.extend(error_line(&error.message));
                            return Ok(Some(left.into()));
                        }
                    }
                }
            }
        }
        Ok(None)
    }
}

fn error_line(message: &str) -> Bytes {
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
fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("strings and numbers always serialise");
    line.extend(b"\r\n");
    line.into()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use nuncio_runtime::image::ProgressStatus;

    use super::*;

    #[test]
    fn steps_and_errors_are_lines_of_json() {
        let progress = Progress {
            id: "ab".to_owned(),
            status: ProgressStatus::Downloading,
            current: 5,
            total: 10,
        };
        assert_eq!(
            line(&progress_of(&progress, progress.status.to_string())),
            "{\"id\":\"ab\",\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10}}\r\n"
        );
        let error: serde_json::Value = serde_json::from_slice(&error_line("gone")).expect("JSON");
        assert_eq!(
            (&error["error"], &error["errorDetail"]["message"]),
            (&"gone".into(), &"gone".into())
        );
    }

    #[tokio::test]
    async fn a_failure_is_an_answer_until_something_was_told() {
        let fail = async |told: Told, steps: usize| {
            for step in 0..steps {
                told.status(format!("step {step}")).await;
            }
            Err(ApiError::new(StatusCode::NOT_FOUND, "gone"))
        };
        let at_once = answer(|told| fail(told, 0)).await.expect_err("no step");
        assert_eq!(at_once.status, StatusCode::NOT_FOUND);
        let later = answer(|told| fail(told, 1000)).await.expect("steps");
        let body = to_bytes(later.into_body(), 1 << 20).await.expect("a body");
        let text = String::from_utf8(body.to_vec()).expect("text");
        assert_eq!(text.lines().count(), 1001);
        assert!(
            text.ends_with("{\"errorDetail\":{\"message\":\"gone\"},\"error\":\"gone\"}\r\n")
                || text.contains("\"error\":\"gone\""),
            "{text}"
        );
    }
}
