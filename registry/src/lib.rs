//! Tells who offers a service, and where, now (etcd).
//!
//! [`Registry`] is the client: it registers hosts, creates networks and claims blocks, each in one
//! transaction. [`Presence`] keeps this host and its endpoints in the registry, [`Mirror`] keeps a
//! [`Catalog`] of everything in memory, and both outlast outages. [`embedded`] is a server of the same
//! protocol for meshes without an etcd cluster.

mod backoff;
mod blocks;
mod catalog;
mod claim;
mod client;
mod connect;
mod desired;
mod dial;
pub mod embedded;
mod era;
mod failover;
mod keys;
mod latest;
mod mailbox;
mod migrate;
mod mirror;
mod model;
mod needs;
mod networks;
mod nodes;
mod presence;
mod secure;
mod services;
mod status;
mod subnets;
mod version;
mod wire;

pub use blocks::{ClaimBlockError, ReleaseBlockError};
pub use catalog::{Catalog, weight_of};
pub use client::{CallError, Registry};
pub use connect::{ConnectError, ConnectOptions, Failures, lookup};
pub use desired::{
    AckRecord, DesireError, Desired, DesiredKind, DesiredRecord, Fence, LeadError, LeaderRecord,
    LeaderWrite, TaskRecord, TaskStatusRecord,
};
pub use dial::Dialer;
pub use keys::BadName;
pub use mailbox::AskError;
pub use migrate::{MigrateError, Migrated};
pub use mirror::Mirror;
pub use model::{
    AddressingV6, BlockRecord, CheckRecord, EndpointHealth, EndpointRecord, FallbackRecord,
    Fittest, ImportRecord, LinksRecord, MachineRecord, NetworkRecord, NodeRecord, PeekRecord,
    PortRecord, Protocol, ServiceHealthRecord, ServiceOffer, ServiceRecord, Upstream,
    WireguardRecord,
};
pub use needs::Needs;
pub use networks::{CreateNetworkError, NetworkRequest, RemoveNetworkError};
pub use nodes::RegisterNodeError;
pub use presence::{Presence, PresenceState};
pub use secure::{Password, TlsError, TlsFiles, User};
pub use services::PutServiceError;
pub use status::{Health, MemberStatus};
pub use subnets::{SubnetTooSmall, block_prefix, first_free, overlapping};
pub use version::TooOld;
