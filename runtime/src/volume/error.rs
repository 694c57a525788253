//! What can go wrong with volumes.

use std::io;
use std::path::PathBuf;

use super::mount::InvalidVolumeOptions;
use super::name::InvalidVolumeName;

/// Why something could not be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The name cannot be a volume's.
    #[error(transparent)]
    Name(#[from] InvalidVolumeName),
    /// The options make no sense to the local driver.
    #[error(transparent)]
    Options(#[from] InvalidVolumeOptions),
    /// There is none of that name.
    #[error("no such volume")]
    NotFound,
    /// Its description does not parse.
    #[error("parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file system refused.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What its options name could not be mounted.
    #[error("failed to mount local volume: mount {device}:{}", path.display())]
    Mount {
        /// As the options name it.
        device: String,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl VolumeError {
    pub(super) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
