//! Where requests go that have passed the door: into this process's API, or to a daemon.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tower::ServiceExt as _;

use crate::client::Client;

/// The other side of the door.
pub(crate) enum Crossing {
    /// The API itself.
    Here(Router),
    /// That of a daemon, wherever it is.
    There(Client),
}

impl Crossing {
    pub(super) async fn pass(&self, request: Request) -> Response {
        match self {
            Self::Here(router) => {
                let answered: Result<_, Infallible> = router.clone().oneshot(request).await;
                answered.unwrap_or_else(|never| match never {})
            }
            Self::There(client) => there(client, request).await,
        }
    }
}

/// Passes a request on, and a connection that is to carry something else than HTTP.
async fn there(client: &Client, mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let asked_to = head.headers.get(UPGRADE).cloned();
    let mut headers = head.headers;
    if asked_to.is_none() {
        headers.remove(CONNECTION);
    }
    let answer = client.pass(head.method, head.uri, headers).await;
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("{:#}\n", anyhow::Error::from(error));
            return (StatusCode::BAD_GATEWAY, message).into_response();
        }
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        remove_hop_headers(answer.headers_mut());
        return answer.map(Body::new);
    }
    let theirs = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let (Ok(ours), Ok(theirs)) = tokio::join!(upgrade, theirs) else {
            return; // one of them left before
        };
        let carried = copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
        if let Err(error) = carried {
            tracing::debug!(%error, "carry a page's connection");
        }
    });
    answer.map(|_| Body::empty())
}

/// What is said of this connection alone.
fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, hyper::header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
}
