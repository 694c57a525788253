//! Certificates made for a test, and peers that speak TLS in ways that ambassadors do not.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the module"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nuncio_ambassador::{Credentials, Forward, Tls, TlsSide};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Somebody who vouches for others.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub bundle: String,
}

/// What one who is vouched for holds, in PEM.
#[derive(Clone, Debug)]
pub struct Held {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let bundle = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, bundle })
    }

    pub fn issue(&self, names: &[&str]) -> Result<Held> {
        self.issue_until(names, 3000)
    }

    /// Valid until that year begins.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Result<Held> {
        self.issue_as(names, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    /// Valid for so long from now on.
    pub fn issue_briefly(&self, names: &[&str], valid: Duration) -> Result<Held> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let until = date_time_ymd(1970, 1, 1) + now + valid;
        self.issue_as(names, |params| params.not_after = until)
    }

    fn issue_as(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Held> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        for name in names {
            let name = SanType::URI((*name).try_into()?);
            params.subject_alt_names.push(name);
        }
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Held { certificate, key })
    }

    /// What one of this name holds, trusting those this one vouches for.
    pub fn credentials(&self, name: &str) -> Result<Arc<Credentials>> {
        credentials(&self.issue(&[name])?, &[self])
    }
}

pub fn credentials(held: &Held, trusted: &[&Authority]) -> Result<Arc<Credentials>> {
    let bundle: String = trusted.iter().map(|one| one.bundle.as_str()).collect();
    let (certificate, key) = (held.certificate.as_bytes(), held.key.as_bytes());
    let credentials = Credentials::from_pem(certificate, key, bundle.as_bytes())?;
    Ok(Arc::new(credentials))
}

/// A forward that speaks TLS at one end.
pub fn encrypted(
    mut forward: Forward,
    side: TlsSide,
    credentials: &watch::Sender<Arc<Credentials>>,
    allow: &[&str],
) -> Result<Forward> {
    let allow: Result<Vec<_>, _> = allow.iter().map(|allowed| allowed.parse()).collect();
    forward.edge.tls = Some(Tls {
        server_name: None,
        side,
        credentials: credentials.subscribe(),
        allow: allow?.into(),
    });
    Ok(forward)
}

pub fn source(credentials: Arc<Credentials>) -> watch::Sender<Arc<Credentials>> {
    watch::channel(credentials).0
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Held {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>> {
        Ok(
            CertificateDer::pem_slice_iter(self.certificate.as_bytes())
                .collect::<Result<_, _>>()?,
        )
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_slice(self.key.as_bytes())?)
    }
}

/// Connects with this certificate, or none, and asks no server who it is.
pub async fn dial(
    address: SocketAddr,
    held: Option<&Held>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<client::TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match held {
        Some(held) => config.with_client_auth_cert(held.chain()?, held.key()?)?,
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let connected = connector.connect(ServerName::from(address.ip()), stream);
    Ok(super::soon(connected).await??)
}

/// Is the server on a connection, and asks no client who it is.
pub async fn answer(stream: TcpStream, held: &Held) -> Result<server::TlsStream<TcpStream>> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(held.chain()?, held.key()?)?;
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream);
    Ok(super::soon(accepted).await??)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
