//! Why images cannot be saved.

use std::io;

use crate::image::catalog::FindImageError;
use crate::image::digest::Digest;

/// Why an archive could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// One of the images is not there.
    #[error(transparent)]
    Find(#[from] FindImageError),
    /// A blob of the store cannot be read.
    #[error("read {blob} of the image store")]
    Read {
        /// The blob.
        blob: Digest,
        /// What the kernel said.
        source: io::Error,
    },
    /// An image's manifest cannot be read.
    #[error("the manifest {blob} is malformed")]
    Manifest {
        /// Its digest.
        blob: Digest,
        /// Where and how.
        source: serde_json::Error,
    },
    /// The thread that did it died.
    #[error("saving the images stopped")]
    Stopped(#[from] tokio::task::JoinError),
}
