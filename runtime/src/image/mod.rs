//! Images: named, pulled, loaded, unpacked, mounted.
//!
//! An image is layers of files and a configuration, all known by the digest of their content. The store keeps
//! them under one directory, each layer unpacked once for all images and containers that have it.

mod ahead;
mod blob;
mod builtin;
mod catalog;
mod changes;
mod commit;
mod compose;
mod decompress;
mod digest;
mod docker_config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod import;
mod index;
mod install;
mod layer;
mod lease;
mod limits;
mod load;
mod lookup;
mod pack;
mod pipe;
mod platform;
mod progress;
mod prune;
mod pull;
mod push;
mod reference;
mod registry;
mod remove;
mod rootfs;
mod save;
mod staging;
mod store;
mod tag;
mod tar_write;
pub(crate) mod tarball;
mod unpack;
mod usage;
mod writeback;

pub use blob::StoreBlobError;
pub use builtin::InstallBuiltinError;
pub use catalog::{FindImageError, Image};
pub use changes::{Change, ChangeKind};
pub use commit::CommitError;
pub use compose::{About, ComposeError};
pub use digest::{Digest, InvalidDigest, LayerId};
pub use docker_config::DockerConfig;
pub use import::ImportError;
pub use index::ReadIndexError;
pub use install::InstallError;
pub use layer::MakeLayerError;
pub use limits::Limits;
pub use load::{LoadError, Loaded};
pub use lookup::RemoteImage;
pub use pack::PackError;
pub use platform::{InvalidPlatform, Platform};
pub use progress::{Progress, ProgressStatus};
pub use prune::Pruned;
pub use pull::{PullError, PullOptions, Pulled};
pub use push::{PushError, PushOptions, Pushed};
pub use reference::{InvalidReference, Reference, ReferenceProblem};
pub use registry::{
    EndpointError, FoundImage, InsecureRegistry, InvalidInsecure, InvalidMirror, LoginError,
    Mirror, RegistryAuth, RegistrySettings, SearchError, TokenError, login, search,
};
pub use remove::{ImageUse, RemoveImageError, RemoveOptions, Removed};
pub use rootfs::{MountError, Rootfs, UnmountError};
pub use save::{SaveError, SavedArchive};
pub use store::{ImageStore, OpenStoreError, WriteIndexError};
pub use tag::TagImageError;
pub use tarball::TarError;
pub(crate) use unpack::{Attributes, EntryPath, tree};
pub use unpack::{PathProblem, UnpackError};
pub use writeback::Writeback;
