//! `load`: images from an archive, an OCI layout or what `docker save` writes.

mod archive;
mod docker;
mod oci;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::blob::StoreBlobError;
use super::decompress::BUFFER;
use super::digest::{Digest, InvalidDigest};
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::pipe::pipe;
use super::platform::Platform;
use super::progress::{LayerProgress, Progress, ProgressStatus};
use super::reference::{InvalidReference, Reference};
use super::store::ImageStore;
use super::tarball::TarError;
use archive::Archive;
pub(crate) use docker::manifest as synthetic_manifest;

/// An image that an archive brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// Its ID, `sha256:…`.
    pub id: String,
    /// The short names it got; none if the archive gives none.
    pub names: Vec<String>,
}

/// Why an archive could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The sender failed.
    #[error("receive the archive")]
    Receive(#[source] io::Error),
    /// The archive cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// There is no index.json and no manifest.json in it.
    #[error(
        "the archive holds neither index.json (an OCI layout) nor manifest.json (docker save): \
         a root file system alone is taken by import"
    )]
    NoImage,
    /// More files than allowed.
    #[error("the archive has more than {limit} files")]
    TooManyFiles {
        /// What is allowed.
        limit: usize,
    },
    /// More images than allowed.
    #[error("the archive has more than {limit} images")]
    TooManyImages {
        /// What is allowed.
        limit: usize,
    },
    /// A file that another names is not there.
    #[error("the archive lacks {name}")]
    Missing {
        /// The file.
        name: String,
    },
    /// A file of metadata larger than allowed.
    #[error("{name} in the archive has more than {limit} bytes")]
    MetadataTooLarge {
        /// The file.
        name: String,
        /// What is allowed.
        limit: u64,
    },
    /// A file of metadata that cannot be read.
    #[error("{name} in the archive is malformed")]
    Json {
        /// The file.
        name: String,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A file that is not what its name says, or cannot be stored.
    #[error("{name} in the archive")]
    Blob {
        /// The file.
        name: String,
        /// Why not.
        source: StoreBlobError,
    },
    /// The only images in it are for other platforms.
    #[error("the archive has no image for {platform}")]
    Platform {
        /// What was looked for.
        platform: Platform,
    },
    /// A name in it is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A digest in it is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// What it holds makes no image.
    #[error("install {name}")]
    Install {
        /// The image's name or ID.
        name: String,
        /// Why not.
        source: InstallError,
    },
    /// The store's file system refused.
    #[error("read the image store")]
    Io(#[source] io::Error),
    /// The thread that did it died.
    #[error("the load stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// An image found in an archive: everything it needs is among the store's blobs.
struct Found {
    plan: Plan,
    names: BTreeSet<Reference>,
}

impl ImageStore {
    /// Loads all images of a tar stream, plain or compressed by gzip or zstd.
    ///
    /// Its files go to disk as they come, whatever their order. If it fails or is dropped, what came of it is
    /// removed; images that were already complete stay. `progress` is never waited for.
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
        let (writer, reader) = pipe();
        let read = {
            let lease = Arc::clone(&lease);
            move || Archive::read(reader, &lease)?.images(&lease)
        };
        let read = tokio::task::spawn_blocking(read);
        let sent = writer
            .send_all(ReaderStream::with_capacity(archive, BUFFER))
            .await;
        let found = read.await?;
        sent.map_err(LoadError::Receive)?;

        let mut loaded = Vec::new();
        for image in found? {
            loaded.push(install(&lease, image, &progress).await?);
        }
        Ok(loaded)
    }
}

async fn install(
    lease: &Arc<Lease>,
    image: Found,
    progress: &mpsc::Sender<Progress>,
) -> Result<Loaded, LoadError> {
    let Found { plan, names } = image;
    let familiar: Vec<_> = names.iter().map(Reference::familiar).collect();
    let name = familiar
        .first()
        .cloned()
        .unwrap_or_else(|| plan.id.to_string());
    let failed = |source| LoadError::Install {
        name: name.clone(),
        source,
    };
    let mut size = 0;
    for index in 0..plan.layers.len() {
        let layer = || LayerProgress::new(plan.layers[index].blob.short(), progress.clone());
        let was_here = lease.store().layer_size(plan.layers[index].id).is_some();
        size += plan
            .make_layer(lease, index, layer())
            .await
            .map_err(failed)?;
        layer().say(if was_here {
            ProgressStatus::AlreadyExists
        } else {
            ProgressStatus::Complete
        });
    }
    let id = plan.id.to_string();
    plan.record(lease, size, names, BTreeSet::new())
        .await
        .map_err(failed)?;
    Ok(Loaded {
        id,
        names: familiar,
    })
}

/// A digest as OCI's types spell it.
fn digest_of(descriptor: &oci_spec::image::Descriptor) -> Result<Digest, InvalidDigest> {
    descriptor.digest().to_string().parse()
}
