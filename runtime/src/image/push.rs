//! `push`: an image to a registry.

mod error;
mod shrink;
mod upload;

use std::sync::Arc;

use oci_client::RegistryOperation;
use oci_client::client::Client;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::catalog::Record;
use super::digest::Digest;
use super::lease::Lease;
use super::progress::{LayerProgress, Progress, ProgressStatus};
use super::reference::Reference;
use super::registry::{Endpoint, RegistryAuth, RegistrySettings, secret};
use super::store::{Content, ImageStore, Inner};
pub use error::PushError;
use shrink::shrunk;
use upload::{Target, address};

/// Layers that go out at the same time, as many as Docker's.
const PARALLEL: usize = 5;
/// What a manifest is if it does not say.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Who pushes, and how the registry is reached.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// Who asks.
    pub auth: RegistryAuth,
    /// How registries are reached.
    pub registries: Arc<RegistrySettings>,
}

/// What the registry has now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of the manifest.
    pub size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
}

impl ImageStore {
    /// Pushes the image that is called `reference`, which has a tag, to the registry of that name.
    ///
    /// Layers that are stored as they are go out compressed: the registry then has another manifest than the store.
    /// What the registry has already is not sent, nor what it can take from another repository of its own. `progress`
    /// is never waited for.
    ///
    /// The process must have installed a rustls provider.
    ///
    /// # Errors
    ///
    /// See [`PushError`].
    pub async fn push(
        &self,
        reference: &Reference,
        options: PushOptions,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Pushed, PushError> {
        let lease = Arc::new(Lease::new(&self.inner));
        let record = named(&self.inner, reference, &lease)?;
        let endpoint = Endpoint::find(reference.registry(), &options.registries).await?;
        let client = endpoint.oci()?;
        let target = Arc::new(Target::new(client, reference));
        sign_in(&target.client, &endpoint, &options.auth, reference)
            .await
            .map_err(|error| error.at(reference))?;
        let (content, manifest) = read_manifest(&lease, record.manifest).await?;

        let layers = layers(&record, &manifest)?;
        let turns = Arc::new(Semaphore::new(PARALLEL));
        let mut uploads = Vec::with_capacity(layers.len());
        for (blob, diff) in layers {
            let progress = LayerProgress::new(diff.short(), progress.clone());
            progress.say(ProgressStatus::Preparing);
            let sources = repositories_with(&self.inner, reference, blob);
            let path = self.inner.blobs.path(blob);
            let (target, turns) = (Arc::clone(&target), Arc::clone(&turns));
            let upload = async move {
                let _turn = turns.acquire_owned().await.expect("nobody closes it");
                target.put(blob, path, &sources, Some(progress)).await
            };
            uploads.push(AbortOnDropHandle::new(tokio::spawn(upload)));
        }
        for upload in uploads {
            upload.await??;
        }
        let config = self.inner.blobs.path(record.id);
        target.put(record.id, config, &[], None).await?;
        let media_type = manifest.media_type.as_deref().unwrap_or(MANIFEST);
        target.put_manifest(content.clone(), media_type).await?;
        let digest = Digest::of(&content);
        remember(&self.inner, record.id, reference.at_digest(digest)).await?;
        Ok(Pushed {
            tag: reference.tag().unwrap_or_default().to_owned(),
            digest: digest.to_string(),
            size: content.len() as u64,
        })
    }
}

/// The image of that name, held in the store for as long as `lease`.
fn named(store: &Inner, reference: &Reference, lease: &Lease) -> Result<Record, PushError> {
    let catalog = store.catalog();
    let missing = || PushError::NoSuchTag(reference.familiar());
    let record = reference
        .tagged()
        .and_then(|tagged| catalog.named(&tagged))
        .ok_or_else(missing)?;
    for &blob in record.blobs.iter().chain([&record.id, &record.manifest]) {
        lease.pin(Content::Blob(blob));
    }
    Ok(record.clone())
}

/// The manifest that is to be pushed, whose layers are all there.
async fn read_manifest(lease: &Arc<Lease>, blob: Digest) -> Result<(Vec<u8>, Manifest), PushError> {
    let held = Arc::clone(lease);
    let read = move || {
        let store = held.store();
        let content = store.blobs.read(blob, store.limits.metadata_bytes);
        let content = content.map_err(|source| PushError::Read { blob, source })?;
        let content = shrunk(&held, blob, content)?;
        let manifest = serde_json::from_slice(&content);
        let manifest = manifest.map_err(|source| PushError::Manifest { blob, source })?;
        Ok((content, manifest))
    };
    lease.spawn_blocking(read).await?
}

/// Lets the client remember who asks, and hear at once if that is nobody who may push.
async fn sign_in(
    client: &Client,
    endpoint: &Endpoint,
    auth: &RegistryAuth,
    reference: &Reference,
) -> Result<(), error::SignInError> {
    let secret = secret(endpoint, auth, reference.repository(), "pull,push").await?;
    client
        .auth(&address(reference), &secret, RegistryOperation::Push)
        .await?;
    Ok(())
}

/// The layers, each once: as stored, and how people know them.
fn layers(record: &Record, manifest: &Manifest) -> Result<Vec<(Digest, Digest)>, PushError> {
    let mut layers: Vec<(Digest, Digest)> = Vec::new();
    let diffs = record.config.rootfs().diff_ids();
    for (layer, diff) in manifest.layers.iter().zip(diffs) {
        let pair = (layer.digest.parse()?, diff.parse()?);
        if !layers.iter().any(|(blob, _)| *blob == pair.0) {
            layers.push(pair);
        }
    }
    Ok(layers)
}

/// Repositories at the same registry that are known to have the blob.
fn repositories_with(store: &Inner, reference: &Reference, blob: Digest) -> Vec<Reference> {
    let catalog = store.catalog();
    let with = catalog
        .records
        .iter()
        .filter(|record| record.blobs.contains(&blob));
    let elsewhere = |name: &&Reference| {
        name.registry() == reference.registry() && name.repository() != reference.repository()
    };
    with.flat_map(|record| record.digests.iter().filter(elsewhere).cloned())
        .take(2)
        .collect()
}

/// From now on the image is known by the digest that the registry calls it by, too.
async fn remember(store: &Arc<Inner>, id: Digest, digest: Reference) -> Result<(), PushError> {
    let store = Arc::clone(store);
    let change = move || {
        store.change(|catalog| {
            if let Some(record) = catalog.record_mut(id) {
                record.digests.insert(digest);
            }
            Ok(())
        })
    };
    tokio::task::spawn_blocking(change).await?
}
