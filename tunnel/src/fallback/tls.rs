//! TLS 1.3 between two hosts, each of which knows the other by its key alone.

use std::{
    io,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    CertificateError, ClientConfig, ConnectionCommon, DigitallySignedStruct, DistinguishedName,
    Error, ServerConfig, SideData, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{Identity, IdentityKey};

/// What is spoken inside, so that another version of it is refused from the start.
const PROTOCOL: &[u8] = b"nuncio-fallback/1";

/// How a client asks for the identity that it knows the server by: as one more protocol (RFC 7301), which is never chosen.
fn asking_for(key: IdentityKey) -> Vec<u8> {
    format!("nuncio-identity {key}").into_bytes()
}

type IsTrusted = Box<dyn Fn(IdentityKey) -> bool + Send + Sync>;

/// For connections of `own` to the host that has `other`.
pub(super) fn client(own: &Identity, other: IdentityKey) -> Result<ClientConfig, Error> {
    let trust = Trust::new(Box::new(move |key| key == other));
    let resolver = AlwaysResolvesClientRawPublicKeys::new(own.certified());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&trust.provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec(), asking_for(other)];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// For connections to a host that is one of `own`, the newest first, of hosts that are trusted.
pub(super) fn server(own: &[Identity], is_trusted: IsTrusted) -> Result<ServerConfig, Error> {
    let trust = Trust::new(is_trusted);
    let own = own.iter();
    let own = own.map(|identity| (asking_for(identity.public()), identity.certified()));
    let resolver = Shown(own.collect());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&trust.provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(trust))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Agrees on keys, within `patience` or not at all, however slowly the other side sends.
pub(super) fn shake_hands<Side: SideData>(
    tls: &mut ConnectionCommon<Side>,
    mut tcp: &TcpStream,
    patience: Duration,
) -> io::Result<()> {
    let end = Instant::now() + patience;
    while tls.is_handshaking() || tls.wants_write() {
        if Instant::now() >= end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if tls.wants_write() {
            tls.write_tls(&mut tcp)?;
            continue;
        }
        if tls.read_tls(&mut tcp)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Err(error) = tls.process_new_packets() {
            let _ = tls.write_tls(&mut tcp); // tells the other side why
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    Ok(())
}

/// Of a host's identities, by how they are asked for, shows the one that is, or the newest.
#[derive(Debug)]
struct Shown(Vec<(Vec<u8>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut asked = hello.alpn().into_iter().flatten();
        let known = asked.find_map(|word| self.0.iter().find(|(asking, _)| asking == word));
        known.or(self.0.first()).map(|(_, key)| Arc::clone(key))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// Takes those hosts for themselves that have proved a key that is trusted.
struct Trust {
    is_trusted: IsTrusted,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn new(is_trusted: IsTrusted) -> Self {
        Self {
            is_trusted,
            provider: Arc::new(ring::default_provider()),
        }
    }

    fn judge(&self, sent: &CertificateDer<'_>) -> Result<(), Error> {
        match IdentityKey::read(sent) {
            Some(key) if (self.is_trusted)(key) => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        sent: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(sent.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

/// TLS 1.2 is never offered.
fn too_old() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        sent: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(sent).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        sent: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, sent, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Trust {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        sent: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(sent).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        sent: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, sent, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}
