//! Makes one unpacked layer out of its blob, once, however many images want it at the same time.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::ahead::read_ahead;
use super::decompress::decompress;
use super::digest::{Digest, LayerId};
use super::lease::Lease;
use super::progress::{LayerProgress, ProgressStatus};
use super::store::{Content, Inner};
use super::unpack::{UnpackError, unpack};

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

/// Unpacks a layer whose blob is in the store, unless it is there already. Gives back the bytes of its files.
pub(crate) async fn make_layer(
    lease: &Arc<Lease>,
    spec: LayerSpec,
    progress: LayerProgress,
) -> Result<u64, MakeLayerError> {
    let lease = Arc::clone(lease);
    lease.pin(Content::Layer(spec.id));
    let making = lease
        .store()
        .maker(Content::Layer(spec.id))
        .lock_owned()
        .await;
    let tasks = lease.tasks.clone();
    let make = move || {
        // Both stay until the work is over, even if nobody waits for it any more.
        let (lease, _making) = (lease, making);
        make_layer_now(lease.store(), &spec, progress)
    };
    tasks.spawn_blocking(make).await?
}

fn make_layer_now(
    store: &Inner,
    spec: &LayerSpec,
    mut progress: LayerProgress,
) -> Result<u64, MakeLayerError> {
    if let Some(size) = store.layer_size(spec.id) {
        return Ok(size);
    }
    progress.say(ProgressStatus::Extracting);
    let place = store.layer_dir(spec.id);
    let failed = |source| MakeLayerError::Io {
        path: place.clone(),
        source,
    };
    let tmp = TempDir::new_in(store.tmp()).map_err(failed)?;
    let diff = tmp.path().join("diff");
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&diff)
        .map_err(failed)?;

    let blob = store.blobs.open(spec.blob).map_err(failed)?;
    let total = blob.metadata().map_err(failed)?.len();
    let counted = Counted {
        inner: blob,
        read: 0,
        report: |read| progress.tick(ProgressStatus::Extracting, read, total),
    };
    let plain = decompress(counted).map_err(failed)?;
    let hashed = Hashed {
        inner: plain,
        hasher: Sha256::new(),
        left: store.limits.layer_bytes,
    };
    let lower: Vec<_> = spec
        .below
        .iter()
        .rev()
        .map(|&below| store.layer_diff(below))
        .collect();
    let unpacked = read_ahead(hashed, |plain| unpack(plain, &diff, &lower, &store.limits));
    let (size, hashed) = unpacked.map_err(failed)?;
    let size = size?;
    let found = Digest::from_hasher(hashed.hasher);
    if found != spec.diff {
        return Err(MakeLayerError::Mismatch {
            expected: spec.diff,
            found,
        });
    }

    let about = LayerFile {
        v: 1,
        diff: found.to_string(),
        size,
    };
    let about = serde_json::to_vec(&about).map_err(|error| failed(error.into()))?;
    // With all else it is on the disk when an image is recorded: one of which no image tells is not looked at again.
    fs::write(tmp.path().join("layer.json"), about).map_err(failed)?;
    fs::rename(tmp.path(), &place).map_err(failed)?;
    let _ = tmp.keep(); // it has moved; nothing is left to remove
    Ok(size)
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

/// Tells how many bytes were read.
struct Counted<R, F> {
    inner: R,
    read: u64,
    report: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        (self.report)(self.read);
        Ok(count)
    }
}

/// Digests what passes, and stops a stream that decompresses without end.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    left: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layer decompresses to more bytes than allowed",
            )
        })?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
