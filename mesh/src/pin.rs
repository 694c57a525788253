//! The authority is known by the hash of its public key, before it vouches for anything.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rcgen::PublicKeyData as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};

use crate::hex;
use crate::key::PublicKey;
use crate::names::MeshId;

/// SHA-256 of a public key with its algorithm, as it stands in a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fingerprint(pub(crate) [u8; 32]);

/// Why the peer is not who admits hosts to the mesh.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Impostor {
    #[error("its authority's key is another one than that in the token")]
    Authority,
    #[error("its certificate is not that of who admits hosts")]
    Role,
}

impl Fingerprint {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
        Some(Self(Sha256::digest(&anchor.subject_public_key_info).into()))
    }

    pub(crate) fn of_key(key: &PublicKey) -> Self {
        // As it stands in a certificate, but for the tag and the length of the whole.
        let info = key.subject_public_key_info();
        Self(Sha256::digest(&info[2..]).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        hex::decode_array(text).map(Self).ok_or(())
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes a server for who admits hosts to `mesh` if its chain ends in the certificate of `authority`.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) mesh: MeshId,
    pub(crate) authority: Fingerprint,
}

impl Pinned {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let impostor = |why| CertificateError::Other(OtherError(Arc::new(why))).into();
        let (root, between) = above
            .split_last()
            .filter(|(root, _)| Fingerprint::of(root) == Some(self.authority))
            .ok_or_else(|| impostor(Impostor::Authority))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, now, algorithms)?;
        let names = webpki::EndEntityCert::try_from(certificate)
            .map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let mut names = names.valid_uri_names();
        match (names.next(), names.next()) {
            (Some(name), None) if name == self.mesh.authority() => Ok(()),
            _ => Err(impostor(Impostor::Role)),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// TLS 1.2 is never offered.
fn too_old() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

/// Whether who sent `message` has the key of `cert`.
fn verify(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}

/// Takes a server for who has one certain key, whatever its certificate says.
#[derive(Debug)]
pub(crate) struct OneKey(pub(crate) Fingerprint);

/// Lets every client show its key. Whether it is welcome is decided by who knows it by that.
#[derive(Debug)]
pub(crate) struct AnyKey;

impl ServerCertVerifier for OneKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match Fingerprint::of(end_entity) == Some(self.0) {
            true => Ok(ServerCertVerified::assertion()),
            false => {
                let why = OtherError(Arc::new(Impostor::Authority));
                Err(CertificateError::Other(why).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        too_old()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::authority::{Authority, now};
    use crate::key::Key;
    use crate::names::NodeId;

    const HOUR: i64 = 60 * 60;

    /// What a clock says that is wrong by some hours.
    fn clock(hours: i64) -> UnixTime {
        let seconds = now().checked_add_signed(hours * HOUR).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn clocks_may_differ_by_most_of_a_day_and_ahead_by_what_is_left_of_a_certificates_life() {
        let directory = tempfile::tempdir().unwrap();
        let (manager, week) = (
            "ab".repeat(16).parse::<NodeId>().unwrap(),
            Duration::from_secs(7 * 24 * 60 * 60),
        );
        let authority = Authority::found(directory.path(), &manager, week).unwrap();
        let (_, [role, root]) = authority.role().unwrap();
        let pinned = Pinned {
            mesh: authority.mesh(),
            authority: Fingerprint::of(&root).unwrap(),
        };
        let admits = |hours| pinned.check(&role, std::slice::from_ref(&root), clock(hours));
        for hours in [-23, -1, 0, 1, 23] {
            admits(hours).unwrap_or_else(|error| panic!("{hours} h: {error}"));
        }
        assert!(admits(-25).is_err() && admits(25).is_err());

        let address = [198, 18, 0, 1].into();
        let papers = authority.enter_own("m", Key::generate().public(), address);
        let member = CertificateDer::from_pem_slice(papers.unwrap().certificate.as_bytes());
        let member = member.unwrap();
        let parsed = ParsedCertificate::try_from(&member).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let algorithms = provider().signature_verification_algorithms.all;
        let is_good = |hours| {
            let at = clock(hours);
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], at, algorithms).is_ok()
        };
        assert!([-23, -1, 1, 7 * 24 - 1].into_iter().all(is_good));
        assert!(!is_good(-25) && !is_good(7 * 24 + 1));
    }
}
