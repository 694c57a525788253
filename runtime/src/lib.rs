//! Turns an OCI image into a confined process, and back into nothing.

pub mod bundle;
mod capabilities;
mod cgroups;
mod cleanup;
mod client;
mod executable;
pub mod files;
mod identity;
pub mod image;
pub mod init;
pub mod logs;
mod plan;
mod probe;
mod protocol;
mod seccomp;
pub mod shim;
mod spec;
mod status;
mod sys;
mod time;
pub mod volume;

pub use capabilities::UnknownCapability;
pub use cgroups::cgroup2;
pub use cleanup::{cleanup, remove_cgroup_parent};
pub use client::{
    Attach, AttachError, AttachInput, AttachOptions, AttachOutput, ConnectError, Output, Shim,
    ShimError, ShimState, SpawnError,
};
pub use identity::{IdentityError, owner_of};
pub use probe::{Probe, enter_init_mounts, probe};
pub use spec::{
    BindOptions, ContainerSpec, ExecSpec, LogOptions, Mount, MountKind, Resources, Ulimit,
};
pub use status::ExitStatus;
