//! What can go wrong with a push, in Docker's words where clients know them.

use std::io;

use oci_client::errors::OciDistributionError;

use crate::image::digest::{Digest, InvalidDigest};
use crate::image::reference::Reference;
use crate::image::registry::{EndpointError, TokenError, Trouble, trouble};
use crate::image::store::WriteIndexError;

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// No image has this name.
    #[error("tag does not exist: {0}")]
    NoSuchTag(String),
    /// The registry cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// There is no token for this account.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The account may not push there.
    #[error("denied: requested access to the resource is denied: {repository}")]
    Denied {
        /// The repository, short.
        repository: String,
    },
    /// Nobody answers there.
    #[error("registry {registry} cannot be reached")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// With the errno at its end.
        source: Box<OciDistributionError>,
    },
    /// The registry answered with an error.
    #[error("registry {registry} failed for {repository}")]
    Registry {
        /// Host and port.
        registry: String,
        /// The repository, short.
        repository: String,
        /// What it said.
        source: Box<OciDistributionError>,
    },
    /// A blob of the store cannot be read.
    #[error("read {blob} of the image store")]
    Read {
        /// The blob.
        blob: Digest,
        /// What the kernel said.
        source: io::Error,
    },
    /// The image's manifest cannot be read.
    #[error("the manifest {blob} is malformed")]
    Manifest {
        /// Its digest.
        blob: Digest,
        /// Where and how.
        source: serde_json::Error,
    },
    /// A digest in it is none.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// The list of images cannot be written.
    #[error(transparent)]
    Index(#[from] WriteIndexError),
    /// The task that did it died.
    #[error("the push stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl PushError {
    /// What a registry's error means for the push of `reference`.
    pub(super) fn of(error: OciDistributionError, reference: &Reference) -> Self {
        let repository = reference.familiar_repository();
        let registry = reference.registry().to_owned();
        let source = Box::new(error);
        match trouble(&source) {
            Trouble::Denied => Self::Denied { repository },
            Trouble::Unreachable => Self::Unreachable { registry, source },
            Trouble::Absent | Trouble::Corrupt | Trouble::Other => Self::Registry {
                registry,
                repository,
                source,
            },
        }
    }
}

/// Why a registry does not know who asks.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignInError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Registry(#[from] OciDistributionError),
}

impl SignInError {
    pub(super) fn at(self, reference: &Reference) -> PushError {
        match self {
            Self::Token(error) => error.into(),
            Self::Registry(error) => PushError::of(error, reference),
        }
    }
}
