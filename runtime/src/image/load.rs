//! `load`: images from an archive, an OCI layout or what `docker save` writes.

mod ahead;
mod archive;
mod docker;
mod error;
mod oci;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::catalog;
use super::decompress::BUFFER;
use super::digest::{Digest, InvalidDigest};
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::pipe::pipe;
use super::progress::Progress;
use super::reference::Reference;
use super::store::ImageStore;
use ahead::Ahead;
use archive::Archive;
pub(crate) use docker::manifest as synthetic_manifest;
pub use error::LoadError;

/// Images in one archive.
const MAX_IMAGES: usize = 256;

/// An image that an archive brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Its ID, `sha256:…`.
    pub id: String,
    /// The short names it got; none if the archive gives none.
    pub names: Vec<String>,
    /// Which of the names another image had, and its ID.
    pub replaced: Vec<(String, String)>,
}

/// An image found in an archive: everything it needs is among the store's blobs.
struct Found {
    plan: Plan,
    names: BTreeSet<Reference>,
}

impl ImageStore {
    /// Loads all images of a tar stream, plain or compressed by gzip or zstd.
    ///
    /// Its files go to disk as they come, whatever their order; what looks like a layer is unpacked meanwhile. If it fails
    /// or is dropped, what came of it is removed; images that were already complete stay. `progress` is never waited for.
    ///
    /// # Errors
    ///
    /// See [`LoadError`].
    pub async fn load(
        &self,
        archive: impl AsyncRead + Unpin,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Vec<Loaded>, LoadError> {
        let lease = Arc::new(Lease::new(&self.inner));
        let stop = lease.stop_on_drop();
        let loaded = load(archive, &lease, &progress).await;
        drop(stop);
        lease.settle().await; // layers that no image has may still be being unpacked, or those of one that failed
        loaded
    }
}

async fn load(
    archive: impl AsyncRead + Unpin,
    lease: &Arc<Lease>,
    progress: &mpsc::Sender<Progress>,
) -> Result<Vec<Loaded>, LoadError> {
    let (writer, reader) = pipe();
    let ahead = Arc::new(Ahead::new(progress));
    let read = {
        let (lease, ahead) = (Arc::clone(lease), Arc::clone(&ahead));
        move || Archive::read(reader, &lease, &ahead)?.images(&lease)
    };
    let read = lease.spawn_blocking(read);
    let sent = writer
        .send_all(ReaderStream::with_capacity(archive, BUFFER))
        .await;
    let found = read.await?;
    sent.map_err(LoadError::Receive)?;

    let mut loaded = Vec::new();
    for image in found? {
        loaded.push(install(lease, image, &ahead, progress).await?);
    }
    Ok(loaded)
}

async fn install(
    lease: &Arc<Lease>,
    image: Found,
    ahead: &Ahead,
    progress: &mpsc::Sender<Progress>,
) -> Result<Loaded, LoadError> {
    let Found { plan, names } = image;
    let familiar = catalog::familiar(&names);
    let name = familiar
        .first()
        .cloned()
        .unwrap_or_else(|| plan.id.to_string());
    let failed = |source| LoadError::Install {
        name: name.clone(),
        source: Box::new(source),
    };
    let arrivals = plan.layers.iter().map(async |layer| {
        let unpacked = ahead.take(layer.blob).await;
        unpacked.map_err(|source| {
            failed(InstallError::Layer {
                layer: layer.blob,
                source: Box::new(source),
            })
        })
    });
    let size = plan.make_layers(lease, arrivals, progress, failed).await?;
    let id = plan.id.to_string();
    let replaced = names.iter().filter_map(|name| {
        let catalog = lease.store().catalog();
        let other = catalog.named(name).filter(|other| other.id != plan.id)?;
        Some((name.familiar(), other.id.to_string()))
    });
    let replaced = replaced.collect();
    plan.record(lease, size, names, BTreeSet::new())
        .await
        .map_err(failed)?;
    Ok(Loaded {
        id,
        names: familiar,
        replaced,
    })
}

/// A digest as OCI's types spell it.
fn digest_of(descriptor: &oci_spec::image::Descriptor) -> Result<Digest, InvalidDigest> {
    descriptor.digest().to_string().parse()
}
