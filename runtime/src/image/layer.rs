//! Makes the unpacked layers of an image out of their blobs, each once, however many images want it at the same time.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, watch};

use super::digest::{Digest, LayerId};
use super::lease::Lease;
use super::progress::{LayerProgress, ProgressStatus};
use super::staging::{Staged, stage};
use super::store::{Content, Inner};
use super::unpack::UnpackError;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeLayerError {
    /// What was unpacked is not what the image's configuration names.
    #[error(
        "the layer's uncompressed digest is {found}, but the image's configuration says {expected}"
    )]
    Mismatch {
        /// What the configuration says.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// Its archive could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The store's file system refused.
    #[error("store a layer at {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that did it died.
    #[error("unpacking stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// What is kept beside a layer's files.
#[derive(Deserialize, Serialize)]
struct LayerFile {
    v: u32,
    diff: String,
    size: u64,
}

/// One layer of a stack.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpec {
    pub(crate) id: LayerId,
    /// Digest of the blob as stored.
    pub(crate) blob: Digest,
    /// Digest of its uncompressed tar.
    pub(crate) diff: Digest,
    /// The layers beneath, lowest first.
    pub(crate) below: Vec<LayerId>,
}

/// The layers of an image in the making, each of which is unpacked as soon as its blob is here, and becomes one of the
/// store's after those beneath it.
pub(crate) struct Stack<'a> {
    lease: &'a Arc<Lease>,
    layers: &'a [LayerSpec],
    /// How many of them are there, from the lowest on.
    there: watch::Sender<usize>,
}

impl<'a> Stack<'a> {
    pub(crate) fn new(lease: &'a Arc<Lease>, layers: &'a [LayerSpec]) -> Self {
        for layer in layers {
            lease.pin(Content::Layer(layer.id));
        }
        Self {
            lease,
            layers,
            there: watch::Sender::new(0),
        }
    }

    /// Makes them all, unless they are there. Gives back the bytes of their files.
    ///
    /// `arrivals` end when the blobs, lowest layer first, are in the store; some with the blob unpacked already. The
    /// first failure ends all.
    pub(crate) async fn make<E>(
        &self,
        arrivals: impl IntoIterator<Item = impl Future<Output = Result<Option<Staged>, E>>>,
        progress: impl Fn(Digest) -> LayerProgress,
        failed: impl Fn(Digest, MakeLayerError) -> E,
    ) -> Result<u64, E> {
        let failed = &failed;
        let layers = arrivals.into_iter().enumerate().map(|(index, arrival)| {
            let layer = &self.layers[index];
            let (store, progress) = (self.lease.store(), progress(layer.blob));
            async move {
                let was_here = store.layer_size(layer.id).is_some();
                let arrived = arrival.await?;
                if was_here {
                    progress.say(ProgressStatus::AlreadyExists);
                }
                let made = self.make_one(index, arrived, &progress).await;
                let size = made.map_err(|error| failed(layer.blob, error))?;
                if !was_here {
                    progress.say(ProgressStatus::Complete);
                }
                Ok(size)
            }
        });
        Ok(try_join_all(layers).await?.into_iter().sum())
    }

    async fn make_one(
        &self,
        index: usize,
        arrived: Option<Staged>,
        progress: &LayerProgress,
    ) -> Result<u64, MakeLayerError> {
        let (layer, store) = (&self.layers[index], self.lease.store());
        let making = store.maker(Content::Layer(layer.id)).lock_owned().await;
        let size = match (store.layer_size(layer.id), arrived) {
            (Some(size), _) => {
                self.beneath(index).await;
                size
            }
            (None, Some(staged)) => self.install(index, staged, making).await?,
            (None, None) => {
                let staged = self.stage(index, progress).await?;
                self.install(index, staged, making).await?
            }
        };
        self.there.send_replace(index + 1);
        Ok(size)
    }

    /// Unpacks without the layers beneath, if these are not there yet; anew with them, if it turns out to need them.
    async fn stage(
        &self,
        index: usize,
        progress: &LayerProgress,
    ) -> Result<Staged, MakeLayerError> {
        let blob = self.layers[index].blob;
        let is_next = *self.there.borrow() == index;
        let lower = is_next.then(|| self.lower(index));
        match stage(self.lease, blob, lower, progress.again()).await {
            Err(MakeLayerError::Unpack(UnpackError::Beneath { .. })) => {
                self.beneath(index).await;
                stage(self.lease, blob, Some(self.lower(index)), progress.again()).await
            }
            staged => staged,
        }
    }

    async fn install(
        &self,
        index: usize,
        staged: Staged,
        making: OwnedMutexGuard<()>,
    ) -> Result<u64, MakeLayerError> {
        let layer = &self.layers[index];
        let (expected, found) = (layer.diff, staged.diff());
        if found != expected {
            return Err(MakeLayerError::Mismatch { expected, found });
        }
        self.beneath(index).await;
        let target = self.lease.store().layer_dir(layer.id);
        let (lower, lease) = (self.lower(index), Arc::clone(self.lease));
        let about = move |size| {
            let diff = found.to_string();
            serde_json::to_vec(&LayerFile { v: 1, diff, size })
        };
        let install = move || {
            let (_lease, _making) = (lease, making); // until it is over, even if nobody waits for it any more
            staged.install(&lower, &target, about)
        };
        self.lease.spawn_blocking(install).await?
    }

    /// Waits until all layers beneath are there.
    async fn beneath(&self, index: usize) {
        let mut there = self.there.subscribe();
        let reached = there.wait_for(|&there| there >= index).await;
        reached.expect("the sender is in self");
    }

    /// The layers beneath, uppermost first.
    fn lower(&self, index: usize) -> Vec<PathBuf> {
        let store = self.lease.store();
        let below = self.layers[index].below.iter().rev();
        below.map(|&below| store.layer_diff(below)).collect()
    }
}

impl Inner {
    /// The directory that overlayfs takes for `layer`.
    pub(crate) fn layer_diff(&self, layer: LayerId) -> PathBuf {
        self.layer_dir(layer).join("diff")
    }

    /// Bytes of the files of a layer that is there.
    pub(crate) fn layer_size(&self, layer: LayerId) -> Option<u64> {
        let about = fs::read(self.layer_dir(layer).join("layer.json")).ok()?;
        let about: LayerFile = serde_json::from_slice(&about).ok()?;
        Some(about.size)
    }
}

#[cfg(test)]
mod tests;
