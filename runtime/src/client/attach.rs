//! A client's side of an attached process.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::logs::Stream;
use crate::protocol::{HEADER, LONGEST_FRAME, NOTICE};

/// What to join.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive standard output, which with a terminal is everything.
    pub stdout: bool,
    /// Receive standard error.
    pub stderr: bool,
}

/// An attached process.
#[derive(Debug)]
pub struct Attach {
    /// What it writes.
    pub output: AttachOutput,
    /// What it reads. Shutting it down, or dropping it, is the end of input.
    pub input: AttachInput,
}

/// A piece of output.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// Where it was written.
    pub stream: Stream,
    /// What was written.
    pub bytes: Bytes,
}

/// Why output ended before the process did.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The shim let this client go, for this reason.
    #[error("{0}")]
    LetGo(String),
    /// The connection failed, or what came is not from a shim.
    #[error("read output from the shim")]
    Io(#[from] io::Error),
}

/// The output of an attached process.
#[derive(Debug)]
pub struct AttachOutput {
    reader: OwnedReadHalf,
    buffer: BytesMut,
}

/// The input of an attached process.
#[derive(Debug)]
pub struct AttachInput(OwnedWriteHalf);

impl Attach {
    pub(super) fn new(stream: BufReader<UnixStream>) -> Self {
        let buffer = BytesMut::from(stream.buffer());
        let (reader, writer) = stream.into_inner().into_split();
        Self {
            output: AttachOutput { reader, buffer },
            input: AttachInput(writer),
        }
    }
}

impl AttachOutput {
    /// The next piece; `None` when there will be no more. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`AttachError`]; nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Output>, AttachError> {
        loop {
            if let Some((stream, bytes)) = self.frame()? {
                let stream = match stream {
                    1 => Stream::Stdout,
                    2 => Stream::Stderr,
                    NOTICE => {
                        return Err(AttachError::LetGo(
                            String::from_utf8_lossy(&bytes).into_owned(),
                        ));
                    }
                    other => {
                        return Err(malformed(format!("stream {other} is none of 1, 2 and 3")));
                    }
                };
                return Ok(Some(Output { stream, bytes }));
            }
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(malformed("it ended within a frame".into()))
                };
            }
        }
    }

    fn frame(&mut self) -> Result<Option<(u8, Bytes)>, AttachError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [stream, _, _, _, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST_FRAME {
            return Err(malformed(format!(
                "a frame of {length} bytes is longer than {LONGEST_FRAME}"
            )));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some((stream, self.buffer.split_to(length).freeze())))
    }
}

fn malformed(text: String) -> AttachError {
    io::Error::new(io::ErrorKind::InvalidData, text).into()
}

impl AsyncWrite for AttachInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
