//! Gateways of two meshes: they know each other by their keys alone, which a token tells at first.
//!
//! Neither mesh's authority vouches for anybody of the other. A gateway has a key and a certificate that it signed itself.
//! Who has its token knows the hash of that key, and shows a key of its own together with the token's secret; from then on
//! each takes the other's key, and nothing else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::authority::now;
use crate::certificate;
use crate::files;
use crate::hex;
use crate::key::Key;
use crate::pin::{AnyKey, Fingerprint, OneKey, provider};
use crate::token::Secret;
use crate::wire;

/// The application protocol.
const ALPN: &[u8] = b"nuncio-gateway/1";
/// Certificate and key in one file, so that they are replaced in one step.
const IDENTITY: &str = "gateway.pem";
/// For how long a gateway's certificate is good, which is good for its key alone.
const LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 60 * 60);
/// How long a handshake and the first words may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of what is lent at most.
const LONGEST: u32 = 256 << 10;
const PREFIX: &str = "NUNCIO-PEER-1-";

/// A gateway's key, and the certificate that shows it.
#[derive(Debug)]
pub struct Gateway {
    key: Key,
    certificate: CertificateDer<'static>,
    identity: String,
    file: PathBuf,
}

/// What one gateway knows another by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Pinned {
    /// SHA-256 of its public key, in hexadecimal digits.
    pub fingerprint: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// The identity in that.
    pub identity: String,
}

/// Lets one other gateway in, once. Its text is [`revealed`](Self::reveal) on purpose only.
#[derive(Clone, Eq, PartialEq)]
pub struct PeerToken {
    fingerprint: Fingerprint,
    id: [u8; 6],
    secret: Secret,
}

/// Not a token of a gateway. The text is not repeated, since it may be nearly one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "this is no token of a gateway: expected {PREFIX}KEY-ID-SECRET, as `nuncio peer token` prints it"
)]
pub struct NotAPeerToken;

/// A service that a mesh lends to another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lent {
    /// What it is called there.
    pub name: String,
    /// What tells it from others.
    pub tags: Vec<String>,
    /// The port of the gateway that leads to it, by TLS with the gateways' keys.
    pub port: u16,
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    /// It has a token.
    Pair {
        id: String,
        secret: String,
        name: String,
    },
    /// It is known.
    Follow,
}

#[derive(Deserialize, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    Lends { services: Vec<Lent> },
    Refused { reason: String },
}

/// Who has come, and how it wants to be let in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What it shows.
    pub pinned: Pinned,
    /// The token's id, the hash of its secret, and what the caller calls itself; `None`: it says that it is known.
    pub token: Option<(String, String, String)>,
}

