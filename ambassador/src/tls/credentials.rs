//! What one ambassador shows to others, and whose word it takes for who they are.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::verify::{self, PeerError};
use super::{Identity, provider};

/// A certificate with its key, and the authorities that vouch for peers; they fit together.
pub struct Credentials {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    identity: Identity,
}

/// One of the three things that credentials are made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The certificate, and those that lead from it to an authority.
    Certificate,
    /// Its private key.
    Key,
    /// The authorities.
    Bundle,
}

/// Why certificate, key and bundle are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Text that is no PEM.
    #[error("the {0} is not PEM")]
    Pem(Part, #[source] pem::Error),
    /// PEM without what is looked for.
    #[error("there is no {0} in it; expected PEM that begins with -----BEGIN {label}-----",
        label = if *.0 == Part::Key { "PRIVATE KEY" } else { "CERTIFICATE" })]
    Absent(Part),
    /// Cryptography that is not known here.
    #[error("the key cannot be used")]
    Key(#[source] rustls::Error),
    /// Of one renewal only one half is there, or of two one half each.
    #[error("the key is not the certificate's; renew both together")]
    Mismatch(#[source] rustls::Error),
    /// Its name says nothing about who its holder is in the mesh, or its time is not now.
    #[error("the certificate cannot be shown to anybody")]
    Certificate(#[source] PeerError),
    /// Not a certificate that can vouch for others.
    #[error("a certificate of the bundle cannot be used")]
    Authority(#[source] rustls::Error),
    /// No authority makes for a verifier.
    #[error("the bundle verifies nobody")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Bundle => "trust bundle",
        })
    }
}

impl CredentialsError {
    /// Which of the three is to blame.
    #[must_use]
    pub fn part(&self) -> Part {
        match self {
            Self::Pem(part, _) | Self::Absent(part) => *part,
            Self::Key(_) | Self::Mismatch(_) => Part::Key,
            Self::Certificate(_) => Part::Certificate,
            Self::Authority(_) | Self::Verifier(_) => Part::Bundle,
        }
    }
}

impl Credentials {
    /// Reads them from PEM: the certificate, followed by those between it and an authority; its
    /// private key; the authorities' certificates.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if one cannot be read, the key is another's, the certificate names no
    /// [`Identity`], or it is not valid now.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        bundle: &[u8],
    ) -> Result<Self, CredentialsError> {
        let chain = certificates(Part::Certificate, certificate)?;
        let key = match PrivateKeyDer::from_pem_slice(key) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) => return Err(CredentialsError::Absent(Part::Key)),
            Err(error) => return Err(CredentialsError::Pem(Part::Key, error)),
        };
        let key = provider().key_provider.load_private_key(key);
        let certified = CertifiedKey::new(chain, key.map_err(CredentialsError::Key)?);
        certified.keys_match().map_err(CredentialsError::Mismatch)?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(Part::Bundle, bundle)? {
            roots.add(authority).map_err(CredentialsError::Authority)?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(CredentialsError::Verifier)?;
        let identity =
            verify::identity(&certified.cert[0]).map_err(CredentialsError::Certificate)?;
        let credentials = Self {
            certified: Arc::new(certified),
            roots,
            clients,
            identity,
        };
        credentials.valid_now()?;
        Ok(credentials)
    }

    /// Who this one is to others.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Others may know authorities that this one does not: only time is judged.
    pub(super) fn valid_now(&self) -> Result<(), CredentialsError> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        let (own, between) = self
            .certified
            .cert
            .split_first()
            .expect("checked when read");
        match verify::as_server(own, between, &self.roots, UnixTime::now()) {
            Err(
                error @ rustls::Error::InvalidCertificate(
                    Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
                ),
            ) => Err(CredentialsError::Certificate(PeerError::Certificate(error))),
            _ => Ok(()),
        }
    }
}

fn certificates(part: Part, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| CredentialsError::Pem(part, error))?;
    if all.is_empty() {
        return Err(CredentialsError::Absent(part));
    }
    Ok(all)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
