//! Further processes in running containers.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use bollard_stubs::models::{
    ExecConfig as CreateBody, ExecInspectResponse, ExecStartConfig, ProcessConfig,
};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::body::{self, JsonBody};
use super::container_create::terminal_size;
use super::containers::Resize;
use super::nulls;
use super::query::Params;
use super::raw_stream::{self, Channel, ClientReader, ClientWriter, Framing, Left, Stdin};
use super::{Answer, Server};
use crate::daemon::exec::{ExecConfig, ExecView};
use crate::daemon::refusal::Refusal;

pub(crate) async fn create(
    State(daemon): Server,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<CreateBody>,
) -> Answer {
    let container = daemon.container(&id)?;
    let id = daemon.exec_create(&container, config(body))?;
    // Not the client's own type, which would write the key in small letters.
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))).into_response())
}

fn config(body: CreateBody) -> ExecConfig {
    ExecConfig {
        cmd: body.cmd.unwrap_or_default(),
        env: body.env.unwrap_or_default(),
        cwd: body.working_dir.unwrap_or_default(),
        user: body.user.unwrap_or_default(),
        tty: body.tty.unwrap_or_default(),
        attach_stdin: body.attach_stdin.unwrap_or_default(),
        attach_stdout: body.attach_stdout.unwrap_or_default(),
        attach_stderr: body.attach_stderr.unwrap_or_default(),
        privileged: body.privileged.unwrap_or_default(),
        detach_keys: body.detach_keys.unwrap_or_default(),
    }
}

/// Detached, it answers when the process runs. Attached, it answers before: why a process could not be run comes
/// over the stream, and the client asks for the exit code after that.
pub(crate) async fn start(
    State(daemon): Server,
    Path(id): Path<String>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let asked: ExecStartConfig = body::read(&parts.headers, body).await?;
    let request = Request::from_parts(parts, Body::empty());
    let exec = daemon.exec(&id)?;
    let ExecView {
        config,
        running,
        code,
        container_id,
        ..
    } = exec.view();
    if running || code.is_some() {
        return Err(Refusal::conflict(format!("exec {id} was started already")).into());
    }
    if !daemon.container(&container_id)?.is_running() {
        return Err(Refusal::conflict(format!("container {container_id} is not running")).into());
    }
    let size = terminal_size(asked.console_size.as_deref())?.filter(|_| config.tty);
    if asked.detach == Some(true) {
        daemon.exec_start(&exec, true, size).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let framing = Framing::of(config.tty);
    let sent = Stdin::of(config.tty, &config.detach_keys)?;
    let daemon = Arc::clone(&daemon);
    let talk = async move |reader: ClientReader, mut writer: ClientWriter| match daemon
        .exec_start(&exec, false, size)
        .await
    {
        Ok(Some(attached)) => {
            let ended = exec.ended();
            let sent = config.attach_stdin.then_some(sent);
            let left = raw_stream::relay(attached, sent, ended, framing, reader, writer).await;
            if left == Left::Detached {
                daemon.exec_detached(&exec);
            }
        }
        Ok(None) => {}
        Err(error) => {
            let text = format!("{error:#}\r\n");
            let told = writer
                .write_all(&framing.frame(Channel::Stdout, text.as_bytes()))
                .await;
            if let Err(error) = told.and(writer.shutdown().await) {
                tracing::debug!(%error, "a client left before it heard why its exec failed");
            }
        }
    };
    Ok(raw_stream::answer(request, framing, talk))
}

pub(crate) async fn inspect(State(daemon): Server, Path(id): Path<String>) -> Answer {
    let mut shown = json!(view(daemon.exec(&id)?.view()));
    nulls::exec(&mut shown);
    Ok(Json(shown).into_response())
}

fn view(exec: ExecView) -> ExecInspectResponse {
    let config = exec.config;
    let mut words = config.cmd.into_iter();
    ExecInspectResponse {
        can_remove: Some(false),
        detach_keys: Some(config.detach_keys),
        id: Some(exec.id),
        running: Some(exec.running),
        exit_code: exec.code.map(i64::from),
        process_config: Some(ProcessConfig {
            privileged: Some(config.privileged),
            user: Some(config.user),
            tty: Some(config.tty),
            entrypoint: words.next(),
            arguments: Some(words.collect()),
        }),
        open_stdin: Some(config.attach_stdin),
        open_stdout: Some(config.attach_stdout),
        open_stderr: Some(config.attach_stderr),
        container_id: Some(exec.container_id),
        pid: Some(exec.pid.map_or(0, i64::from)),
    }
}

pub(crate) async fn resize(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Resize>,
) -> Answer {
    let exec = daemon.exec(&id)?;
    daemon.exec_resize(&exec, asked.w, asked.h).await?;
    Ok(StatusCode::OK.into_response())
}