/// Why two gateways do not speak.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Nobody is there, or not within the time.
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// It is not who was expected, or no gateway.
    #[error("{0} is not the gateway that made the token, and was told nothing")]
    Impostor(SocketAddr, #[source] io::Error),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// The connection broke off.
    #[error("the connection to {0}")]
    Broken(SocketAddr, #[source] io::Error),
}

/// Why a gateway has no key.
#[derive(Debug, thiserror::Error)]
pub enum GatewayKeyError {
    /// A file cannot be read or written.
    #[error("{}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// It holds something else.
    #[error("{} holds no key of a gateway: remove it, and pair again", .0.display())]
    Content(PathBuf),
}

impl Gateway {
    /// The gateway whose key lies in `directory`; a new one of the name `node`, if there is none.
    ///
    /// # Errors
    ///
    /// [`GatewayKeyError`] names the file that is wrong.
    ///
    /// # Panics
    ///
    /// If the kernel has no random bytes.
    pub fn open(directory: &Path, node: &str) -> Result<Self, GatewayKeyError> {
        let file = directory.join(IDENTITY);
        let failed = |error| GatewayKeyError::File(file.clone(), error);
        files::private_directory(directory).map_err(failed)?;
        let identity = format!("spiffe://nuncio-peer/gateway/{node}");
        let wrong = || GatewayKeyError::Content(file.clone());
        if let Some(text) = files::read(&file).map_err(failed)? {
            let text = String::from_utf8(text).map_err(|_| wrong())?;
            return Ok(Self {
                key: Key::from_pem(&text).map_err(|_| wrong())?,
                certificate: CertificateDer::from_pem_slice(text.as_bytes())
                    .map_err(|_| wrong())?,
                identity,
                file,
            });
        }
        let key = Key::generate();
        let issued = now();
        let params = certificate::leaf(
            &identity,
            (issued, issued.saturating_add(LIFETIME.as_secs())),
        );
        let params = params.map_err(|_| wrong())?;
        let certificate = params.self_signed(key.pair()).map_err(|_| wrong())?;
        let text = format!("{}{}", certificate.pem(), key.to_pem());
        files::write(&file, text.as_bytes()).map_err(failed)?;
        Ok(Self {
            key,
            certificate: certificate.der().clone(),
            identity,
            file,
        })
    }

    /// Where its certificate and its key are.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What others know it by.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        pinned(&self.certificate, &self.identity)
    }

    /// A token for one other gateway; also its id, and what to keep in place of its secret.
    #[must_use]
    pub fn create_token(&self) -> (PeerToken, String, String) {
        let token = PeerToken {
            fingerprint: fingerprint(&self.certificate),
            id: crate::key::random(),
            secret: Secret(crate::key::random()),
        };
        let (id, hash) = (hex::encode(&token.id), hex::encode(&token.secret.hash()));
        (token, id, hash)
    }

    /// Follows what the gateway at `address` lends, by a token or as one that it knows.
    ///
    /// # Errors
    ///
    /// [`GatewayError`] says what is wrong with the token, the address or the way.
    pub async fn follow(
        &self,
        address: SocketAddr,
        by: Introduction<'_>,
    ) -> Result<Following, GatewayError> {
        let late = |_| GatewayError::Connect(address, io::ErrorKind::TimedOut.into());
        timeout(PATIENCE, self.connect(address, by))
            .await
            .map_err(late)?
    }

    async fn connect(
        &self,
        address: SocketAddr,
        by: Introduction<'_>,
    ) -> Result<Following, GatewayError> {
        let (expected, question) = match by {
            Introduction::Token(token, name) => {
                let question = Question::Pair {
                    id: hex::encode(&token.id),
                    secret: hex::encode(&token.secret.0),
                    name: name.to_owned(),
                };
                (token.fingerprint, question)
            }
            Introduction::Known(fingerprint) => {
                let fingerprint = fingerprint.parse();
                let fingerprint = fingerprint.map_err(|()| {
                    GatewayError::Refused("the gateway's key is not known any more".to_owned())
                })?;
                (fingerprint, Question::Follow)
            }
        };
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| GatewayError::Connect(address, error))?;
        let connector = TlsConnector::from(Arc::new(self.client_config(expected)));
        let stream = connector
            .connect(ServerName::from(address.ip()), stream)
            .await;
        let mut stream = stream.map_err(|error| GatewayError::Impostor(address, error))?;
        let broken = |error| GatewayError::Broken(address, error);
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|shown| shown.first());
        let shown = shown.and_then(shown_by);
        let gateway = shown.ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))?;
        wire::write(&question, &mut stream).await.map_err(broken)?;
        let mut following = Following {
            gateway,
            first: None,
            address,
            stream: Box::new(stream),
        };
        following.first = Some(following.next().await?);
        Ok(following)
    }

    /// Meets who has connected: `decide` says whether it is let in, or why not.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if it is not, or says nothing in time.
    pub async fn meet(
        &self,
        stream: TcpStream,
        decide: impl FnOnce(&Caller) -> Result<(), String>,
    ) -> io::Result<Lending> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        timeout(PATIENCE, self.hear(stream, decide))
            .await
            .map_err(late)?
    }

    async fn hear(
        &self,
        stream: TcpStream,
        decide: impl FnOnce(&Caller) -> Result<(), String>,
    ) -> io::Result<Lending> {
        stream.set_nodelay(true)?;
        let config = self.server_config().map_err(io::Error::other)?;
        let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|shown| shown.first());
        let pinned = shown.and_then(shown_by).ok_or(io::ErrorKind::InvalidData)?;
        let token = match wire::read(&mut stream).await? {
            Question::Pair { id, secret, name } => {
                let secret = hex::decode_array(&secret).map(Secret);
                let secret = secret.ok_or(io::ErrorKind::InvalidData)?;
                Some((id, hex::encode(&secret.hash()), name))
            }
            Question::Follow => None,
        };
        let caller = Caller { pinned, token };
        if let Err(reason) = decide(&caller) {
            let refused = Answer::Refused {
                reason: reason.clone(),
            };
            wire::write(&refused, &mut stream).await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(Lending {
            caller,
            stream: Box::new(stream),
        })
    }

    fn client_config(&self, expected: Fingerprint) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OneKey(expected)));
        let own = builder.with_client_auth_cert(vec![self.certificate.clone()], self.key.to_der());
        let mut config = own.expect("the key is the certificate's");
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config
    }

    fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(AnyKey))
            .with_single_cert(vec![self.certificate.clone()], self.key.to_der())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// How a gateway is let in by another.
