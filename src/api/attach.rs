//! `POST /containers/{id}/attach`: a client on a container's streams, perhaps before it is started.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::extract::{Path, Request, State};
use nuncio_runtime::{Attach, AttachOptions, logs};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::query::{Flag, Params};
use super::raw_stream::{self, ClientReader, ClientWriter, Framing, Left, Stdin};
use super::{Answer, Server};
use crate::daemon::Daemon;
use crate::daemon::container::Container;

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    stdin: Flag,
    #[serde(default)]
    stdout: Flag,
    #[serde(default)]
    stderr: Flag,
    #[serde(default)]
    logs: Flag,
    #[serde(default)]
    stream: Flag,
    #[serde(default, rename = "detachKeys")]
    detach_keys: String,
}

/// The process's streams, at once or when it has been started.
type Joining = Pin<Box<dyn Future<Output = anyhow::Result<Attach>> + Send>>;

pub(crate) async fn attach(
    State(daemon): Server,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    request: Request,
) -> Answer {
    let container = daemon.container(&id)?;
    let config = container.view().config;
    let framing = Framing::of(config.tty);
    let stdin = asked.stdin.0 && config.open_stdin;
    let sent = Stdin::of(config.tty, &asked.detach_keys)?;
    let joining = match asked.stream.0 {
        true => Some(
            join(
                &daemon,
                &container,
                AttachOptions {
                    stdin,
                    stdout: asked.stdout.0,
                    stderr: asked.stderr.0,
                },
            )
            .await?,
        ),
        false => None,
    };
    let teller = Arc::clone(&daemon);
    let talk = async move |reader: ClientReader, mut writer: ClientWriter| {
        if asked.logs.0
            && let Err(error) = replay(&container, &asked, framing, &mut writer).await
        {
            tracing::debug!(
                id = container.id,
                error = format!("{error:#}"),
                "send the log to an attached client"
            );
            return;
        }
        let Some(joining) = joining else { return };
        let mut status = container.status();
        let attached = tokio::select! {
            attached = joining => attached,
            // It will not be started any more.
            _ = status.wait_for(|status| status.removed) => return,
        };
        match attached {
            Ok(attached) => {
                let now = std::future::ready(());
                let sent = stdin.then_some(sent);
                let left = raw_stream::relay(attached, sent, now, framing, reader, writer).await;
                if left == Left::Detached {
                    teller.tell(&container, "detach");
                }
            }
            // The client hears of it as the answer to its start.
            Err(error) => {
                tracing::debug!(id = container.id, error = format!("{error:#}"), "attach");
            }
        }
    };
    Ok(raw_stream::answer(request, framing, talk))
}

/// Registers with the container before the client is answered, so that it can start it then and miss nothing.
async fn join(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    options: AttachOptions,
) -> anyhow::Result<Joining> {
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    let is_running = container.is_running();
    let mut joining: Joining = Box::pin(async move { daemon.attach(&container, options).await });
    if is_running {
        let attached = joining.await?;
        return Ok(Box::pin(std::future::ready(Ok(attached))));
    }
    match poll_fn(|context| Poll::Ready(joining.as_mut().poll(context))).await {
        Poll::Ready(attached) => {
            let attached = attached?;
            Ok(Box::pin(std::future::ready(Ok(attached))))
        }
        Poll::Pending => Ok(joining),
    }
}

/// Sends what was written so far.
async fn replay(
    container: &Container,
    asked: &Asked,
    framing: Framing,
    writer: &mut ClientWriter,
) -> anyhow::Result<()> {
    let mut lines = logs::read(&container.log_path(), logs::LogQuery::default())?;
    while let Some(line) = lines.next().await? {
        let wanted = match line.stream {
            logs::Stream::Stdout => asked.stdout.0,
            logs::Stream::Stderr => asked.stderr.0,
        };
        if wanted {
            writer
                .write_all(&framing.frame(line.stream.into(), line.text.as_bytes()))
                .await?;
        }
    }
    writer.flush().await?;
    Ok(())
}
