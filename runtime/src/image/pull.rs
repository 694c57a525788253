//! `pull`: an image from a registry.

mod registry;

use std::collections::BTreeSet;
use std::sync::Arc;

use oci_spec::image::{ImageIndex, ImageManifest};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::blob::StoreBlobError;
use super::catalog::Image;
use super::digest::{Digest, InvalidDigest};
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::pipe::{PipeReader, pipe};
use super::platform::Platform;
use super::progress::{LayerProgress, Progress, ProgressStatus};
use super::reference::Reference;
use super::store::{Content, ImageStore};
use registry::Registry;

/// Layers that come in at the same time, as many as Docker's.
const PARALLEL: usize = 3;

/// Who pulls, from where, and which variant.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Who asks.
    pub auth: RegistryAuth,
    /// Registries, as `HOST[:PORT]`, that are spoken to without TLS. Those on this machine always are.
    pub insecure_registries: Vec<String>,
    /// Which variant of a multi-platform image; the host's if none.
    pub platform: Option<Platform>,
}

/// How the registry is told who asks.
#[derive(Clone, Default)]
pub enum RegistryAuth {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A name and a password, or an access token in its place.
    Basic {
        /// The account.
        username: String,
        /// Its secret.
        password: String,
    },
    /// A bearer token that the registry itself has given.
    Token(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry does not know the repository, or not for this account.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login'"
    )]
    Denied {
        /// The repository, short.
        repository: String,
    },
    /// The repository has no such tag or digest.
    #[error("manifest for {name} not found: manifest unknown")]
    NotFound {
        /// The image, short.
        name: String,
    },
    /// Nobody answers there.
    #[error("registry {registry} cannot be reached")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// With the errno at its end.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// The registry answered with an error.
    #[error("registry {registry} failed for {name}")]
    Registry {
        /// Host and port.
        registry: String,
        /// The image, short.
        name: String,
        /// What it said.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// The client could not be set up.
    #[error("set up the registry client")]
    Client(#[source] Box<oci_client::errors::OciDistributionError>),
    /// What came is not what its digest promises.
    #[error("registry {registry} served something else than {name}")]
    Corrupt {
        /// Host and port.
        registry: String,
        /// The image or blob.
        name: String,
        /// Expected and found.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// The connection broke, or what came has the wrong digest.
    #[error("download of {blob} from {registry} failed")]
    Download {
        /// Host and port.
        registry: String,
        /// The blob.
        blob: Digest,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A manifest larger than allowed.
    #[error("the manifest of {name} has {size} bytes, more than the {limit} allowed")]
    ManifestTooLarge {
        /// The image, short.
        name: String,
        /// Bytes that came.
        size: usize,
        /// What is allowed.
        limit: u64,
    },
    /// A manifest that is none.
    #[error("the manifest of {name} is malformed")]
    Manifest {
        /// The image, short.
        name: String,
        /// Where and how.
        source: serde_json::Error,
    },
    /// The image is not built for the platform.
    #[error("no matching manifest for {platform} in the manifest list of {name}")]
    Platform {
        /// The image, short.
        name: String,
        /// What was asked for.
        platform: Platform,
    },
    /// A digest in the manifest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A blob cannot be stored.
    #[error("store {blob}")]
    Store {
        /// The blob.
        blob: Digest,
        /// Why not.
        source: StoreBlobError,
    },
    /// What came makes no image.
    #[error("install {name}")]
    Install {
        /// The image, short.
        name: String,
        /// Why not.
        source: InstallError,
    },
    /// The thread that did it died.
    #[error("the download stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl ImageStore {
    /// Pulls an image and gives it the name it was asked for by.
    ///
    /// Layers come in three at a time and are unpacked in order; those already here are not asked for. Two pulls
    /// of one layer share the work. If it fails or is dropped, what came of it is removed. `progress` is never
    /// waited for: with the channel full, reports are lost.
    ///
    /// The process must have installed a rustls provider.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    pub async fn pull(
        &self,
        reference: &Reference,
        options: PullOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Image, PullError> {
        let pull = Pull {
            registry: Arc::new(Registry::new(reference, &options)?),
            lease: Arc::new(Lease::new(&self.inner)),
            name: reference.familiar(),
            progress,
        };
        let platform = options.platform.unwrap_or_else(Platform::host);
        let (plan, digest) = pull.plan(reference, &platform).await?;
        let failed = |source| PullError::Install {
            name: reference.familiar(),
            source,
        };

        let turns = Arc::new(Semaphore::new(PARALLEL));
        let mut downloads = Vec::with_capacity(plan.layers.len());
        for layer in &plan.layers {
            let here =
                self.inner.layer_size(layer.id).is_some() && self.inner.blobs.has(layer.blob);
            let progress = pull.layer(layer.blob);
            progress.say(if here {
                ProgressStatus::AlreadyExists
            } else {
                ProgressStatus::Pulling
            });
            downloads.push((!here).then(|| pull.start_download(layer.blob, &turns)));
        }
        let mut size = 0;
        for (index, download) in downloads.into_iter().enumerate() {
            let progress = pull.layer(plan.layers[index].blob);
            let is_new = download.is_some();
            if let Some(download) = download {
                download.await??;
            }
            size += plan
                .make_layer(&pull.lease, index, progress)
                .await
                .map_err(failed)?;
            if is_new {
                pull.layer(plan.layers[index].blob)
                    .say(ProgressStatus::Complete);
            }
        }
        let names: BTreeSet<_> = reference.tagged().into_iter().collect();
        let digests = BTreeSet::from([reference.at_digest(digest)]);
        plan.record(&pull.lease, size, names, digests)
            .await
            .map_err(failed)
    }
}

struct Pull {
    registry: Arc<Registry>,
    lease: Arc<Lease>,
    name: String,
    progress: mpsc::Sender<Progress>,
}

impl Pull {
    /// Fetches everything but the layers. Gives back also the digest by which the registry knows the image.
    async fn plan(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(Plan, Digest), PullError> {
        let (mut content, digest) = self.manifest(reference).await?;
        let mut manifest_digest = digest;
        let index =
            serde_json::from_slice::<serde_json::Value>(&content).map_err(|e| self.malformed(e))?;
        if index.get("manifests").is_some() {
            let index: ImageIndex = serde_json::from_value(index).map_err(|e| self.malformed(e))?;
            let chosen = platform.choose(&index).ok_or_else(|| PullError::Platform {
                name: self.name.clone(),
                platform: platform.clone(),
            })?;
            let chosen: Digest = chosen.digest().to_string().parse()?;
            (content, manifest_digest) = self.manifest(&reference.at_digest(chosen)).await?;
        }
        let manifest: ImageManifest =
            serde_json::from_slice(&content).map_err(|e| self.malformed(e))?;
        let id: Digest = manifest.config().digest().to_string().parse()?;
        let blobs = manifest
            .layers()
            .iter()
            .map(|layer| layer.digest().to_string().parse());
        let blobs = blobs.collect::<Result<Vec<Digest>, _>>()?;
        let limit = self.lease.store().limits.metadata_bytes;
        download(
            Arc::clone(&self.registry),
            Arc::clone(&self.lease),
            id,
            limit,
            None,
        )
        .await?;

        let lease = Arc::clone(&self.lease);
        let plan = move || {
            let stored = lease.store().blobs.put(&content, &lease);
            let stored = stored.map_err(|source| PullError::Store {
                blob: manifest_digest,
                source,
            })?;
            Ok::<_, PullError>(Plan::new(&lease, id, stored, &blobs))
        };
        let planned = tokio::task::spawn_blocking(plan).await??;
        let plan = planned.map_err(|source| PullError::Install {
            name: self.name.clone(),
            source,
        })?;
        Ok((plan, digest))
    }

    async fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Digest), PullError> {
        let content = self.registry.manifest(reference).await?;
        let limit = self.lease.store().limits.metadata_bytes;
        if content.len() as u64 > limit {
            return Err(PullError::ManifestTooLarge {
                name: self.name.clone(),
                size: content.len(),
                limit,
            });
        }
        let digest = Digest::of(&content);
        Ok((content, digest))
    }

    fn malformed(&self, source: serde_json::Error) -> PullError {
        PullError::Manifest {
            name: self.name.clone(),
            source,
        }
    }

    fn layer(&self, blob: Digest) -> LayerProgress {
        LayerProgress::new(blob.short(), self.progress.clone())
    }

    fn start_download(
        &self,
        blob: Digest,
        turns: &Arc<Semaphore>,
    ) -> AbortOnDropHandle<Result<(), PullError>> {
        let (registry, lease) = (Arc::clone(&self.registry), Arc::clone(&self.lease));
        let turns = Arc::clone(turns);
        let progress = self.layer(blob);
        let limit = lease.store().limits.blob_bytes;
        AbortOnDropHandle::new(tokio::spawn(async move {
            let _turn = turns.acquire_owned().await.expect("nobody closes it");
            download(registry, lease, blob, limit, Some(progress)).await
        }))
    }
}

/// Fetches one blob of at most `limit` bytes, unless it is here by the time its turn comes.
async fn download(
    registry: Arc<Registry>,
    lease: Arc<Lease>,
    blob: Digest,
    limit: u64,
    progress: Option<LayerProgress>,
) -> Result<(), PullError> {
    lease.pin(Content::Blob(blob));
    let making = lease.store().maker(Content::Blob(blob)).lock_owned().await;
    if lease.store().blobs.has(blob) {
        if let Some(progress) = progress {
            progress.say(ProgressStatus::Downloaded);
        }
        return Ok(());
    }
    let (length, stream) = registry.blob(blob).await?;
    let (writer, reader) = pipe();
    let write = move || {
        let (lease, _making) = (lease, making); // until the file is whole or gone, though nobody waits
        write_blob(&lease, reader, blob, limit, length, progress)
    };
    let write = tokio::task::spawn_blocking(write);
    let sent = writer.send_all(stream).await;
    let written = write.await?;
    sent.map_err(|source| registry.broken(blob, source))?;
    written.map_err(|source| PullError::Store { blob, source })
}

fn write_blob(
    lease: &Lease,
    mut reader: PipeReader,
    blob: Digest,
    limit: u64,
    length: u64,
    mut progress: Option<LayerProgress>,
) -> Result<(), StoreBlobError> {
    let blobs = &lease.store().blobs;
    let mut writer = blobs.create(limit)?;
    let mut done = 0;
    let broken = |source| StoreBlobError::Io {
        path: blobs.path(blob),
        source,
    };
    while let Some(chunk) = reader.next_chunk().map_err(broken)? {
        writer.write(&chunk)?;
        done += chunk.len() as u64;
        if let Some(progress) = &mut progress {
            progress.tick(ProgressStatus::Downloading, done, length);
        }
    }
    if let Some(progress) = &progress {
        progress.say(ProgressStatus::Verifying);
    }
    writer.commit(Some(blob), lease)?;
    if let Some(progress) = &progress {
        progress.say(ProgressStatus::Downloaded);
    }
    Ok(())
}
