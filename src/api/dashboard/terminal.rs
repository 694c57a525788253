//! `GET containers/ID/terminal`, a WebSocket: a program in a container, with a terminal, for who may run one.
//!
//! What is typed and what is shown are binary messages, `{"rows": R, "cols": C}` says how large the page's window is.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use jiff::Timestamp;
use nuncio_runtime::Attach;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::live::{LONGEST, PATIENCE, WAITING, close, rubbish};
use super::{Answer, Server};
use crate::api::error::ApiError;
use crate::api::query::Params;
use crate::daemon::Daemon;
use crate::daemon::audit::{Change, Peer};
use crate::daemon::exec::{Exec, ExecConfig};
use crate::daemon::refusal::Refusal;
use crate::dashboard::{ALLOWED, EXEC};

/// Bytes that a close frame's reason may have.
const REASON: usize = 120;
/// What is run unless the page says otherwise.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash; exec sh";

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    command: String,
    #[serde(default = "rows")]
    rows: u16,
    #[serde(default = "columns")]
    cols: u16,
}

fn rows() -> u16 {
    24
}

fn columns() -> u16 {
    80
}

/// How large the page's window is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    rows: u16,
    cols: u16,
}

/// Whether whoever sent a request may run programs: the door says so of whom it lets through, and who reaches the API's
/// socket could say it, but could run them by it anyway.
pub(super) fn may_run(headers: &HeaderMap) -> bool {
    headers.get(EXEC).is_some_and(|value| value == ALLOWED)
}

pub(super) async fn terminal(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Answer {
    if !may_run(request.headers()) {
        let message = "this dashboard only shows: programs are run by one that is begun with `nuncio dashboard --allow-exec`, or by a daemon with --dashboard-allow-exec";
        return Err(Refusal::forbidden(message).into());
    }
    let container = daemon.container(&id)?;
    let room = daemon.pages.open_terminal()?;
    let upgrade = upgrade.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let cmd = match asked.command.as_str() {
        "" => ["sh", "-c", SHELL].map(str::to_owned).into(),
        command => ["sh", "-c", command].map(str::to_owned).into(),
    };
    let config = ExecConfig {
        cmd,
        env: vec!["TERM=xterm-256color".to_owned()],
        tty: true,
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        ..ExecConfig::default()
    };
    let exec = daemon.exec_create(&container, config)?;
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    daemon.note_change(&Change {
        time: Timestamp::now(),
        peer: peer.map_or(Peer::Unknown {}, |ConnectInfo(peer)| peer.clone()),
        method: "POST".to_owned(),
        path: format!("/containers/{}/exec", container.id),
        name: None,
        id: Some(exec.clone()),
        result: Some(201),
    });
    let exec = daemon.exec(&exec)?;
    let size = (asked.rows, asked.cols);
    let upgraded = upgrade
        .max_message_size(LONGEST)
        .max_frame_size(LONGEST)
        .max_write_buffer_size(WAITING + (1 << 20))
        .on_upgrade(move |socket| run(daemon, exec, size, room, socket));
    Ok(upgraded)
}

async fn run(
    daemon: Arc<Daemon>,
    exec: Arc<Exec>,
    size: (u16, u16),
    _room: OwnedSemaphorePermit,
    mut socket: WebSocket,
) {
    let attached = daemon.exec_start(&exec, false, Some(size)).await;
    let (code, reason) = match attached {
        Ok(Some(attached)) => match carry(&daemon, &exec, attached, &mut socket).await {
            Ok(Some(told)) => told,
            Ok(None) => {
                daemon.exec_hang_up(&exec).await;
                return;
            }
            Err(error) => {
                daemon.exec_hang_up(&exec).await;
                (close_code::ERROR, format!("{error:#}"))
            }
        },
        Ok(None) => return,
        Err(error) => (close_code::ERROR, format!("{error:#}")),
    };
    close(socket, code, shortened(&reason)).await;
}

/// Carries what is typed and shown until the program ends, which is told, or the page leaves.
async fn carry(
    daemon: &Arc<Daemon>,
    exec: &Arc<Exec>,
    attached: Attach,
    socket: &mut WebSocket,
) -> anyhow::Result<Option<(u16, String)>> {
    let Attach {
        mut output,
        mut input,
    } = attached;
    loop {
        tokio::select! {
            shown = output.next() => match shown? {
                Some(shown) => {
                    let sent = timeout(PATIENCE, socket.send(Message::Binary(shown.bytes))).await;
                    let sent = sent.with_context(|| format!("this page took nothing of what it was sent for {PATIENCE:?}"))?;
                    if sent.is_err() { return Ok(None) }
                }
                None => {
                    exec.ended().await;
                    let ended = exec.view().code;
                    let told = ended.map_or_else(|| "it goes on without its terminal".to_owned(), |code| format!("ended with exit status {code}"));
                    return Ok(Some((close_code::NORMAL, told)));
                }
            },
            typed = socket.recv() => match typed {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(typed))) => input.write_all(&typed).await.context("type")?,
                Some(Ok(Message::Text(text))) => match serde_json::from_str::<Size>(&text) {
                    Ok(Size { rows, cols }) if rows > 0 && cols > 0 => daemon.exec_resize(exec, cols, rows).await?,
                    _ => {
                        daemon.exec_hang_up(exec).await;
                        let told = "a message that is none of a terminal's: expected bytes, or {\"rows\": R, \"cols\": C}";
                        return Ok(Some((close_code::POLICY, told.to_owned())));
                    }
                },
                Some(Err(error)) => {
                    daemon.exec_hang_up(exec).await;
                    return Ok(rubbish(&error));
                }
            },
        }
    }
}

/// As much of a text as a close frame holds.
pub(super) fn shortened(text: &str) -> String {
    let mut end = text.len().min(REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