#[derive(Clone, Copy, Debug)]
pub enum Introduction<'a> {
    /// By a token, under a name that it says.
    Token(&'a PeerToken, &'a str),
    /// By its key; the other's fingerprint.
    Known(&'a str),
}

/// What another gateway lends, as it changes.
pub struct Following {
    /// What it is known by from now on.
    pub gateway: Pinned,
    first: Option<Vec<Lent>>,
    address: SocketAddr,
    stream: Box<client::TlsStream<TcpStream>>,
}

impl Following {
    /// What it lends now; returns as often as it says so, whether or not that is news. Bound it.
    ///
    /// # Errors
    ///
    /// [`GatewayError`] if the connection ends, or it refuses.
    pub async fn next(&mut self) -> Result<Vec<Lent>, GatewayError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match wire::read_within(&mut self.stream, LONGEST).await {
            Ok(Answer::Lends { services }) => Ok(services),
            Ok(Answer::Refused { reason }) => Err(GatewayError::Refused(reason)),
            Err(error) => Err(GatewayError::Broken(self.address, error)),
        }
    }
}

/// A gateway that was let in, to be told what is lent to it.
pub struct Lending {
    /// Who it is.
    pub caller: Caller,
    stream: Box<server::TlsStream<TcpStream>>,
}

impl Lending {
    /// Tells what is lent now.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the connection has ended.
    pub async fn tell(&mut self, services: Vec<Lent>) -> io::Result<()> {
        wire::write_within(&Answer::Lends { services }, &mut self.stream, LONGEST).await
    }
}

impl PeerToken {
    /// The token as one line.
    #[must_use]
    pub fn reveal(&self) -> String {
        let (id, secret) = (hex::encode(&self.id), hex::encode(&self.secret.0));
        format!("{PREFIX}{}-{id}-{secret}", self.fingerprint)
    }
}

impl FromStr for PeerToken {
    type Err = NotAPeerToken;

    fn from_str(text: &str) -> Result<Self, NotAPeerToken> {
        let parse = || {
            let mut parts = text.trim().strip_prefix(PREFIX)?.split('-');
            let token = Self {
                fingerprint: parts.next()?.parse().ok()?,
                id: hex::decode_array(parts.next()?)?,
                secret: Secret(hex::decode_array(parts.next()?)?),
            };
            parts.next().is_none().then_some(token)
        };
        parse().ok_or(NotAPeerToken)
    }
}

impl fmt::Debug for PeerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = hex::encode(&self.id);
        f.debug_struct("PeerToken")
            .field("id", &id)
            .finish_non_exhaustive()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    Fingerprint::of(certificate).expect("a certificate that was made or parsed here")
}

/// What a certificate shows of a gateway, if it is one of a gateway.
fn shown_by(certificate: &CertificateDer<'static>) -> Option<Pinned> {
    Fingerprint::of(certificate)?;
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = parsed.valid_uri_names();
    let identity = names
        .next()
        .filter(|name| name.starts_with("spiffe://nuncio-peer/gateway/"))?;
    let identity = identity.to_owned();
    names
        .next()
        .is_none()
        .then(|| pinned(certificate, &identity))
}

