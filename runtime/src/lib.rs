//! Turns an OCI image into a confined process, and back into nothing.

pub mod bundle;
mod capabilities;
mod cgroups;
mod cleanup;
mod client;
mod executable;
pub mod files;
mod freeze;
mod group_values;
mod identity;
pub mod image;
pub mod init;
pub mod logs;
pub mod memory;
mod plan;
mod probe;
mod protocol;
mod seccomp;
pub mod shim;
mod spec;
mod stats;
mod status;
mod sys;
mod time;
mod update;
pub mod volume;

pub use capabilities::UnknownCapability;
pub use cgroups::cgroup2;
pub use cleanup::{cleanup, remove_cgroup_parent};
pub use client::{
    Attach, AttachError, AttachInput, AttachOptions, AttachOutput, ConnectError, Output, Shim,
    ShimError, ShimState, Shims, SpawnError,
};
pub use freeze::{FreezeError, freeze, is_frozen, thaw};
pub use group_values::{schedules_real_time, weighs_disks};
pub use identity::{IdentityError, owner_of};
pub use probe::{Probe, enter_init_mounts, probe};
pub use spec::{
    BindOptions, ContainerSpec, Device, DeviceRule, ExecSpec, LogOptions, Mount, MountKind,
    Namespace, Resources, Throttle, Throttled, Ulimit,
};
pub use stats::{CpuStats, IoStats, MemoryStats, Pressure, Stall, Stats, processes, stats};
pub use status::ExitStatus;
pub use update::update;
