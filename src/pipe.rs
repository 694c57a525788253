//! Bytes between what is asynchronous, a request, and the thread that reads or writes files for it.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::mpsc;

/// Chunks under way; with it full the sender waits.
const DEPTH: usize = 8;
/// Bytes that are gathered before they are sent.
const CHUNK: usize = 64 << 10;

/// What is under way; the end is where the sender is dropped, unless it sent an error.
pub(crate) type Chunk = io::Result<Bytes>;

/// The writing end for a thread.
pub(crate) struct PipeWriter {
    to: mpsc::Sender<Chunk>,
    gathered: BytesMut,
}

/// The reading end for a thread.
pub(crate) struct PipeReader {
    from: mpsc::Receiver<Chunk>,
    current: Bytes,
}

/// The reading end for a request.
pub(crate) struct Chunks(mpsc::Receiver<Chunk>);

impl Stream for Chunks {
    type Item = Chunk;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.0.poll_recv(context)
    }
}

/// From a thread to a request.
pub(crate) fn outgoing() -> (PipeWriter, Chunks) {
    let (to, from) = mpsc::channel(DEPTH);
    let gathered = BytesMut::with_capacity(CHUNK);
    (PipeWriter { to, gathered }, Chunks(from))
}

/// From a request to a thread.
pub(crate) fn incoming() -> (mpsc::Sender<Chunk>, PipeReader) {
    let (to, from) = mpsc::channel(DEPTH);
    let current = Bytes::new();
    (to, PipeReader { from, current })
}

impl PipeWriter {
    /// Lets the reader know that what came is not all.
    pub(crate) fn fail(self, error: io::Error) {
        let _ = self.to.blocking_send(Err(error)); // whoever has gone need not know
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let sent = self.to.blocking_send(Ok(self.gathered.split().freeze()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.from.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_and_errors_too() {
        let (to, mut reader) = incoming();
        for part in ["one", "", "two"] {
            let sent = to.try_send(Ok(Bytes::from_static(part.as_bytes())));
            sent.expect("there is room");
        }
        drop(to);
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("readable");
        assert_eq!(all, "onetwo");
        let (mut writer, Chunks(mut from)) = outgoing();
        writer.write_all(b"part").expect("gathered");
        writer.fail(io::ErrorKind::UnexpectedEof.into());
        assert!(from.blocking_recv().expect("an error").is_err());
        assert!(from.blocking_recv().is_none());
    }
}
