//! The way to a daemon on another machine: both sides show certificates.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientError;
use crate::papers::Papers;

/// How long a host may take to accept, and then to show who it is.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Tls {
    /// `HOST:PORT`.
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.address)
    }
}

impl Tls {
    pub(super) fn new(address: &str, papers: &Papers) -> Result<Self, ClientError> {
        let config = papers
            .client_config()
            .map_err(|source| ClientError::Papers {
                address: address.to_owned(),
                source,
            })?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        Ok(Self {
            address: address.to_owned(),
            name: name.map_err(|source| ClientError::Name {
                host: host.to_owned(),
                source,
            })?,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, ClientError> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let failed = |source| ClientError::Connect {
            address: self.address.clone(),
            source,
        };
        let stream = timeout(PATIENCE, TcpStream::connect(&self.address)).await;
        let stream = stream.map_err(late).flatten().map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shaken = timeout(PATIENCE, self.connector.connect(self.name.clone(), stream)).await;
        let shaken = shaken.map_err(late).flatten();
        shaken.map_err(|source| ClientError::Handshake {
            address: self.address.clone(),
            source,
        })
    }
}
