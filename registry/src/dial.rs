//! Connections to the registry that somebody else makes, as by TLS with certificates that are renewed, and their end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) type Stream = Box<dyn ReadWrite>;
type Dialing = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

pub(crate) trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// Connects, again whenever that is needed.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Fn(SocketAddr) -> Dialing + Send + Sync>);

impl Dialer {
    /// What `dial` connects to carries nothing but the protocol.
    pub fn new<F, S>(dial: impl Fn(SocketAddr) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |address| {
            let dialing = dial(address);
            Box::pin(async move { Ok(Box::new(dialing.await?) as Stream) })
        }))
    }

    pub(crate) fn dial(&self, address: SocketAddr) -> Dialing {
        (self.0)(address)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

/// A connection that fails once it is cut, whatever the other end does.
pub(crate) struct Cut {
    stream: Stream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cut {
    pub(crate) fn new(stream: Stream, cut: CancellationToken) -> Self {
        let cut = Box::pin(cut.cancelled_owned());
        Self { stream, cut }
    }

    fn is_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_cut(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
