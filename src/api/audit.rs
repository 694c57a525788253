//! Has each request that changes something written down, with who sent it. What may be a secret is not: bodies,
//! headers, and queries but for names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::net::UnixListener;

use super::Server;
use crate::daemon::Daemon;
use crate::daemon::api_connection::{Caller, Cuttable};
use crate::daemon::api_tls::ApiListener;
use crate::daemon::audit::{Change, Peer};
use crate::daemon::peek::PeekListener;

/// Keys of queries that are names.
const NAMES: [&str; 5] = ["name", "fromImage", "repo", "tag", "container"];
/// What ends the paths of requests that change nothing, though they are POSTs.
const HARMLESS: [&str; 3] = ["/wait", "/resize", "/auth"];
/// Bytes of an answer in which the id of what was made is looked for.
const ANSWER: u64 = 64 << 10;
/// Characters of a path or a name that are written down.
const LONGEST: usize = 512;

impl Connected<IncomingStream<'_, Cuttable<UnixListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Cuttable<UnixListener>>) -> Self {
        let peer = match stream.io().stream().peer_cred() {
            Ok(peer) => Peer::Process {
                uid: peer.uid(),
                gid: peer.gid(),
                pid: peer.pid(),
            },
            Err(_) => Peer::Unknown {},
        };
        let cut = stream.io().cut();
        Self { peer, cut }
    }
}

impl Connected<IncomingStream<'_, Cuttable<ApiListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Cuttable<ApiListener>>) -> Self {
        let (peer, cut) = (stream.remote_addr().clone(), stream.io().cut());
        Self { peer, cut }
    }
}

impl Connected<IncomingStream<'_, PeekListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, PeekListener>) -> Self {
        let (peer, cut) = (stream.remote_addr().clone(), stream.io().cut());
        Self { peer, cut }
    }
}

/// A change that is written down when it is done, or when nobody waits for it any more.
struct Pending {
    daemon: Arc<Daemon>,
    change: Change,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.daemon.note_change(&self.change);
    }
}

/// Says who is at the other end of the connection, where a page that passes requests on has not said so already.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<ConnectInfo<Caller>>();
    if let Some(ConnectInfo(caller)) = caller {
        let peer = caller.peer.clone();
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    next.run(request).await
}

pub(super) async fn note(State(daemon): Server, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let reads = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    if reads || HARMLESS.iter().any(|end| path.ends_with(end)) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let mut pending = Pending {
        daemon,
        change: Change {
            time: Timestamp::now(),
            peer: peer.map_or(Peer::Unknown {}, |ConnectInfo(peer)| peer.clone()),
            method: request.method().to_string(),
            path: shown(path),
            name: named(request.uri()),
            id: None,
            result: None,
        },
    };
    let answer = next.run(request).await;
    pending.change.result = Some(answer.status().as_u16());
    if answer.status() != 201 {
        return answer;
    }
    let (answer, id) = made(answer).await;
    pending.change.id = id;
    answer
}

/// What a query calls the object, as `name=web` or `fromImage=redis tag=7`.
fn named(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let names = pairs.filter(|(key, value)| NAMES.contains(key) && !value.is_empty());
    let names: Vec<_> = names.map(|(key, value)| format!("{key}={value}")).collect();
    (!names.is_empty()).then(|| shown(&names.join(" ")))
}

fn shown(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// The id, or else the name, of what was made, which the answer says.
async fn made(answer: Response) -> (Response, Option<String>) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Made {
        id: Option<String>,
        name: Option<String>,
    }
    let length = answer.body().size_hint().exact();
    if length.is_none_or(|length| length > ANSWER) {
        return (answer, None);
    }
    let (head, body) = answer.into_parts();
    let Ok(bytes) = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
    else {
        return (Response::from_parts(head, Body::empty()), None);
    };
    let made = serde_json::from_slice::<Made>(&bytes).ok();
    let id = made.and_then(|made| made.id.or(made.name));
    let answer = Response::from_parts(head, Body::from(bytes));
    (answer, id.map(|id| shown(&id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_query_names_alone_are_told() {
        let named = |text: &str| named(&text.parse().expect("a path"));
        assert_eq!(named("/x?name=web&platform="), Some("name=web".to_owned()));
        assert_eq!(
            named("/x?fromImage=redis&tag=7&registry=user:secret@host"),
            Some("fromImage=redis tag=7".to_owned())
        );
        assert_eq!(named("/x?buildargs=secret"), None);
        assert_eq!(named("/x"), None);
    }
}
