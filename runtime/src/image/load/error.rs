//! Why an archive is refused or cannot be loaded.

use std::io;

use crate::image::blob::StoreBlobError;
use crate::image::digest::InvalidDigest;
use crate::image::install::InstallError;
use crate::image::platform::Platform;
use crate::image::reference::InvalidReference;
use crate::image::tarball::TarError;

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
        source: Box<InstallError>,
    },
    /// The store's file system refused.
    #[error("read the image store")]
    Io(#[source] io::Error),
    /// The thread that did it died.
    #[error("the load stopped")]
    Stopped(#[from] tokio::task::JoinError),
}
