//! Connections to the API that can be cut off: of readers that have stopped reading, and of hosts that are members no more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

use super::audit::Peer;

/// Who is at the other end, and how to be rid of them.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: Peer,
    /// Cancelled, it ends the connection, also while nothing can be written to it.
    pub(crate) cut: CancellationToken,
}

/// A connection, until it is cut.
pub(crate) struct Connection<S> {
    stream: S,
    cut: CancellationToken,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Tells those who watch over it that it has ended.
    _ended: DropGuard,
    ended: CancellationToken,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S) -> Self {
        let (cut, ended) = (CancellationToken::new(), CancellationToken::new());
        Self {
            stream,
            is_cut: Box::pin(cut.clone().cancelled_owned()),
            cut,
            _ended: ended.clone().drop_guard(),
            ended,
        }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// What cuts it.
    pub(crate) fn cut(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// What is cancelled when it has ended.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    fn unless_cut<T>(
        &mut self,
        context: &mut Context<'_>,
        done: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_cut.as_mut().poll(context).is_ready() {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the connection was cut off");
            return Poll::Ready(Err(error));
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        match done {
            Poll::Pending => self.unless_cut(context, done),
            done => done,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_cut(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_cut(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        match done {
            Poll::Pending => self.unless_cut(context, done),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A listener whose connections can be cut.
pub(crate) struct Cuttable<L>(pub(super) L);

impl<L: Listener> Listener for Cuttable<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.0.accept().await;
        (Connection::new(stream), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_takes_ends_when_the_connection_is_cut() -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut ours = Connection::new(ours);
        let (cut, ended) = (ours.cut(), ours.ended());
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = ours.write_all(&[0; 4096]).await {
                    return error.kind();
                }
            }
        });
        // What fits has been written when there is something to read and no more can be.
        theirs.readable().await?;
        cut.cancel();
        assert_eq!(writing.await?, io::ErrorKind::TimedOut);
        ended.cancelled().await;
        Ok(())
    }
}
