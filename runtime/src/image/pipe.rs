//! Carries bytes from async code to the blocking thread that hashes, unpacks and writes them.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

/// Chunks under way; with it full the sender waits, and so does the network.
const DEPTH: usize = 8;

enum Chunk {
    Data(Bytes),
    End,
}

/// The blocking end. It ends only where the sender said so: one that was dropped is an error.
pub(crate) struct PipeReader {
    from: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

pub(crate) struct PipeWriter(mpsc::Sender<Chunk>);

pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (to, from) = mpsc::channel(DEPTH);
    (
        PipeWriter(to),
        PipeReader {
            from,
            current: Bytes::new(),
            ended: false,
        },
    )
}

impl PipeWriter {
    /// Sends all of `source`. Ends early if nobody reads any more: the reader knows why.
    pub(crate) async fn send_all<E>(
        self,
        mut source: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), E> {
        self.send_from(&mut source, &mut 0).await?;
        self.end().await;
        Ok(())
    }

    /// As [`PipeWriter::send_all`], but does not say that this is all, and adds what was sent to `sent`.
    pub(crate) async fn send_from<E>(
        &self,
        source: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        sent: &mut u64,
    ) -> Result<(), E> {
        while let Some(data) = source.next().await {
            let data = data?;
            let length = data.len() as u64;
            if length > 0 && self.0.send(Chunk::Data(data)).await.is_err() {
                return Ok(());
            }
            *sent += length;
        }
        Ok(())
    }

    /// Says that all was sent.
    pub(crate) async fn end(self) {
        let _ = self.0.send(Chunk::End).await;
    }
}

impl PipeReader {
    /// The next bytes as they came, nothing at the end.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.current.is_empty() {
            return Ok(Some(std::mem::take(&mut self.current)));
        }
        if self.ended {
            return Ok(None);
        }
        match self.from.blocking_recv() {
            Some(Chunk::Data(data)) => Ok(Some(data)),
            Some(Chunk::End) => {
                self.ended = true;
                Ok(None)
            }
            None => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the sender gave up",
            )),
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            self.current = self.next_chunk()?.unwrap_or_default();
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
