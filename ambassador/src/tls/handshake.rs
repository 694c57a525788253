//! Begins to speak TLS, if the peer is who it may be.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::raw::Raw;
use super::verify::{self, Verifier};
use super::{Identity, Tls, TlsSide, provider};
use crate::tcp::Socket;
use crate::time::timeout;

/// A connection whose peer has been verified.
pub(crate) struct Encrypted {
    pub(super) stream: TlsStream<Raw>,
    pub(super) socket: Rc<Socket>,
    pub(super) peer: Peer,
}

/// Who is at the other end, and what it showed when that was verified.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Identity,
    pub(super) side: TlsSide,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) verified: UnixTime,
}

/// Why a peer is not spoken with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("TLS handshake")]
    Refused(#[source] io::Error),
    #[error("no TLS handshake within {0:?}")]
    Timeout(Duration),
    #[error("prepare TLS")]
    Prepare(#[source] rustls::Error),
    #[error("TLS handshake: the peer's certificate")]
    Peer(#[source] verify::PeerError),
}

impl Encrypted {
    /// The connection below, for watching it.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Who the peer has proved to be.
    pub(crate) fn identity(&self) -> &Identity {
        &self.peer.identity
    }
}

/// Is the server of a client that has just connected.
pub(crate) async fn accept(
    client: Socket,
    tls: &Tls,
    patience: Duration,
) -> Result<Encrypted, HandshakeError> {
    let config = tls.server_config().map_err(HandshakeError::Prepare)?;
    let socket = Rc::new(client);
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(Raw(socket.clone()));
    let stream = within(patience, accepted).await?;
    established(stream.into(), socket, tls)
}

/// Is a client of an upstream that has just been connected to.
pub(crate) async fn connect(
    upstream: Socket,
    address: IpAddr,
    tls: &Tls,
    patience: Duration,
) -> Result<Encrypted, HandshakeError> {
    let config = tls.client_config().map_err(HandshakeError::Prepare)?;
    let socket = Rc::new(upstream);
    // An address is not sent, and nothing is made of either: the identity is what counts.
    let name = match &tls.server_name {
        Some(name) => ServerName::DnsName(name.clone()),
        None => ServerName::from(address),
    };
    let connected = TlsConnector::from(Arc::new(config)).connect(name, Raw(socket.clone()));
    let stream = within(patience, connected).await?;
    established(stream.into(), socket, tls)
}

async fn within<T>(
    patience: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, HandshakeError> {
    let done = timeout(patience, handshake).await;
    let done = done.map_err(|_| HandshakeError::Timeout(patience))?;
    done.map_err(|error| match own_verdict(&error) {
        Some(verdict) => HandshakeError::Peer(verdict),
        None => HandshakeError::Refused(error),
    })
}

/// What [`Verifier`] said, which rustls would show as a data structure.
fn own_verdict(error: &io::Error) -> Option<verify::PeerError> {
    use rustls::{CertificateError::Other, Error::InvalidCertificate, OtherError};
    match error.get_ref()?.downcast_ref()? {
        InvalidCertificate(Other(OtherError(verdict))) => verdict.downcast_ref().cloned(),
        _ => None,
    }
}

fn established(
    stream: TlsStream<Raw>,
    socket: Rc<Socket>,
    tls: &Tls,
) -> Result<Encrypted, HandshakeError> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let chain: Vec<_> = certificates
        .iter()
        .map(|one| one.clone().into_owned())
        .collect();
    // The handshake would have failed without one.
    let shown = chain.first().ok_or(verify::PeerError::Names(0));
    let identity = shown.and_then(verify::identity);
    let peer = Peer {
        identity: identity.map_err(HandshakeError::Peer)?,
        side: tls.side,
        chain,
        verified: UnixTime::now(),
    };
    Ok(Encrypted {
        stream,
        socket,
        peer,
    })
}

fn verifier(tls: &Tls) -> Verifier {
    Verifier {
        credentials: tls.credentials.borrow().clone(),
        allow: tls.allow.clone(),
    }
}

impl Tls {
    /// How TLS is spoken to a client that is now to be let in: both sides show certificates.
    ///
    /// # Errors
    ///
    /// What keeps TLS 1.3 from being spoken.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let verifier = verifier(self);
        let own = SingleCertAndKey::from(verifier.credentials.certified.clone());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(own));
        // A resumed session would be spoken without showing the certificate again, whatever has become of
        // the bundle and the allow-list: so none is.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// How TLS is spoken to a server that is now connected to: both sides show certificates. The server's host name
    /// does not matter.
    ///
    /// # Errors
    ///
    /// What keeps TLS 1.3 from being spoken.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let verifier = verifier(self);
        let own = SingleCertAndKey::from(verifier.credentials.certified.clone());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(own));
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}
