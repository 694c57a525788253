//! One registry as one pull speaks to it, and what its errors mean.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use oci_client::{Client, secrets};

use super::{PullError, PullOptions, RegistryAuth};
use crate::image::digest::Digest;
use crate::image::reference::Reference;

/// How long a registry may take to accept a connection, and to send the next bytes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// What manifests are understood. Schema 1 has been gone from registries for years.
const MANIFESTS: &[&str] = &[
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

pub(super) struct Registry {
    client: Client,
    auth: secrets::RegistryAuth,
    image: Reference,
}

impl Registry {
    pub(super) fn new(image: &Reference, options: &PullOptions) -> Result<Self, PullError> {
        let is_plain = image.is_loopback()
            || options
                .insecure_registries
                .iter()
                .any(|registry| registry == image.registry());
        let config = ClientConfig {
            protocol: if is_plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("nuncio/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client =
            Client::try_from(config).map_err(|error| PullError::Client(Box::new(error)))?;
        let auth = match options.auth.clone() {
            RegistryAuth::Anonymous => secrets::RegistryAuth::Anonymous,
            RegistryAuth::Basic { username, password } => {
                secrets::RegistryAuth::Basic(username, password)
            }
            RegistryAuth::Token(token) => secrets::RegistryAuth::Bearer(token),
        };
        Ok(Self {
            client,
            auth,
            image: image.clone(),
        })
    }

    /// The manifest or index as served; one asked for by digest has that digest.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Vec<u8>, PullError> {
        let pulled = self
            .client
            .pull_manifest_raw(&address(reference), &self.auth, MANIFESTS)
            .await;
        let (content, _) = pulled.map_err(|error| self.failed(error, reference.familiar()))?;
        Ok(content.into())
    }

    /// The bytes of a blob, and how many there should be, 0 if unknown. They are verified to their end.
    pub(super) async fn blob(
        &self,
        blob: Digest,
    ) -> Result<(u64, BoxStream<'static, io::Result<Bytes>>), PullError> {
        let descriptor = OciDescriptor {
            digest: blob.to_string(),
            ..OciDescriptor::default()
        };
        let pulled = self
            .client
            .pull_blob_stream(&address(&self.image), &descriptor)
            .await;
        let sized = pulled.map_err(|error| self.failed(error, blob.to_string()))?;
        Ok((sized.content_length.unwrap_or(0), sized.stream))
    }

    pub(super) fn broken(&self, blob: Digest, source: io::Error) -> PullError {
        PullError::Download {
            registry: self.image.registry().to_owned(),
            blob,
            source,
        }
    }

    fn failed(&self, error: OciDistributionError, name: String) -> PullError {
        let registry = self.image.registry().to_owned();
        match error {
            _ if is_denial(&error) => PullError::Denied {
                repository: self.image.familiar_repository(),
            },
            _ if is_absence(&error) => PullError::NotFound { name },
            OciDistributionError::DigestError(_) => PullError::Corrupt {
                registry,
                name,
                source: Box::new(error),
            },
            OciDistributionError::RequestError(_) if is_unreachable(&error) => {
                PullError::Unreachable {
                    registry,
                    source: Box::new(error),
                }
            }
            _ => PullError::Registry {
                registry,
                name,
                source: Box::new(error),
            },
        }
    }
}

fn address(reference: &Reference) -> oci_client::Reference {
    let (registry, repository) = (
        reference.registry().to_owned(),
        reference.repository().to_owned(),
    );
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => {
            oci_client::Reference::with_digest(registry, repository, digest.to_string())
        }
        (None, tag) => oci_client::Reference::with_tag(
            registry,
            repository,
            tag.unwrap_or("latest").to_owned(),
        ),
    }
}

fn codes(error: &OciDistributionError) -> impl Iterator<Item = &OciErrorCode> {
    let errors = match error {
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.as_slice(),
        _ => &[],
    };
    errors.iter().map(|error| &error.code)
}

fn is_denial(error: &OciDistributionError) -> bool {
    use OciErrorCode::{Denied, NameUnknown, Unauthorized};
    match error {
        OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::UnauthorizedError { .. } => true,
        _ => codes(error).any(|code| matches!(code, Denied | NameUnknown | Unauthorized)),
    }
}

fn is_absence(error: &OciDistributionError) -> bool {
    use OciErrorCode::{BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NotFound};
    match error {
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => true,
        _ => codes(error).any(|code| {
            matches!(
                code,
                BlobUnknown | ManifestBlobUnknown | ManifestUnknown | NotFound
            )
        }),
    }
}

/// Whether the failure came from below HTTP: the chain ends in an errno, or in a name that has no address.
fn is_unreachable(error: &OciDistributionError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if cause.is::<io::Error>()
            || text.contains("client error (Connect)")
            || text.contains("timed out")
        {
            return true;
        }
        source = cause.source();
    }
    false
}
