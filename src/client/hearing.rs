//! A connection that is still read after the other end has stopped reading.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Takes what the other end does not read any more, and drops it.
///
/// A daemon that refuses an upload answers and closes at once. Its answer has arrived by the time that a write fails, but HTTP
/// would take that failure for the end of the exchange. Here only reading tells of the end.
#[derive(Debug)]
pub(super) struct Hearing<S> {
    stream: S,
    unheard: bool,
}

impl<S> Hearing<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            unheard: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hearing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hearing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unheard {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        match written {
            Poll::Ready(Err(error)) if is_unheard(&error) => {
                self.unheard = true;
                Poll::Ready(Ok(bytes.len()))
            }
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn is_unheard(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_was_answered_is_read_although_the_rest_is_not_taken() -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let mut ours = Hearing::new(ours);
        ours.write_all(b"half a request").await?;
        theirs.write_all(b"no").await?;
        drop(theirs);
        for _ in 0..3 {
            ours.write_all(b"the other half").await?;
        }
        let mut answer = [0; 2];
        ours.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"no");
        let end = ours.read(&mut answer).await;
        assert!(matches!(&end, Ok(0)) || end.is_err_and(|error| is_unheard(&error)));
        Ok(())
    }
}
