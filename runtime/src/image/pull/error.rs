//! What can go wrong with a pull, in Docker's words where clients know them.

use std::io;

use oci_client::errors::OciDistributionError;

use crate::image::blob::StoreBlobError;
use crate::image::digest::{Digest, InvalidDigest};
use crate::image::install::InstallError;
use crate::image::platform::Platform;
use crate::image::registry::{EndpointError, TokenError};

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry does not know the repository, or not for this account.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login'"
    )]
    Denied {
        /// The repository, short.
        repository: String,
    },
    /// The repository has no such tag or digest.
    #[error("manifest for {name} not found: manifest unknown")]
    NotFound {
        /// The image, short.
        name: String,
    },
    /// Nobody answers there.
    #[error("registry {registry} cannot be reached for {name}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The image, short.
        name: String,
        /// With the errno at its end.
        source: Box<OciDistributionError>,
    },
    /// The registry answered with an error.
    #[error("registry {registry} failed for {name}")]
    Registry {
        /// Host and port.
        registry: String,
        /// The image, short.
        name: String,
        /// What it said.
        source: Box<OciDistributionError>,
    },
    /// The registry cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// There is no token for this account.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What came is not what its digest promises.
    #[error("registry {registry} served something else than {name}")]
    Corrupt {
        /// Host and port.
        registry: String,
        /// The image or blob.
        name: String,
        /// Expected and found.
        source: Box<OciDistributionError>,
    },
    /// The connection broke, or what came has the wrong digest.
    #[error("download of {blob} from {registry} failed")]
    Download {
        /// Host and port.
        registry: String,
        /// The blob.
        blob: Digest,
        /// What went wrong.
        source: io::Error,
    },
    /// A manifest larger than allowed.
    #[error("the manifest of {name} has more than the {limit} bytes allowed")]
    ManifestTooLarge {
        /// The image, short.
        name: String,
        /// What is allowed.
        limit: u64,
    },
    /// A manifest that is none.
    #[error("the manifest of {name} is malformed")]
    Manifest {
        /// The image, short.
        name: String,
        /// Where and how.
        source: serde_json::Error,
    },
    /// The image is not built for the platform.
    #[error("no matching manifest for {platform} in the manifest list of {name}")]
    Platform {
        /// The image, short.
        name: String,
        /// What was asked for.
        platform: Platform,
    },
    /// A digest in the manifest is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A blob cannot be stored.
    #[error("store {blob}")]
    Store {
        /// The blob.
        blob: Digest,
        /// Why not.
        source: StoreBlobError,
    },
    /// What came makes no image.
    #[error("install {name}")]
    Install {
        /// The image, short.
        name: String,
        /// Why not.
        source: Box<InstallError>,
    },
    /// The thread that did it died.
    #[error("the download stopped")]
    Stopped(#[from] tokio::task::JoinError),
}
