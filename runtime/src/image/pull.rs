//! `pull`: an image from a registry.

mod error;
mod manifest;
mod source;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::{ImageIndex, ImageManifest};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::blob::StoreBlobError;
use super::catalog::Image;
use super::digest::Digest;
use super::install::Plan;
use super::layer::LayerSpec;
use super::lease::Lease;
use super::pipe::{PipeReader, PipeWriter, pipe};
use super::platform::Platform;
use super::progress::{LayerProgress, Progress, ProgressStatus};
use super::reference::Reference;
use super::registry::{RegistryAuth, RegistrySettings};
use super::store::{Content, ImageStore};
pub use error::PullError;
use source::Blob;
pub(super) use source::Source;

/// Layers that come in at the same time, as many as Docker's.
const PARALLEL: usize = 3;
/// How often the rest of a blob is asked for that broke off, and how long the first pause before that is.
const RETRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// Who pulls, from where, and which variant.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// Who asks.
    pub auth: RegistryAuth,
    /// How registries are reached.
    pub registries: Arc<RegistrySettings>,
    /// Which variant of a multi-platform image; the host's if none.
    pub platform: Option<Platform>,
}

/// What came of a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// By which the registry knows what was asked for: a manifest, or an index of several.
    pub digest: Digest,
}

impl ImageStore {
    /// Pulls an image and gives it the name it was asked for by.
    ///
    /// Layers come in three at a time and are unpacked as they do, [`Limits::unpacking`](super::Limits::unpacking) at a
    /// time; those already here are not asked for. Two pulls of one layer share the work. If one layer fails the others
    /// end; if the pull fails or is dropped, what came of it is removed. `progress` is never waited for: with the channel
    /// full, reports are lost.
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
    ) -> Result<Pulled, PullError> {
        for mirror in Source::mirrors(reference, &options) {
            let name = mirror.name().to_owned();
            let pulled = match mirror.open().await {
                Ok(source) => self.pull_from(source, reference, &options, &progress).await,
                Err(error) => Err(error),
            };
            match pulled {
                Ok(pulled) => return Ok(pulled),
                Err(error) => {
                    let error = error_chain(&error);
                    warn!(
                        mirror = name,
                        error, "pull from a mirror: going on to the next"
                    );
                }
            }
        }
        let source = Source::of(reference, &options).await?;
        self.pull_from(source, reference, &options, &progress).await
    }

    /// All tags that the registry has of a repository, sorted.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    pub async fn remote_tags(
        &self,
        repository: &Reference,
        options: &PullOptions,
    ) -> Result<Vec<String>, PullError> {
        Source::of(repository, options).await?.tags().await
    }

    async fn pull_from(
        &self,
        source: Source,
        reference: &Reference,
        options: &PullOptions,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<Pulled, PullError> {
        let pull = Pull {
            source: Arc::new(source),
            lease: Arc::new(Lease::new(&self.inner)),
            name: reference.familiar(),
            to: progress.clone(),
        };
        let stop = pull.lease.stop_on_drop();
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let pulled = pull.run(reference, &platform).await;
        if pulled.is_err() {
            drop(stop);
            pull.lease.settle().await; // other layers may still be coming in, or being unpacked
        }
        pulled
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

struct Pull {
    source: Arc<Source>,
    lease: Arc<Lease>,
    name: String,
    to: mpsc::Sender<Progress>,
}

impl Pull {
    async fn run(&self, reference: &Reference, platform: &Platform) -> Result<Pulled, PullError> {
        let (plan, digest) = self.plan(reference, platform).await?;
        let failed = |source| PullError::Install {
            name: self.name.clone(),
            source: Box::new(source),
        };
        let turns = Arc::new(Semaphore::new(PARALLEL));
        let arrivals = plan.layers.iter().map(|layer| {
            let download = self.start_layer(layer, &turns);
            async {
                if let Some(download) = download {
                    download.await??;
                }
                Ok(None)
            }
        });
        let arrivals: Vec<_> = arrivals.collect();
        let made = plan.make_layers(&self.lease, arrivals, &self.to, failed);
        let size = made.await?;
        let names: BTreeSet<_> = reference.tagged().into_iter().collect();
        let digests = BTreeSet::from([reference.at_digest(digest)]);
        let recorded = plan.record(&self.lease, size, names, digests).await;
        let image = recorded.map_err(failed)?;
        Ok(Pulled { image, digest })
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
            Arc::clone(&self.source),
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
        let limit = self.lease.store().limits.metadata_bytes;
        let content = self.source.manifest(reference, limit).await?;
        let digest = Digest::of(&content);
        Ok((content, digest))
    }

    fn malformed(&self, source: serde_json::Error) -> PullError {
        PullError::Manifest {
            name: self.name.clone(),
            source,
        }
    }

    /// Starts to fetch a layer, unless it is all here. Dropping the handle stops the download.
    fn start_layer(
        &self,
        layer: &LayerSpec,
        turns: &Arc<Semaphore>,
    ) -> Option<AbortOnDropHandle<Result<(), PullError>>> {
        let store = self.lease.store();
        if store.layer_size(layer.id).is_some() && store.blobs.has(layer.blob) {
            return None;
        }
        let progress = LayerProgress::new(layer.blob.short(), self.to.clone());
        progress.say(ProgressStatus::Pulling);
        let (blob, limit) = (layer.blob, store.limits.blob_bytes);
        let (source, lease) = (Arc::clone(&self.source), Arc::clone(&self.lease));
        let turns = Arc::clone(turns);
        let download = async move {
            if turns.available_permits() == 0 {
                progress.say(ProgressStatus::Waiting);
            }
            let _turn = turns.acquire_owned().await.expect("nobody closes it");
            download(source, lease, blob, limit, Some(progress)).await
        };
        Some(AbortOnDropHandle::new(self.lease.tasks.spawn(download)))
    }
}

/// Fetches one blob of at most `limit` bytes, unless it is here by the time its turn comes.
async fn download(
    source: Arc<Source>,
    lease: Arc<Lease>,
    digest: Digest,
    limit: u64,
    progress: Option<LayerProgress>,
) -> Result<(), PullError> {
    lease.pin(Content::Blob(digest));
    let making = lease
        .store()
        .maker(Content::Blob(digest))
        .lock_owned()
        .await;
    if lease.store().blobs.has(digest) {
        if let Some(progress) = progress {
            progress.say(ProgressStatus::Downloaded);
        }
        return Ok(());
    }
    let blob = source.blob(digest, 0).await?;
    let length = blob.length;
    let told = progress.as_ref().map(LayerProgress::again);
    let (writer, reader) = pipe();
    let tasks = lease.tasks.clone();
    let write = move || {
        let (lease, _making) = (lease, making); // until the file is whole or gone, though nobody waits
        write_blob(&lease, reader, digest, limit, length, progress)
    };
    let write = tasks.spawn_blocking(write);
    let sent = send(&source, digest, blob, writer, told.as_ref()).await;
    let written = write.await?;
    sent?;
    written.map_err(|source| PullError::Store {
        blob: digest,
        source,
    })
}

/// Passes on what comes of a blob; when it breaks off, what lacks is asked for again.
async fn send(
    source: &Source,
    digest: Digest,
    mut blob: Blob,
    writer: PipeWriter,
    progress: Option<&LayerProgress>,
) -> Result<(), PullError> {
    let total = blob.length;
    let (mut sent, mut retries, mut pause) = (0, 0, PAUSE);
    loop {
        let before = sent;
        let Err(error) = writer.send_from(&mut blob.stream, &mut sent).await else {
            writer.end().await;
            return Ok(());
        };
        if sent > before {
            (retries, pause) = (0, PAUSE);
        }
        // All of it came, and is not what it should be.
        let is_whole = total > 0 && sent >= total;
        let mut broken = source.broken(digest, error);
        loop {
            retries += 1;
            if is_whole || retries > RETRIES {
                return Err(broken);
            }
            warn!(%digest, sent, error = error_chain(&broken), "a download broke off: asking for the rest");
            if let Some(progress) = progress {
                progress.say(ProgressStatus::Retrying(pause.as_secs()));
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            match source.blob(digest, sent).await {
                Ok(rest) => {
                    blob = rest;
                    break;
                }
                Err(error) => broken = error,
            }
        }
    }
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
