//! A host's end of a conversation with the authority.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::hex;
use crate::key::Key;
use crate::names::{MeshId, NodeId};
use crate::pin::{Fingerprint, Impostor, Pinned, provider};
use crate::server::ALPN;
use crate::token::JoinToken;
use crate::wire::{self, Answer, Papers, Question};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a host that was let in is given.
#[derive(Clone, Debug)]
pub struct Welcome {
    pub(crate) papers: Papers,
}

/// Why a host got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody is there, or not within the time.
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// What is there speaks no TLS, or not this.
    #[error("{0} does not admit hosts: is it a daemon after `nuncio init`?")]
    Handshake(SocketAddr, #[source] io::Error),
    /// Somebody else is there. It was told nothing.
    #[error("{0} is not who made the token, and was told nothing: {1}")]
    Impostor(SocketAddr, String),
    /// The connection broke off.
    #[error("ask {0} for a certificate")]
    Ask(SocketAddr, #[source] io::Error),
    /// The authority says no.
    #[error("{0}")]
    Refused(String),
    /// What it gave is no certificate, or of another authority.
    #[error("{0} answered with something that is not a certificate of its mesh")]
    Papers(SocketAddr),
}

/// Becomes a member of the token's mesh as `node`, by way of the authority at `address`. The token's secret is told to
/// nobody but that authority.
///
/// # Errors
///
/// [`JoinError`] says what is wrong with the token, the address or the way.
pub async fn join(
    token: &JoinToken,
    address: SocketAddr,
    (node, name): (&NodeId, &str),
    key: &Key,
) -> Result<Welcome, JoinError> {
    let pinned = Pinned {
        mesh: token.mesh,
        authority: token.authority,
    };
    let question = |statement: &[u8]| Question::Join {
        token: token.id(),
        secret: hex::encode(&token.secret.0),
        node: node.clone(),
        name: name.to_owned(),
        key: key.public(),
        proof: hex::encode(&key.sign(statement)),
    };
    ask(pinned, address, (node, key), question).await
}

/// Has the member `node` given a certificate for its `next` key. The present one proves who it is, whether or not its
/// certificate has expired.
///
/// # Errors
///
/// As [`join`].
pub(crate) async fn renew(
    (mesh, authority): (MeshId, &CertificateDer<'_>),
    address: SocketAddr,
    node: &NodeId,
    (present, next): (&Key, &Key),
) -> Result<Welcome, JoinError> {
    let authority = Fingerprint::of(authority).ok_or(JoinError::Papers(address))?;
    let question = |statement: &[u8]| Question::Renew {
        node: node.clone(),
        key: next.public(),
        proof: hex::encode(&next.sign(statement)),
        signature: hex::encode(&present.sign(statement)),
    };
    ask(Pinned { mesh, authority }, address, (node, next), question).await
}

async fn ask(
    pinned: Pinned,
    address: SocketAddr,
    asker: (&NodeId, &Key),
    question: impl FnOnce(&[u8]) -> Question,
) -> Result<Welcome, JoinError> {
    let late = |_| JoinError::Connect(address, io::ErrorKind::TimedOut.into());
    let asked = timeout(PATIENCE, converse(pinned, address, asker, question));
    asked.await.map_err(late)?
}

async fn converse(
    pinned: Pinned,
    address: SocketAddr,
    (node, key): (&NodeId, &Key),
    question: impl FnOnce(&[u8]) -> Question,
) -> Result<Welcome, JoinError> {
    let authority = pinned.authority;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| JoinError::Connect(address, error))?;
    let connected = TlsConnector::from(Arc::new(config(pinned)))
        .connect(ServerName::from(address.ip()), stream)
        .await;
    let mut stream = connected.map_err(|error| match impostor(&error) {
        Some(why) => JoinError::Impostor(address, why),
        None => JoinError::Handshake(address, error),
    })?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        let other = io::Error::from(io::ErrorKind::Unsupported);
        return Err(JoinError::Handshake(address, other));
    }
    let exported = wire::exported(stream.get_ref().1);
    let exported = exported.map_err(|error| JoinError::Ask(address, io::Error::other(error)))?;
    let question = question(&wire::statement(&exported, node, &key.public()));
    let answered = async {
        wire::write(&question, &mut stream).await?;
        let answer = wire::read(&mut stream).await?;
        let _ = stream.shutdown().await; // all has been said
        io::Result::Ok(answer)
    };
    match answered
        .await
        .map_err(|error| JoinError::Ask(address, error))?
    {
        Answer::Refused { reason } => Err(JoinError::Refused(reason)),
        Answer::Welcome(papers) => check(&papers, authority, key)
            .then_some(Welcome { papers })
            .ok_or(JoinError::Papers(address)),
    }
}

/// Whether the papers are for this key and of this authority.
fn check(papers: &Papers, authority: Fingerprint, key: &Key) -> bool {
    let of = |pem: &str| {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        Fingerprint::of(&certificate)
    };
    of(&papers.authority) == Some(authority)
        && of(&papers.certificate) == Some(Fingerprint::of_key(&key.public()))
}

fn config(pinned: Pinned) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// What was wrong with the server's certificate, if that was it.
fn impostor(error: &io::Error) -> Option<String> {
    use rustls::{CertificateError::Other, Error::InvalidCertificate, OtherError};
    match error.get_ref()?.downcast_ref()? {
        InvalidCertificate(Other(OtherError(why))) => {
            Some(why.downcast_ref::<Impostor>()?.to_string())
        }
        InvalidCertificate(error) => Some(error.to_string()),
        _ => None,
    }
}
