//! The certificates by which a daemon and those who use it over TCP know each other, in files as Docker's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Three files in PEM: who is believed, what is shown, and the key to that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Papers {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PapersError {
    #[error("{what} {}: cannot be read", path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{what} {}: not PEM as it should be", path.display())]
    Pem {
        what: &'static str,
        path: PathBuf,
        source: pem::Error,
    },
    #[error("{what} {}: has none", path.display())]
    Empty { what: &'static str, path: PathBuf },
    #[error("authority {}: of no use", path.display())]
    Authority {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("authority {}: nobody can be known by it", path.display())]
    Verifier {
        path: PathBuf,
        source: rustls::client::VerifierBuilderError,
    },
    #[error("certificate {} and key {}: do not belong together", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
}

type Chain = Vec<CertificateDer<'static>>;

impl Papers {
    /// The files as Docker calls them.
    pub(crate) fn below(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.pem"),
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        }
    }

    /// For a daemon: TLS 1.3, and nobody is let in who has no certificate of the authority's.
    ///
    /// # Errors
    ///
    /// [`PapersError`] names the file that is wrong.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, PapersError> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()?)).build();
        let verifier = verifier.map_err(|source| PapersError::Verifier {
            path: self.authority.clone(),
            source,
        })?;
        let (chain, key) = self.own()?;
        let mut config = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|source| self.pair(source))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For who uses a daemon, which has to prove that it is the host that was asked for.
    ///
    /// # Errors
    ///
    /// [`PapersError`] names the file that is wrong.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, PapersError> {
        let roots = self.roots()?;
        let (chain, key) = self.own()?;
        ClientConfig::builder_with_protocol_versions(&[&TLS13])
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|source| self.pair(source))
    }

    fn roots(&self) -> Result<RootCertStore, PapersError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain("authority", &self.authority)? {
            roots
                .add(certificate)
                .map_err(|source| PapersError::Authority {
                    path: self.authority.clone(),
                    source,
                })?;
        }
        Ok(roots)
    }

    fn own(&self) -> Result<(Chain, PrivateKeyDer<'static>), PapersError> {
        let chain = chain("certificate", &self.certificate)?;
        let bytes = read("key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| match source {
            pem::Error::NoItemsFound => PapersError::Empty {
                what: "key",
                path: self.key.clone(),
            },
            source => PapersError::Pem {
                what: "key",
                path: self.key.clone(),
                source,
            },
        })?;
        Ok((chain, key))
    }

    fn pair(&self, source: rustls::Error) -> PapersError {
        PapersError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

fn chain(what: &'static str, path: &Path) -> Result<Chain, PapersError> {
    let bytes = read(what, path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Chain, _>>();
    let chain = chain.map_err(|source| PapersError::Pem {
        what,
        path: path.to_owned(),
        source,
    })?;
    if chain.is_empty() {
        return Err(PapersError::Empty {
            what,
            path: path.to_owned(),
        });
    }
    Ok(chain)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, PapersError> {
    std::fs::read(path).map_err(|source| PapersError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}
