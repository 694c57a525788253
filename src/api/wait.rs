//! `POST /containers/{id}/wait`: the headers at once, the exit code when there is one.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bollard_stubs::models::{ContainerWaitExitError, ContainerWaitResponse};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::watch;

use super::query::Params;
use super::{Answer, Server};
use crate::daemon::container::Status;
use crate::daemon::refusal::Refusal;

#[derive(Deserialize)]
pub(crate) struct Wait {
    #[serde(default)]
    condition: String,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

impl Condition {
    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            _ => Err(Refusal::invalid(format!(
                "invalid condition: {text:?}: expected not-running, next-exit or removed"
            ))),
        }
    }

    /// Whether it has come true since the container was seen as `before`.
    fn holds(self, before: &Status, now: &Status) -> bool {
        now.removed
            || match self {
                Self::NotRunning => now.ends > before.ends || !now.running && !now.restarting,
                Self::NextExit => now.ends > before.ends,
                Self::Removed => false,
            }
    }
}

/// The client starts the container once it has the headers, so the waiter stands before they are sent.
pub(crate) async fn wait(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Wait>,
) -> Answer {
    let condition = Condition::parse(&asked.condition)?;
    let status = daemon.container(&id)?.status();
    let body = Body::from_stream(stream::once(outcome(condition, status)));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// The body. It is an error, and so the answer is cut off, if the daemon ends first.
fn outcome(
    condition: Condition,
    mut status: watch::Receiver<Status>,
) -> impl Future<Output = anyhow::Result<Bytes>> + Send + 'static {
    let before = status.borrow_and_update().clone();
    async move {
        let status = status
            .wait_for(|now| condition.holds(&before, now))
            .await?
            .clone();
        // Why a start failed is the answer to the start; a removal after it did not fail.
        let failed = !status.removed && !status.error.is_empty();
        let error = failed.then_some(ContainerWaitExitError {
            message: Some(status.error),
        });
        let body = ContainerWaitResponse {
            status_code: i64::from(status.code),
            error,
        };
        Ok(Bytes::from(serde_json::to_vec(&body)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(bytes: anyhow::Result<Bytes>) -> Value {
        serde_json::from_slice(&bytes.expect("an outcome")).expect("JSON")
    }

    #[tokio::test]
    async fn an_end_between_registration_and_the_first_poll_is_not_missed() {
        let sender = watch::Sender::new(Status::default());
        let next = outcome(Condition::NextExit, sender.subscribe());
        sender.send_modify(|status| (status.ends, status.code) = (1, 3));
        assert_eq!(body(next.await), json!({"StatusCode": 3}));
    }

    #[tokio::test]
    async fn a_failed_start_with_removal_completes_the_wait() {
        let sender = watch::Sender::new(Status::default());
        let removed = outcome(Condition::Removed, sender.subscribe());
        sender.send_modify(|status| {
            (status.error, status.removed) = ("no such file".to_owned(), true);
        });
        drop(sender);
        assert_eq!(body(removed.await), json!({"StatusCode": 0}));
    }

    #[tokio::test]
    async fn what_does_not_run_is_waited_for_no_longer() {
        let sender = watch::Sender::new(Status {
            code: 7,
            ..Status::default()
        });
        assert_eq!(
            body(outcome(Condition::NotRunning, sender.subscribe()).await),
            json!({"StatusCode": 7})
        );
    }

    #[tokio::test]
    async fn the_daemons_end_is_no_outcome() {
        let sender = watch::Sender::new(Status::default());
        let next = outcome(Condition::NextExit, sender.subscribe());
        drop(sender);
        next.await.expect_err("cut off");
    }
}
