//! Unpacks a layer's blob beside the store's layers, which may be before those beneath it are there.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::ahead::read_ahead;
use super::decompress::look_into;
use super::digest::Digest;
use super::layer::MakeLayerError;
use super::lease::Lease;
use super::progress::{LayerProgress, ProgressStatus};
use super::store::Inner;
use super::unpack::{Lower, Unpacked, unpack};

/// The files of a layer, which are set aside unless they become one of the store's.
pub(crate) struct Staged {
    place: Place,
    unpacked: Unpacked,
    diff: Digest,
}

/// Unpacks a blob of the store when it is its turn. `lower` are the layers beneath, uppermost first, if they are there.
///
/// # Errors
///
/// See [`MakeLayerError`]; [`UnpackError::Beneath`](super::unpack::UnpackError::Beneath) if it needs `lower`.
pub(crate) async fn stage(
    lease: &Arc<Lease>,
    blob: Digest,
    lower: Option<Vec<PathBuf>>,
    progress: LayerProgress,
) -> Result<Staged, MakeLayerError> {
    let turns = Arc::clone(&lease.store().unpacking);
    let turn = turns.acquire_owned().await.expect("nobody closes it");
    let held = Arc::clone(lease);
    let work = move || {
        // Both until the work is over, even if nobody waits for it any more.
        let (lease, _turn) = (held, turn);
        stage_now(&lease, blob, lower.as_deref(), progress)
    };
    lease.spawn_blocking(work).await?
}

fn stage_now(
    lease: &Lease,
    blob: Digest,
    lower: Option<&[PathBuf]>,
    mut progress: LayerProgress,
) -> Result<Staged, MakeLayerError> {
    progress.say(ProgressStatus::Extracting);
    let store = lease.store();
    let path = store.blobs.path(blob);
    let failed = |source| MakeLayerError::Io {
        path: path.clone(),
        source,
    };
    let place = Place::new(store).map_err(failed)?;
    let lower = lower.map(Lower::open).transpose().map_err(failed)?;
    let stored = store.blobs.open(blob).map_err(failed)?;
    let total = stored.metadata().map_err(failed)?.len();
    let counted = Counted {
        inner: stored,
        read: 0,
        report: |read| {
            progress.tick(ProgressStatus::Extracting, read, total);
            match lease.stopped.is_cancelled() {
                true => Err(io::Error::other("it is not wanted any more")),
                false => Ok(()),
            }
        },
    };
    let (plain, is_compressed) = look_into(counted).map_err(failed)?;
    let bounded = Bounded {
        inner: plain,
        hasher: is_compressed.then(Sha256::new),
        left: store.limits.layer_bytes,
    };
    let unpacked = read_ahead(bounded, |plain| {
        unpack(plain, &place.diff(), lower.as_ref(), &store.limits)
    });
    let (unpacked, bounded) = unpacked.map_err(failed)?;
    Ok(Staged {
        unpacked: unpacked?,
        // A blob that is the plain tar was digested as it was stored.
        diff: bounded.hasher.map_or(blob, Digest::from_hasher),
        place,
    })
}

impl Staged {
    /// Digest of the plain tar.
    pub(super) fn diff(&self) -> Digest {
        self.diff
    }

    /// Finishes the files by the layers beneath, uppermost first, and makes them the layer at `target`, beside which
    /// `about` tells of their bytes. Gives these back.
    pub(super) fn install(
        self,
        lower: &[PathBuf],
        target: &Path,
        about: impl FnOnce(u64) -> serde_json::Result<Vec<u8>>,
    ) -> Result<u64, MakeLayerError> {
        let failed = |source| MakeLayerError::Io {
            path: target.to_owned(),
            source,
        };
        let lower = Lower::open(lower).map_err(failed)?;
        let size = self.unpacked.settle(&lower)?;
        let about = about(size).map_err(|error| failed(error.into()))?;
        // With all else it is on the disk when an image is recorded: one of which no image tells is not looked at again.
        fs::write(self.place.path.join("layer.json"), about).map_err(failed)?;
        fs::rename(&self.place.path, target).map_err(failed)?;
        Ok(size)
    }
}

/// A directory in tmp/, which is set aside when it goes, if it is still there.
struct Place {
    store: Arc<Inner>,
    path: PathBuf,
}

impl Place {
    fn new(store: &Arc<Inner>) -> io::Result<Self> {
        let place = Self {
            path: TempDir::new_in(store.tmp())?.keep(),
            store: Arc::clone(store),
        };
        DirBuilder::new().mode(0o755).create(place.diff())?;
        Ok(place)
    }

    fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.store.discard(&self.path);
    }
}

/// Tells how many bytes were read, and ends where it is told to.
struct Counted<R, F> {
    inner: R,
    read: u64,
    report: F,
}

impl<R: Read, F: FnMut(u64) -> io::Result<()>> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read += count as u64;
        (self.report)(self.read)?;
        Ok(count)
    }
}

/// Digests what passes, if that is to be known, and stops a stream that decompresses without end.
struct Bounded<R> {
    inner: R,
    hasher: Option<Sha256>,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layer decompresses to more bytes than allowed",
            )
        })?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}
