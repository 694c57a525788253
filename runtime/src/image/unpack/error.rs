//! Why a layer is refused or cannot be unpacked.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use super::MAX_DIRECTORY_NAMES;
use super::path::{EntryPath, PathProblem};
use crate::image::tarball::TarError;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A name that could lead out of the image's root.
    #[error("entry {path} is refused: {problem}")]
    Refused {
        /// The name, quoted.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// The archive itself cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The files add up to more than allowed.
    #[error("the layer has more than {limit} bytes of files")]
    TooLarge {
        /// What is allowed.
        limit: u64,
    },
    /// The names of its directories alone take more memory than allowed.
    #[error("the names of the layer's directories add up to more than {MAX_DIRECTORY_NAMES} bytes")]
    TooManyDirectories,
    /// An owner that the kernel has no number for.
    #[error("entry {path} belongs to user {uid}, group {gid}: the highest number is 4294967294")]
    Owner {
        /// The name, quoted.
        path: String,
        /// As the archive says.
        uid: u64,
        /// As the archive says.
        gid: u64,
    },
    /// A hard link to what is neither in this layer nor beneath it.
    #[error("entry {path} is a hard link to {target}, which does not exist")]
    NoTarget {
        /// The name, quoted.
        path: String,
        /// What it should be the same as, quoted.
        target: String,
    },
    /// It needs the layers beneath, before which it was to be unpacked.
    #[error("entry {path} needs the layers beneath, which are not there yet")]
    Beneath {
        /// The name, quoted.
        path: String,
    },
    /// The kernel refused.
    #[error("unpack {path}")]
    Make {
        /// The name, quoted.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
}

pub(super) fn refused(entry: &[u8], problem: PathProblem) -> UnpackError {
    UnpackError::Refused {
        path: format!("{:?}", OsStr::from_bytes(entry)),
        problem,
    }
}

pub(super) fn failed(path: &EntryPath, source: io::Error) -> UnpackError {
    UnpackError::Make {
        path: path.to_string(),
        source,
    }
}

/// The walk to a parent directory failed: with these errors because a link led out of the root.
pub(super) fn lost(path: &EntryPath, errno: Errno) -> UnpackError {
    match errno {
        Errno::XDEV | Errno::LOOP => UnpackError::Refused {
            path: path.to_string(),
            problem: PathProblem::Escapes,
        },
        _ => failed(path, errno.into()),
    }
}
