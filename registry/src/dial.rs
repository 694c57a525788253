//! Connections to the registry that somebody else makes, as by TLS with certificates that are renewed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::Channel;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::{Service, http::Uri};
use tonic::transport::Endpoint;

type Stream = Box<dyn ReadWrite>;
type Dialing = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

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

    pub(crate) fn channel(
        &self,
        address: SocketAddr,
        (timeout, ping): (Duration, Duration),
    ) -> Result<Channel, tonic::transport::Error> {
        // The scheme says what is spoken over the connection, not how that is made.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(timeout)
            .http2_keep_alive_interval(ping)
            .keep_alive_timeout(timeout);
        let (dialer, address) = (self.clone(), address);
        let connector = Connector { dialer, address };
        Ok(Channel::Tonic(
            endpoint.connect_with_connector_lazy(connector),
        ))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

struct Connector {
    dialer: Dialer,
    address: SocketAddr,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialing = (self.dialer.0)(self.address);
        Box::pin(async move { dialing.await.map(TokioIo::new) })
    }
}
