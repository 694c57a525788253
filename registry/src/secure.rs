//! How a registry is trusted and how it knows who comes: certificates, keys, user and password.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use etcd_client::{Certificate, Identity, TlsOptions};

/// Files in PEM by which a registry at `https://` and its client know each other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// Who vouches for the registry; if none is given, whom this machine trusts.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, with those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
}

/// A user of the registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// What proves that it is the user.
    pub password: Password,
}

/// A password, which is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Password(String);

impl Password {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Why there can be no TLS with the files given.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}, for TLS to the registry")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of another kind.
    #[error("{path} is no {what} in PEM: it lacks a line with {begin:?}")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What such a file has in it.
        begin: &'static str,
    },
    /// One of a pair is missing.
    #[error("a client certificate for the registry goes with its key: give both or neither")]
    Half,
    /// They would not be used.
    #[error(
        "certificates are given for a registry at {0}, which is reached without TLS: write https://"
    )]
    Plain(String),
}

impl TlsFiles {
    pub(crate) fn any(&self) -> bool {
        self.ca.is_some() || self.certificate.is_some() || self.key.is_some()
    }

    /// Reads the files.
    pub(crate) fn options(&self) -> Result<TlsOptions, TlsError> {
        let mut options = match &self.ca {
            Some(path) => {
                let pem = read(path, "certificate", "BEGIN CERTIFICATE")?;
                TlsOptions::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => TlsOptions::new().with_enabled_roots(),
        };
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let certificate = read(certificate, "certificate", "BEGIN CERTIFICATE")?;
                let key = read(key, "private key", "PRIVATE KEY")?;
                options = options.identity(Identity::from_pem(certificate, key));
            }
            (None, None) => {}
            _ => return Err(TlsError::Half),
        }
        Ok(options)
    }
}

fn read(path: &Path, what: &'static str, begin: &'static str) -> Result<String, TlsError> {
    let path = path.to_owned();
    let pem = match fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(source) => return Err(TlsError::Read { path, source }),
    };
    if !pem.contains(begin) {
        return Err(TlsError::NotPem { path, what, begin });
    }
    Ok(pem)
}
