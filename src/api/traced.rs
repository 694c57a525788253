//! A span for each request, from its arrival to the last byte of its answer; attributes as OpenTelemetry's conventions for HTTP
//! have them. Queries, headers and bodies may hold secrets, and are left out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use jiff::Timestamp;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::Server;
use crate::daemon::Daemon;
use crate::daemon::audit::Peer;
use crate::daemon::traces::{Parent, SpanDraft};

/// Ends a span when it goes, which is when the answer is sent, or when nobody waits for it any more.
struct Ending {
    daemon: Arc<Daemon>,
    span: Option<SpanDraft>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let (Some(traces), Some(span)) = (&self.daemon.traces, self.span.take()) {
            traces.record(span.end(Timestamp::now()));
        }
    }
}

/// An answer's body that ends the span with itself.
struct Watched {
    body: Body,
    _ending: Ending,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pub(super) async fn trace(State(daemon): Server, request: Request, next: Next) -> Response {
    let parent = parent(request.headers());
    if parent.is_some_and(|parent| !parent.is_sampled) {
        return next.run(request).await;
    }
    let span = begun(&request, parent);
    let mut ending = Ending {
        daemon,
        span: Some(span),
    };
    let answer = next.run(request).await;
    if let Some(span) = &mut ending.span {
        let status = answer.status();
        span.number("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.text("error.type", status.as_str());
            span.fail(String::new());
        }
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return answer; // what passes then is no answer
    }
    let (head, body) = answer.into_parts();
    let body = Watched {
        body,
        _ending: ending,
    };
    Response::from_parts(head, Body::new(body))
}

fn parent(headers: &HeaderMap) -> Option<Parent> {
    Parent::of_header(headers.get("traceparent")?.to_str().ok()?)
}

fn begun(request: &Request, parent: Option<Parent>) -> SpanDraft {
    let method = request.method().as_str();
    let route = request.extensions().get::<MatchedPath>();
    let name = match route {
        Some(route) => format!("{method} {}", route.as_str()),
        None => method.to_owned(),
    };
    let span = SpanDraft::new(name, SpanKind::Server, Timestamp::now());
    let mut span = span.within(parent);
    span.text("http.request.method", method);
    if let Some(route) = route {
        span.text("http.route", route.as_str());
    }
    span.text("url.path", request.uri().path());
    if let Some(agent) = request.headers().get(USER_AGENT) {
        span.text(
            "user_agent.original",
            String::from_utf8_lossy(agent.as_bytes()),
        );
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    match peer.map(|ConnectInfo(peer)| peer) {
        Some(Peer::Process { uid, pid, .. }) => {
            span.text("url.scheme", "http");
            span.text("network.transport", "unix");
            span.text("user.id", uid.to_string());
            if let Some(pid) = pid {
                span.number("nuncio.client.pid", *pid);
            }
        }
        Some(Peer::Certificate { name, address }) => {
            span.text("url.scheme", "https");
            span.text("network.transport", "tcp");
            span.text("user.name", name.clone());
            span.text("client.address", address.ip().to_string());
            span.number("client.port", address.port());
        }
        Some(Peer::Page { page }) => {
            span.text("url.scheme", "http");
            span.text("network.transport", "tcp");
            span.text("client.address", page.ip().to_string());
            span.number("client.port", page.port());
        }
        Some(Peer::Unknown {}) | None => {}
    }
    span
}
