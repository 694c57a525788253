//! `pull`: an image from a registry.

mod error;
mod registry;

use std::collections::BTreeSet;
use std::sync::Arc;

use oci_spec::image::{ImageIndex, ImageManifest};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::blob::StoreBlobError;
use super::catalog::Image;
use super::digest::Digest;
use super::install::Plan;
use super::layer::LayerSpec;
use super::lease::Lease;
use super::pipe::{PipeReader, pipe};
use super::platform::Platform;
use super::progress::{LayerProgress, Progress, ProgressStatus};
use super::reference::Reference;
use super::store::{Content, ImageStore};
pub use error::PullError;
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
            to: progress,
        };
        let platform = options.platform.unwrap_or_else(Platform::host);
        let pulled = pull.run(reference, &platform).await;
        if pulled.is_err() {
            pull.lease.settle().await; // other layers may still be coming in
        }
        pulled
    }
}

struct Pull {
    registry: Arc<Registry>,
    lease: Arc<Lease>,
    name: String,
    to: mpsc::Sender<Progress>,
}

impl Pull {
    async fn run(&self, reference: &Reference, platform: &Platform) -> Result<Image, PullError> {
        let (plan, digest) = self.plan(reference, platform).await?;
        let failed = |source| PullError::Install {
            name: self.name.clone(),
            source: Box::new(source),
        };
        let turns = Arc::new(Semaphore::new(PARALLEL));
        let start = |layer: &LayerSpec| self.start_layer(layer, &turns);
        let downloads: Vec<_> = plan.layers.iter().map(start).collect();
        let mut size = 0;
        for (index, download) in downloads.into_iter().enumerate() {
            let blob = plan.layers[index].blob;
            let is_new = download.is_some();
            if let Some(download) = download {
                download.await??;
            }
            size += plan
                .make_layer(&self.lease, index, self.progress(blob))
                .await
                .map_err(failed)?;
            if is_new {
                self.progress(blob).say(ProgressStatus::Complete);
            }
        }
        let names: BTreeSet<_> = reference.tagged().into_iter().collect();
        let digests = BTreeSet::from([reference.at_digest(digest)]);
        plan.record(&self.lease, size, names, digests)
            .await
            .map_err(failed)
    }

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
        let planned = self.lease.spawn_blocking(plan).await??;
        let plan = planned.map_err(|source| PullError::Install {
            name: self.name.clone(),
            source: Box::new(source),
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

    fn progress(&self, blob: Digest) -> LayerProgress {
        LayerProgress::new(blob.short(), self.to.clone())
    }

    /// Starts to fetch a layer, unless it is all here. Dropping the handle stops the download.
    fn start_layer(
        &self,
        layer: &LayerSpec,
        turns: &Arc<Semaphore>,
    ) -> Option<AbortOnDropHandle<Result<(), PullError>>> {
        let store = self.lease.store();
        let progress = self.progress(layer.blob);
        if store.layer_size(layer.id).is_some() && store.blobs.has(layer.blob) {
            progress.say(ProgressStatus::AlreadyExists);
            return None;
        }
        progress.say(ProgressStatus::Pulling);
        let (blob, limit) = (layer.blob, store.limits.blob_bytes);
        let (registry, lease) = (Arc::clone(&self.registry), Arc::clone(&self.lease));
        let turns = Arc::clone(turns);
        let download = async move {
            let _turn = turns.acquire_owned().await.expect("nobody closes it");
            download(registry, lease, blob, limit, Some(progress)).await
        };
        Some(AbortOnDropHandle::new(self.lease.tasks.spawn(download)))
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
    let tasks = lease.tasks.clone();
    let write = move || {
        let (lease, _making) = (lease, making); // until the file is whole or gone, though nobody waits
        write_blob(&lease, reader, blob, limit, length, progress)
    };
    let write = tasks.spawn_blocking(write);
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
