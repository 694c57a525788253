//! One registry's address: whether TLS protects it, and which certificates are trusted there.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use oci_client::Client;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;

use super::settings::{Mirror, RegistrySettings};
use super::{AGENT, CONNECT_TIMEOUT, READ_TIMEOUT};

/// How long a registry that need not have TLS may take to show that it has.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Where Docker Hub is, whose name is another.
const HUB: (&str, &str) = ("docker.io", "index.docker.io");

/// Why a registry cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A certificate that is to be trusted cannot be read.
    #[error("read the certificate {}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// This host trusts nobody.
    #[error("find certificates to trust registries by: install the package ca-certificates")]
    Roots(#[source] reqwest::Error),
    /// The client could not be set up.
    #[error("set up the registry client")]
    Client(#[source] Box<OciDistributionError>),
    /// The client could not be set up.
    #[error("set up the registry client")]
    Http(#[source] reqwest::Error),
}

/// Where a registry is, and how it is spoken to.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As image names have it.
    pub(crate) host: String,
    plain: bool,
    verified: bool,
    roots: Vec<Vec<u8>>,
}

impl Endpoint {
    /// Finds out how the registry `host` is reached: those that need not prove who they are have TLS or not.
    pub(crate) async fn find(
        host: &str,
        settings: &RegistrySettings,
    ) -> Result<Self, EndpointError> {
        let endpoint = Self {
            host: host.to_owned(),
            plain: false,
            verified: !settings.is_insecure(host),
            roots: roots(host, settings)?,
        };
        if endpoint.verified {
            return Ok(endpoint);
        }
        let client = endpoint.http()?;
        let probe = client.get(endpoint.url("/v2/")).timeout(PROBE_TIMEOUT);
        let plain = probe.send().await.is_err();
        Ok(Self { plain, ..endpoint })
    }

    /// A mirror says itself whether it has TLS.
    pub(crate) fn mirror(
        mirror: &Mirror,
        settings: &RegistrySettings,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            host: mirror.host.clone(),
            plain: mirror.plain,
            verified: !settings.is_insecure(&mirror.host),
            roots: roots(&mirror.host, settings)?,
        })
    }

    /// A client that speaks the distribution protocol.
    pub(crate) fn oci(&self) -> Result<Client, EndpointError> {
        // oci-client makes a default client besides, which would end the process where that cannot be made
        reqwest::Client::builder()
            .build()
            .map_err(EndpointError::Roots)?;
        let certificate = |pem: &Vec<u8>| Certificate {
            encoding: CertificateEncoding::Pem,
            data: pem.clone(),
        };
        let config = ClientConfig {
            protocol: if self.plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            accept_invalid_certificates: !self.verified,
            extra_root_certificates: self.roots.iter().map(certificate).collect(),
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: AGENT,
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| EndpointError::Client(Box::new(error)))
    }

    /// A client for what is beside the distribution protocol.
    pub(crate) fn http(&self) -> Result<reqwest::Client, EndpointError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .danger_accept_invalid_certs(!self.verified);
        for pem in &self.roots {
            let root = reqwest::Certificate::from_pem(pem).map_err(EndpointError::Http)?;
            builder = builder.add_root_certificate(root);
        }
        builder.build().map_err(EndpointError::Http)
    }

    /// An address there; `path` begins with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.plain { "http" } else { "https" };
        let host = if self.host == HUB.0 {
            HUB.1
        } else {
            &self.host
        };
        format!("{scheme}://{host}{path}")
    }
}

/// The certificates to trust at `host` besides the system's.
fn roots(host: &str, settings: &RegistrySettings) -> Result<Vec<Vec<u8>>, EndpointError> {
    let mut roots = Vec::new();
    for directory in &settings.certificates {
        // No certificates for this host is what is usual.
        let entries = fs::read_dir(directory.join(host)).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
        paths.sort();
        for path in paths {
            let pem = fs::read(&path);
            roots.push(pem.map_err(|source| EndpointError::Certificate { path, source })?);
        }
    }
    Ok(roots)
}
