//! Where an image is pulled from, and what its errors mean for a pull.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::{Client, secrets};
use tokio::sync::OnceCell;

use super::{PullError, PullOptions};
use crate::image::digest::Digest;
use crate::image::reference::{DEFAULT_REGISTRY, Reference};
use crate::image::registry::{Endpoint, EndpointError, RegistryAuth, Trouble, secret, trouble};

/// Tags asked for at a time, and more than any repository has.
const TAGS_AT_A_TIME: usize = 1000;
const MAX_TAGS: usize = 100_000;

/// The registry of an image, or a mirror of it.
pub(in crate::image) struct Source {
    pub(super) client: Client,
    pub(super) auth: secrets::RegistryAuth,
    /// Where it is asked for.
    pub(super) endpoint: Endpoint,
    pub(super) image: Reference,
    /// What the registry gave for that, if it gives any.
    pub(super) token: OnceCell<Option<String>>,
}

/// A mirror that was not asked yet.
pub(super) struct ClosedMirror<'a> {
    endpoint: Result<Endpoint, EndpointError>,
    name: String,
    image: &'a Reference,
}

impl ClosedMirror<'_> {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// An account is Docker Hub's, and no mirror's concern.
    pub(super) async fn open(self) -> Result<Source, PullError> {
        Source::at(self.endpoint?, self.image, &RegistryAuth::Anonymous).await
    }
}

/// What comes of a blob.
pub(in crate::image) struct Blob {
    /// Bytes there should be in all, 0 if unknown.
    pub(super) length: u64,
    /// What was asked for of it.
    pub(in crate::image) stream: BoxStream<'static, io::Result<Bytes>>,
}

impl Source {
    /// The registry that the image's name gives.
    pub(in crate::image) async fn of(
        image: &Reference,
        options: &PullOptions,
    ) -> Result<Self, PullError> {
        let endpoint = Endpoint::find(image.registry(), &options.registries).await?;
        Self::at(endpoint, image, &options.auth).await
    }

    /// The mirrors to be asked before it: Docker Hub alone has any.
    pub(super) fn mirrors<'a>(
        image: &'a Reference,
        options: &'a PullOptions,
    ) -> impl Iterator<Item = ClosedMirror<'a>> {
        let settings = &options.registries;
        let mirrors = settings
            .mirrors
            .iter()
            .filter(|_| image.registry() == DEFAULT_REGISTRY);
        mirrors.map(move |mirror| ClosedMirror {
            endpoint: Endpoint::mirror(mirror, settings),
            name: mirror.to_string(),
            image,
        })
    }

    async fn at(
        endpoint: Endpoint,
        image: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Self, PullError> {
        Ok(Self {
            client: endpoint.oci()?,
            auth: secret(&endpoint, auth, image.repository(), "pull").await?,
            endpoint,
            image: image.clone(),
            token: OnceCell::new(),
        })
    }

    /// All tags of the repository, sorted.
    pub(super) async fn tags(&self) -> Result<Vec<String>, PullError> {
        let address = self.address(&self.image);
        let mut tags = BTreeSet::new();
        let mut last: Option<String> = None;
        while tags.len() < MAX_TAGS {
            let page = self
                .client
                .list_tags(&address, &self.auth, Some(TAGS_AT_A_TIME), last.as_deref())
                .await;
            let page =
                page.map_err(|error| self.failed(error, self.image.familiar_repository()))?;
            let before = tags.len();
            last = page.tags.last().cloned();
            let is_full = page.tags.len() >= TAGS_AT_A_TIME;
            tags.extend(page.tags);
            if !is_full || tags.len() == before {
                break;
            }
        }
        Ok(tags.into_iter().collect())
    }

    /// The bytes of a blob from `offset` on.
    pub(in crate::image) async fn blob(
        &self,
        blob: Digest,
        offset: u64,
    ) -> Result<Blob, PullError> {
        let descriptor = OciDescriptor {
            digest: blob.to_string(),
            ..OciDescriptor::default()
        };
        let failed = |error| self.failed(error, blob.to_string());
        let address = self.address(&self.image);
        if offset == 0 {
            let pulled = self.client.pull_blob_stream(&address, &descriptor).await;
            let sized = pulled.map_err(failed)?;
            return Ok(Blob {
                length: sized.content_length.unwrap_or(0),
                stream: sized.stream,
            });
        }
        let pulled = self
            .client
            .pull_blob_stream_partial(&address, &descriptor, offset, None)
            .await;
        Ok(match pulled.map_err(failed)? {
            BlobResponse::Partial(sized) => Blob {
                length: sized.content_length.map_or(0, |rest| rest + offset),
                stream: sized.stream,
            },
            // It does not know how to begin in the middle.
            BlobResponse::Full(sized) => Blob {
                length: sized.content_length.unwrap_or(0),
                stream: skip(sized.stream, offset),
            },
        })
    }

    pub(in crate::image) fn broken(&self, blob: Digest, source: io::Error) -> PullError {
        PullError::Download {
            registry: self.endpoint.host.clone(),
            blob,
            source,
        }
    }

    pub(super) fn failed(&self, error: OciDistributionError, name: String) -> PullError {
        let registry = self.endpoint.host.clone();
        let source = Box::new(error);
        match trouble(&source) {
            Trouble::Denied => PullError::Denied {
                repository: self.image.familiar_repository(),
            },
            Trouble::Absent => PullError::NotFound { name },
            Trouble::Corrupt => PullError::Corrupt {
                registry,
                name,
                source,
            },
            Trouble::Unreachable => PullError::Unreachable {
                registry,
                name,
                source,
            },
            Trouble::Other => PullError::Registry {
                registry,
                name,
                source,
            },
        }
    }

    pub(super) fn address(&self, reference: &Reference) -> oci_client::Reference {
        let (host, repository) = (
            self.endpoint.host.clone(),
            reference.repository().to_owned(),
        );
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                oci_client::Reference::with_digest(host, repository, digest.to_string())
            }
            (None, tag) => oci_client::Reference::with_tag(
                host,
                repository,
                tag.unwrap_or("latest").to_owned(),
            ),
        }
    }
}

/// All but the first `left` bytes.
fn skip(
    stream: BoxStream<'static, io::Result<Bytes>>,
    mut left: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let cut = move |mut data: Bytes| {
        let skipped = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
        left -= skipped as u64;
        data.split_off(skipped)
    };
    stream.map_ok(cut).boxed()
}
