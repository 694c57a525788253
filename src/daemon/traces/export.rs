//! Sends spans to the collector. Nobody waits for that, and a collector that is away costs a line in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Loss, Traces};
use crate::daemon::Daemon;

/// Spans of one request.
const BATCH: usize = 512;
/// How long spans are waited for that may go with the first.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses after failures, of which each is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long what waits may take to be sent as the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// What came of a request.
enum Outcome {
    /// So many were taken, and as many refused, with the collector's reason.
    Taken { refused: u64, why: String },
    /// None will be.
    Refused(String),
    /// They may be later, after a pause that the collector may have asked for.
    Later(String, Option<Duration>),
}

/// Sends what is recorded, until `stop`, and then what waits.
pub(in crate::daemon) async fn export(
    daemon: Arc<Daemon>,
    client: Client,
    stop: CancellationToken,
) {
    let Some(traces) = &daemon.traces else {
        return;
    };
    tracing::info!(url = traces.url, "traces are sent");
    tokio::select! {
        () = stop.cancelled() => {}
        never = traces.send_all(&client) => match never {},
    }
    let farewell = async {
        loop {
            let batch = traces.take(BATCH);
            if batch.is_empty() {
                return;
            }
            traces.settle(batch.len(), &traces.send(&client, batch).await);
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// The collector is asked directly, whatever proxy other programs use, and nowhere else.
pub(in crate::daemon) fn client() -> reqwest::Result<Client> {
    Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("nuncio/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Traces {
    async fn send_all(&self, client: &Client) -> std::convert::Infallible {
        loop {
            self.arrived.notified().await;
            sleep(GATHER).await;
            loop {
                let batch = self.take(BATCH);
                if batch.is_empty() {
                    break;
                }
                self.send_until_settled(client, batch).await;
            }
        }
    }

    async fn send_until_settled(&self, client: &Client, batch: Vec<Span>) {
        let [mut pause, longest] = PAUSES;
        let mut failed = false;
        loop {
            let outcome = self.send(client, batch.clone()).await;
            if let Outcome::Later(error, asked) = &outcome {
                if !failed {
                    tracing::warn!(
                        url = self.url,
                        error,
                        "the collector does not take traces; it is tried again"
                    );
                }
                failed = true;
                sleep(asked.unwrap_or(pause).min(longest)).await;
                pause = (pause * 2).min(longest);
                continue;
            }
            self.settle(batch.len(), &outcome);
            if failed {
                tracing::info!(url = self.url, "the collector takes traces again");
            }
            return;
        }
    }

    /// Counts what came of `count` spans.
    fn settle(&self, count: usize, outcome: &Outcome) {
        let count = count as u64;
        let (refused, why) = match outcome {
            Outcome::Taken { refused, why } => (*refused.min(&count), why),
            Outcome::Refused(why) | Outcome::Later(why, _) => (count, why),
        };
        self.exported.fetch_add(count - refused, Ordering::Relaxed);
        if refused > 0 {
            self.lose(Loss::Refused, refused);
            tracing::warn!(url = self.url, refused, why, "the collector refuses traces");
        }
    }

    async fn send(&self, client: &Client, spans: Vec<Span>) -> Outcome {
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "nuncio".to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let call = client.post(&self.url);
        let call = call.header(CONTENT_TYPE, "application/x-protobuf");
        match call.body(request.encode_to_vec()).send().await {
            Ok(answer) => outcome(answer).await,
            Err(error) => Outcome::Later(format!("{:#}", anyhow::Error::from(error)), None),
        }
    }
}

async fn outcome(mut answer: reqwest::Response) -> Outcome {
    let status = answer.status();
    let pause = answer.headers().get(RETRY_AFTER);
    let pause = pause.and_then(|text| text.to_str().ok()?.parse().ok());
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER {
            break;
        }
    }
    match status {
        _ if status.is_success() => {
            let told = ExportTraceServiceResponse::decode(&*body).unwrap_or_default();
            let partial = told.partial_success.unwrap_or_default();
            Outcome::Taken {
                refused: partial.rejected_spans.max(0).unsigned_abs(),
                why: partial.error_message,
            }
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Later(status.to_string(), pause.map(Duration::from_secs))
        }
        _ => Outcome::Refused(status.to_string()),
    }
}
