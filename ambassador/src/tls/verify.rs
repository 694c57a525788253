//! Whether a peer is who it may be.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::{Allowed, Credentials, Identity, IdentityError, TlsSide, provider};

/// Why a certificate's holder may not speak.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// Expired, signed by others, or no certificate at all.
    #[error(transparent)]
    Certificate(Error),
    /// Another number of names than one.
    #[error("the certificate has {0} URI names; expected one, spiffe://MESH/NETWORK/NAME")]
    Names(usize),
    /// A name, but of something else.
    #[error("the certificate's name says not who its holder is")]
    Name(#[source] IdentityError),
    /// Who it is is known, and is not welcome.
    #[error("{0} is not allowed here")]
    NotAllowed(Identity),
}

/// Who a certificate is for, whether it is genuine or not.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Result<Identity, PeerError> {
    let parsed = webpki::EndEntityCert::try_from(certificate);
    let bad = |_| PeerError::Certificate(CertificateError::BadEncoding.into());
    let parsed = parsed.map_err(bad)?;
    let mut names = parsed.valid_uri_names();
    match (names.next(), names.next()) {
        (Some(name), None) => name.parse().map_err(PeerError::Name),
        (None, _) => Err(PeerError::Names(0)),
        (Some(_), Some(_)) => Err(PeerError::Names(2 + names.count())),
    }
}

/// Whether `roots` vouch for a server with this certificate. Its host name does not matter.
pub(super) fn as_server(
    certificate: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let all = algorithms().all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, between, now, all)
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Whether the peer of a forward whose end is `side` may speak.
pub(super) fn check(
    side: TlsSide,
    (certificate, between): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    now: UnixTime,
    credentials: &Credentials,
    allow: &[Allowed],
) -> Result<Identity, PeerError> {
    match side {
        TlsSide::Originate => as_server(certificate, between, &credentials.roots, now),
        TlsSide::Terminate => (credentials.clients)
            .verify_client_cert(certificate, between, now)
            .map(drop),
    }
    .map_err(PeerError::Certificate)?;
    let identity = identity(certificate)?;
    if !allow.iter().any(|allowed| allowed.includes(&identity)) {
        return Err(PeerError::NotAllowed(identity));
    }
    Ok(identity)
}

/// Asks [`check`] during a handshake, so that the peer is told by an alert.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) credentials: Arc<Credentials>,
    pub(super) allow: Arc<[Allowed]>,
}

impl Verifier {
    fn check(
        &self,
        side: TlsSide,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> Result<(), Error> {
        match check(side, chain, now, &self.credentials, &self.allow) {
            Ok(_) => Ok(()),
            Err(PeerError::Certificate(error)) => Err(error),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(TlsSide::Originate, (end_entity, intermediates), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.credentials.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(TlsSide::Terminate, (end_entity, intermediates), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn only_tls13() -> Error {
    Error::General("TLS 1.2 is not spoken between ambassadors".to_owned())
}
