//! The last steps that a pull, a load and a built-in image share: check, unpack, record.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::identity;
use std::fs::File;
use std::future::ready;
use std::io;
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use tokio::sync::mpsc;

use super::blob::StoreBlobError;
use super::catalog::{Image, Record};
use super::digest::{Digest, InvalidDigest, LayerId};
use super::docker_config::DockerConfig;
use super::layer::{LayerSpec, MakeLayerError, Stack};
use super::lease::Lease;
use super::progress::{LayerProgress, Progress};
use super::reference::Reference;
use super::staging::Staged;
use super::store::{Content, WriteIndexError};
use crate::memory;

/// Why an image whose blobs are all here could not be made usable.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Its configuration cannot be read.
    #[error("the image's configuration {id} is malformed")]
    Config {
        /// Digest of the configuration.
        id: Digest,
        /// Where and how.
        source: serde_json::Error,
    },
    /// Manifest and configuration disagree.
    #[error("the manifest lists {manifest} layers, the configuration {config}")]
    LayerCount {
        /// As the manifest says.
        manifest: usize,
        /// As the configuration says.
        config: usize,
    },
    /// More layers than allowed.
    #[error("the image has {found} layers, more than the {limit} allowed")]
    TooManyLayers {
        /// As the manifest says.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A digest in it is none, or of a kind the store does not take.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A layer cannot be unpacked.
    #[error("layer {layer}")]
    Layer {
        /// Digest of the layer's blob.
        layer: Digest,
        /// Why not.
        source: Box<MakeLayerError>,
    },
    /// A blob cannot be stored.
    #[error(transparent)]
    Blob(#[from] StoreBlobError),
    /// The list of images cannot be written.
    #[error(transparent)]
    Index(#[from] WriteIndexError),
    /// The store's file system refused.
    #[error("read or write the image store")]
    Io(#[source] io::Error),
    /// The thread that did it died.
    #[error("storing the image stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// An image in the making: its configuration is here and makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) id: Digest,
    manifest: Digest,
    config: Arc<ImageConfiguration>,
    docker: Arc<DockerConfig>,
    /// The image that it was made of here.
    pub(crate) parent: Option<Digest>,
    pub(crate) layers: Vec<LayerSpec>,
}

impl Plan {
    /// Reads the configuration `id`, whose blob is stored, and matches it with the manifest's layers.
    pub(crate) fn new(
        lease: &Lease,
        id: Digest,
        manifest: Digest,
        blobs: &[Digest],
    ) -> Result<Self, InstallError> {
        let store = lease.store();
        let content = store
            .blobs
            .read(id, store.limits.metadata_bytes)
            .map_err(InstallError::Io)?;
        let config: ImageConfiguration = serde_json::from_slice(&content)
            .map_err(|source| InstallError::Config { id, source })?;
        let diffs = config.rootfs().diff_ids();
        if diffs.len() != blobs.len() {
            return Err(InstallError::LayerCount {
                manifest: blobs.len(),
                config: diffs.len(),
            });
        }
        if blobs.len() > store.limits.layers {
            return Err(InstallError::TooManyLayers {
                found: blobs.len(),
                limit: store.limits.layers,
            });
        }
        let diffs = diffs
            .iter()
            .map(|diff| diff.parse())
            .collect::<Result<Vec<Digest>, _>>()?;
        let chain = LayerId::chain(&diffs);
        let layer = |at: usize| LayerSpec {
            id: chain[at],
            blob: blobs[at],
            diff: diffs[at],
            below: chain[..at].to_vec(),
        };
        let layers: Vec<_> = (0..blobs.len()).map(layer).collect();
        for layer in &layers {
            lease.pin(Content::Blob(layer.blob));
            lease.pin(Content::Layer(layer.id));
        }
        Ok(Self {
            id,
            manifest,
            config: Arc::new(config),
            docker: Arc::new(DockerConfig::read(&content)),
            parent: None,
            layers,
        })
    }

    /// Unpacks what is not there of the layers, whose blobs `arrivals` bring, and tells `progress` of it. The first failure
    /// ends all. Gives back the bytes of all files.
    pub(crate) async fn make_layers<E>(
        &self,
        lease: &Arc<Lease>,
        arrivals: impl IntoIterator<Item = impl Future<Output = Result<Option<Staged>, E>>>,
        progress: &mpsc::Sender<Progress>,
        failed: impl Fn(InstallError) -> E,
    ) -> Result<u64, E> {
        let failed = |layer, source| {
            failed(InstallError::Layer {
                layer,
                source: Box::new(source),
            })
        };
        let progress = |blob: Digest| LayerProgress::new(blob.short(), progress.clone());
        let stack = Stack::new(lease, &self.layers);
        stack.make(arrivals, progress, failed).await
    }

    /// [`Plan::make_layers`] of blobs that are all here, with nobody to tell of it.
    pub(crate) async fn make_layers_quietly(
        &self,
        lease: &Arc<Lease>,
    ) -> Result<u64, InstallError> {
        let (nobody, _) = mpsc::channel(1);
        let here = self.layers.iter().map(|_| ready(Ok(None)));
        self.make_layers(lease, here, &nobody, identity).await
    }

    /// Makes the image, all of whose layers are there, one of the store's.
    pub(crate) async fn record(
        self,
        lease: &Arc<Lease>,
        size: u64,
        names: BTreeSet<Reference>,
        digests: BTreeSet<Reference>,
    ) -> Result<Image, InstallError> {
        let lease = Arc::clone(lease);
        let record = Record {
            id: self.id,
            manifest: self.manifest,
            blobs: self.layers.iter().map(|layer| layer.blob).collect(),
            layers: self.layers.iter().map(|layer| layer.id).collect(),
            size,
            config: self.config,
            docker: self.docker,
            parent: self.parent,
            tagged: None,
            names,
            digests,
            unknown: BTreeMap::new(),
        };
        let write = move || {
            let store = lease.store();
            // The files first: after a power cut, what the catalogue names must be whole. Once for all of them, for the
            // disk takes less time over many at once than over each.
            let synced = File::open(&store.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
            synced.map_err(InstallError::Io)?;
            let image = store.change(|catalog| {
                let id = record.id;
                catalog.add(record);
                let known = catalog.record_mut(id).map(|record| record.to_image());
                Ok(known.expect("it was just added"))
            });
            memory::give_back();
            image
        };
        tokio::task::spawn_blocking(write).await?
    }
}
