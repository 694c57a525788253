//! What can go wrong with an authority.

use std::io;
use std::path::PathBuf;

use crate::ledger::TooManyTokens;
use crate::names::NodeId;

/// Why an authority cannot be had, or not work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} does not hold what it should: put it back from a backup", .0.display())]
    Content(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// Why there is no new token, or it cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// As many as are kept are valid.
    #[error(transparent)]
    TooMany(#[from] TooManyTokens),
    /// There is none.
    #[error("no such join token: {0}")]
    NotFound(String),
    /// The disk's fault.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Why a member cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It is none.
    #[error("node {0} not found")]
    NotFound(String),
    /// Several are called so.
    #[error("node {0} is ambiguous ({1} matches found)")]
    Ambiguous(String, usize),
    /// Nobody would be left to admit anybody.
    #[error("node {0} keeps the mesh's registry and admits the others: it cannot be removed")]
    Manager(NodeId),
    /// The disk's fault.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}
