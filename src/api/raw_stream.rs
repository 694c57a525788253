//! Streams of a process between its shim and a client: taken over from HTTP if the client asks to, else as bodies.

use std::io;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use hyper_util::rt::TokioIo;
use nuncio_runtime::{Attach, AttachInput, logs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio_util::io::{ReaderStream, StreamReader};

use super::version::{ApiVersion, MULTIPLEXED_TYPE};
use crate::daemon::refusal::Refusal;
use crate::detach_keys::DetachKeys;

/// Bytes on their way to a client that does not take the connection over.
const IN_FLIGHT: usize = 64 << 10;

/// How output stands in the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// As it comes; with a terminal there is only one output.
    Raw,
    /// Each piece after a header `[stream, 0, 0, 0, length (4, big endian)]`.
    Multiplexed,
}

impl Framing {
    pub(crate) fn of(tty: bool) -> Self {
        if tty { Self::Raw } else { Self::Multiplexed }
    }

    pub(crate) fn content_type(self, version: ApiVersion) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Multiplexed if version >= MULTIPLEXED_TYPE => {
                "application/vnd.docker.multiplexed-stream"
            }
            Self::Multiplexed | Self::Raw => "application/vnd.docker.raw-stream",
        })
    }

    pub(crate) fn frame(self, channel: Channel, payload: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(8 + payload.len());
        if self == Self::Multiplexed {
            frame.put_u32(u32::from(channel as u8) << 24);
            frame.put_u32(u32::try_from(payload.len()).expect("a piece of output is short"));
        }
        frame.put_slice(payload);
        frame.freeze()
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Channel {
    Stdout = 1,
    Stderr = 2,
    /// The daemon's own words, after which nothing comes.
    Error = 3,
}

impl From<logs::Stream> for Channel {
    fn from(stream: logs::Stream) -> Self {
        match stream {
            logs::Stream::Stdout => Self::Stdout,
            logs::Stream::Stderr => Self::Stderr,
        }
    }
}

/// A client's side: what it sends and what it is sent.
pub(crate) type ClientReader = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type ClientWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Answers `request` and hands its streams to `talk`, which goes on after the answer.
///
/// A client that asks for an upgrade gets 101 and the connection itself; else there is 200 with a body.
pub(crate) fn answer<F>(
    mut request: Request,
    framing: Framing,
    talk: impl FnOnce(ClientReader, ClientWriter) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let version = request
        .extensions()
        .get::<ApiVersion>()
        .copied()
        .unwrap_or(super::version::CURRENT);
    let content_type = framing.content_type(version);
    if request.headers().contains_key(UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        // The task is the connection's: it ends with the process's output or with the client.
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => {
                    let (reader, writer) = split(TokioIo::new(connection));
                    talk(Box::new(reader), Box::new(writer)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "a client left before its connection was taken over");
                }
            }
        });
        let headers = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("tcp")),
            (CONTENT_TYPE, content_type),
        ];
        return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    }
    let (ours, theirs) = tokio::io::duplex(IN_FLIGHT);
    let sent = request
        .into_body()
        .into_data_stream()
        .map_err(io::Error::other);
    // It ends when the body is dropped, since writing to it fails then.
    tokio::spawn(talk(
        Box::new(StreamReader::new(Box::pin(sent))),
        Box::new(ours),
    ));
    let headers = [(
        CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.docker.raw-stream"),
    )];
    (headers, Body::from_stream(ReaderStream::new(theirs))).into_response()
}

/// Carries input and output until the output ends, and ends the stream only when all of it is sent and `ended`
/// has come: a client may ask for the exit code next.
pub(crate) async fn relay(
    attached: Attach,
    stdin: Option<Stdin>,
    ended: impl Future<Output = ()>,
    framing: Framing,
    reader: ClientReader,
    mut writer: ClientWriter,
) -> Left {
    let Attach {
        mut output,
        mut input,
    } = attached;
    let feed = async {
        if let Some(stdin) = stdin {
            // An error is the client's or the process's end, of which the output tells.
            if let Ok(Left::Detached) = send(reader, &mut input, stdin).await {
                return;
            }
            let _ = input.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let drain = async {
        loop {
            match output.next().await {
                Ok(Some(piece)) => {
                    writer
                        .write_all(&framing.frame(piece.stream.into(), &piece.bytes))
                        .await?;
                    writer.flush().await?;
                }
                Ok(None) => break,
                Err(error) => {
                    say(
                        &mut writer,
                        framing,
                        &format!("{:#}", anyhow::Error::from(error)),
                    )
                    .await?;
                    break;
                }
            }
        }
        ended.await;
        writer.shutdown().await
    };
    let drained: io::Result<()> = tokio::select! {
        () = feed => return Left::Detached,
        drained = drain => drained,
    };
    if let Err(error) = drained {
        tracing::debug!(%error, "an attached client is gone");
    }
    Left::Ended
}

/// What a client sends to a process.
pub(crate) enum Stdin {
    Plain,
    /// That of a terminal, at which these keys mean to leave.
    Keys(DetachKeys),
}

impl Stdin {
    /// Of a process with a terminal if `tty`; `keys` are those asked for, or nothing.
    pub(crate) fn of(tty: bool, keys: &str) -> Result<Self, Refusal> {
        Ok(match (tty, keys) {
            (false, _) => Self::Plain,
            (true, "") => Self::Keys(DetachKeys::default()),
            (true, keys) => Self::Keys(
                keys.parse()
                    .map_err(|error| Refusal::invalid(format!("{error}")))?,
            ),
        })
    }
}

/// Why a client is no longer attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Left {
    /// The process's output has ended, or the client.
    Ended,
    /// Its user pressed the keys.
    Detached,
}

/// Passes input on to its end, or until the user leaves.
async fn send(mut reader: ClientReader, input: &mut AttachInput, stdin: Stdin) -> io::Result<Left> {
    let mut keys = match stdin {
        Stdin::Plain => {
            copy(&mut reader, input).await?;
            return Ok(Left::Ended);
        }
        Stdin::Keys(keys) => keys,
    };
    let mut typed = vec![0; 4096];
    let mut passed = Vec::new();
    loop {
        let count = reader.read(&mut typed).await?;
        if count == 0 {
            return Ok(Left::Ended);
        }
        passed.clear();
        let detached = keys.filter(&typed[..count], &mut passed);
        input.write_all(&passed).await?;
        if detached {
            return Ok(Left::Detached);
        }
    }
}

/// Tells the client why its stream ends early; with a terminal there is no place for it.
pub(crate) async fn say(
    writer: &mut ClientWriter,
    framing: Framing,
    message: &str,
) -> io::Result<()> {
    match framing {
        Framing::Raw => tracing::warn!(message, "an attached stream ended early"),
        Framing::Multiplexed => {
            writer
                .write_all(&framing.frame(Channel::Error, message.as_bytes()))
                .await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
