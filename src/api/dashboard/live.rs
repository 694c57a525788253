//! `GET live`, a WebSocket: the map each second and events as they come, and what one container writes and takes.
//!
//! The page is sent JSON, one of `hello`, `map`, `event`, `lines`, `taken`, `absent` in each message. It sends
//! `{"watch": ID}` or `{"watch": null}`, and nothing else.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::terminal::may_run;
use super::watched::Watched;
use super::{Server, terminal};
use crate::api::error::ApiError;
use crate::daemon::Daemon;
use crate::daemon::dashboard::Page;
use crate::daemon::events::Event;

/// Bytes of what a page sends.
pub(super) const LONGEST: usize = 64 << 10;
/// Bytes that wait for a page, beside one message.
pub(super) const WAITING: usize = 128 << 10;
/// How long a page may take nothing of what it is sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What a page asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    watch: Option<String>,
}

/// Why a page is let go.
struct Goodbye {
    code: u16,
    reason: String,
}

pub(super) async fn live(
    State(daemon): Server,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    // A browser does not show its page what a refused WebSocket was answered: a page asks again without one.
    let page = match daemon.pages.open() {
        Ok(page) => page,
        Err(full) => return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, full).into_response(),
    };
    let exec = may_run(request.headers());
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(LONGEST)
            .max_frame_size(LONGEST)
            .max_write_buffer_size(WAITING + (16 << 20))
            .on_upgrade(move |socket| talk(daemon, page, socket, exec)),
        Err(_) => {
            let message = "there is room for a page; its WebSocket is opened here";
            ApiError::new(StatusCode::UPGRADE_REQUIRED, message).into_response()
        }
    }
}

async fn talk(daemon: Arc<Daemon>, page: Page, mut socket: WebSocket, exec: bool) {
    let Err(Goodbye { code, reason }) = tell(&daemon, page, &mut socket, exec).await else {
        return;
    };
    tracing::warn!(reason, "a page of the dashboard is let go");
    close(socket, code, reason).await;
}

/// Says why before it hangs up.
pub(super) async fn close(mut socket: WebSocket, code: u16, reason: String) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    let said = timeout(PATIENCE, socket.send(Message::Close(Some(frame)))).await;
    if let Ok(Ok(())) = said {
        // until the other end has heard it; what it still sends is dropped
        let heard = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _ = timeout(Duration::from_secs(2), heard).await;
    }
}

/// Tells a page all there is until it leaves. Only the newest map waits for it; of events as many as the log lets anybody
/// fall behind.
async fn tell(
    daemon: &Arc<Daemon>,
    mut page: Page,
    socket: &mut WebSocket,
    exec: bool,
) -> Result<(), Goodbye> {
    let (_, mut events) = daemon.events.listen();
    let mut watched = None::<Watched>;
    let hello = json!({ "hello": {
        "host": daemon.node.name,
        "version": env!("CARGO_PKG_VERSION"),
        "exec": exec,
    } });
    send(socket, hello.to_string().into()).await?;
    loop {
        let more = async {
            match &mut watched {
                Some(watched) => watched.next(daemon).await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            received = socket.recv() => match received {
                None | Some(Ok(Message::Close(_))) => return Ok(()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(message)) => match wish(&message)? {
                    None => { watched = None; continue }
                    Some(id) => match Watched::begin(daemon, &id) {
                        Ok(begun) => { watched = Some(begun); continue }
                        Err(absent) => { watched = None; absent.to_string().into() }
                    },
                },
                Some(Err(error)) => {
                    return rubbish(&error).map_or(Ok(()), |(code, reason)| Err(Goodbye { code, reason }));
                }
            },
            changed = page.maps.changed() => {
                if changed.is_err() { return Ok(()) }
                let map = page.maps.borrow_and_update().clone();
                let Some(map) = map.and_then(|map| Utf8Bytes::try_from(map).ok()) else { continue };
                map
            }
            event = events.recv() => match event {
                Ok(event) => json!({ "event": told(&event) }).to_string().into(),
                Err(RecvError::Closed) => return Ok(()),
                Err(RecvError::Lagged(missed)) => return Err(Goodbye {
                    code: close_code::AGAIN,
                    reason: format!("this page did not keep up: {missed} events were missed"),
                }),
            },
            more = more => more.to_string().into(),
        };
        send(socket, message).await?;
    }
}

async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Result<(), Goodbye> {
    match timeout(PATIENCE, socket.send(Message::Text(text))).await {
        Ok(Ok(())) => Ok(()),
        // It has gone, which is what the next look at it tells.
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(Goodbye {
            code: close_code::AGAIN,
            reason: format!("this page took nothing of what it was sent for {PATIENCE:?}"),
        }),
    }
}

/// What a page wants to watch.
fn wish(message: &Message) -> Result<Option<String>, Goodbye> {
    let expected = "expected {\"watch\": \"ID\"} or {\"watch\": null}";
    let Message::Text(text) = message else {
        return Err(Goodbye {
            code: close_code::UNSUPPORTED,
            reason: format!("a message that is no text: {expected}"),
        });
    };
    match serde_json::from_str::<Wish>(text) {
        Ok(wish) => Ok(wish.watch),
        Err(_) => Err(Goodbye {
            code: close_code::POLICY,
            reason: format!("a message that is none of this page's: {expected}"),
        }),
    }
}

/// What there is to say of something that is no message; nothing, to who has just gone.
pub(super) fn rubbish(error: &axum::Error) -> Option<(u16, String)> {
    let mut causes = std::iter::successors(error.source(), |&error| error.source());
    let left = causes.any(<dyn std::error::Error>::is::<std::io::Error>);
    let reason = format!("not a WebSocket's message: {error}");
    (!left).then(|| (close_code::PROTOCOL, terminal::shortened(&reason)))
}

fn told(event: &Event) -> Value {
    json!({
        "kind": event.kind,
        "action": event.action,
        "id": event.id,
        "attributes": event.attributes,
        "time": event.time.as_millisecond(),
    })
}
