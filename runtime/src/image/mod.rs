//! Images: named, pulled, loaded, unpacked, mounted.
//!
//! An image is layers of files and a configuration, all known by the digest of their content. The store keeps
//! them under one directory, each layer unpacked once for all images and containers that have it.

mod blob;
mod builtin;
mod catalog;
mod changes;
mod decompress;
mod digest;
mod docker_config;
mod index;
mod install;
mod layer;
mod lease;
mod limits;
mod load;
mod pipe;
mod platform;
mod progress;
mod prune;
mod pull;
mod reference;
mod remove;
mod rootfs;
mod save;
mod store;
mod tag;
pub(crate) mod tarball;
mod unpack;
mod usage;

pub use blob::StoreBlobError;
pub use builtin::InstallBuiltinError;
pub use catalog::{FindImageError, Image};
pub use changes::{Change, ChangeKind};
pub use digest::{Digest, InvalidDigest, LayerId};
pub use docker_config::DockerConfig;
pub use index::ReadIndexError;
pub use install::InstallError;
pub use layer::MakeLayerError;
pub use limits::Limits;
pub use load::{LoadError, Loaded};
pub use platform::{InvalidPlatform, Platform};
pub use progress::{Progress, ProgressStatus};
pub use prune::Pruned;
pub use pull::{PullError, PullOptions, RegistryAuth};
pub use reference::{InvalidReference, Reference, ReferenceProblem};
pub use remove::{ImageUse, RemoveImageError, RemoveOptions, Removed};
pub use rootfs::{MountError, Rootfs, UnmountError};
pub use save::{SaveError, SavedArchive};
pub use store::{ImageStore, OpenStoreError, WriteIndexError};
pub use tag::TagImageError;
pub use tarball::TarError;
pub(crate) use unpack::{Attributes, EntryPath, tree};
pub use unpack::{PathProblem, UnpackError};