fn pinned(certificate: &CertificateDer<'_>, identity: &str) -> Pinned {
    Pinned {
        fingerprint: fingerprint(certificate).to_string(),
        certificate: pem(certificate),
        identity: identity.to_owned(),
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in certificate.chunks(3) {
        let bytes = [
            three[0],
            *three.get(1).unwrap_or(&0),
            *three.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for place in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or_default();
            text.push(if place > three.len() {
                '='
            } else {
                char::from(DIGITS[digit])
            });
        }
    }
    let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tokio::net::TcpListener;

    use super::*;

    fn gateway(name: &str) -> (tempfile::TempDir, Gateway) {
        let directory = tempfile::tempdir().unwrap();
        let gateway = Gateway::open(directory.path(), name).unwrap();
        (directory, gateway)
    }

    #[test]
    fn a_key_is_kept_and_a_certificate_goes_round_in_pem() {
        let (directory, gateway) = gateway("a");
        let again = Gateway::open(directory.path(), "a").unwrap();
        assert_eq!(again.pinned(), gateway.pinned());
        let text = gateway.pinned().certificate;
        let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        assert_eq!(read, gateway.certificate);
        assert_eq!(shown_by(&read), Some(gateway.pinned()));
        let file = std::fs::read_to_string(gateway.file()).unwrap();
        assert!(file.starts_with(&text), "as rcgen writes it");
    }

    #[test]
    fn a_token_goes_round_and_does_not_show_its_secret() {
        let (_directory, gateway) = gateway("a");
        let (token, id, hash) = gateway.create_token();
        let text = token.reveal();
        assert_eq!(text.parse::<PeerToken>().unwrap(), token);
        assert!(text.contains(&id) && !text.contains(&hash));
        let secret = text.rsplit('-').next().unwrap();
        assert!(!format!("{token:?}").contains(secret));
        for wrong in [
            "",
            "NUNCIO-PEER-1-",
            &text[1..],
            &format!("{text}0"),
            &format!("{text}-0"),
        ] {
            assert_eq!(wrong.parse::<PeerToken>(), Err(NotAPeerToken), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_token_lets_in_who_is_then_known_by_its_key_and_nobody_else() {
        let (_a, lender) = gateway("a");
        let (_b, borrower) = gateway("b");
        let (_c, stranger) = gateway("c");
        let (token, id, hash) = lender.create_token();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = borrower.pinned();
        let lent = vec![Lent {
            name: "redis".to_owned(),
            tags: Vec::new(),
            port: 2391,
        }];
        let pin = lender.pinned().fingerprint;
        let told = lent.clone();
        let serve = tokio::spawn(async move {
            for _ in 0..4 {
                let (stream, _) = listener.accept().await.unwrap();
                let decide = |caller: &Caller| match &caller.token {
                    Some((by, secret, _)) if *by == id && *secret == hash => Ok(()),
                    Some(_) => Err("no such token".to_owned()),
                    None if caller.pinned == known => Ok(()),
                    None => Err("not known here".to_owned()),
                };
                if let Ok(mut lending) = lender.meet(stream, decide).await {
                    lending.tell(told.clone()).await.unwrap();
                }
            }
        });
        let mut paired = borrower
            .follow(address, Introduction::Token(&token, "b"))
            .await
            .unwrap();
        assert_eq!(paired.gateway.fingerprint, pin);
        assert_eq!(paired.next().await.unwrap(), lent);
        let by_key = Introduction::Known(&pin);
        assert_eq!(
            borrower
                .follow(address, by_key)
                .await
                .unwrap()
                .next()
                .await
                .unwrap(),
            lent
        );
        let refused = stranger.follow(address, by_key).await.err().unwrap();
        assert_eq!(refused.to_string(), "not known here");
        let other = stranger.pinned().fingerprint;
        let impostor = borrower
            .follow(address, Introduction::Known(&other))
            .await
            .err()
            .unwrap();
        assert!(
            matches!(impostor, GatewayError::Impostor(..)),
            "{impostor:?}"
        );
        serve.await.unwrap();
    }
}
