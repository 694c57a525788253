//! Carries TCP and UDP from a local listener to the upstreams it is handed.
//!
//! A [`Forward`] says where newcomers arrive and which upstreams there are; the upstreams are a
//! watch, so they may change while it runs. [`Ambassador::apply`] makes a list of forwards what
//! runs. [`spec`] reads such lists from the environment, arguments, files and JSON; a [`Resolver`]
//! turns the names in them into addresses and keeps these fresh; a [`Control`] does both, and
//! [`admin::router`] shows and changes it over HTTP.
//!
//! The process must ignore SIGPIPE, as Rust programs do unless told otherwise: splicing into a
//! connection that was reset raises it, and no flag prevents that.

mod access_log;
pub mod admin;
mod ambassador;
mod apply_error;
mod balance;
mod control;
mod count;
pub mod direct;
mod edge;
mod explain;
mod flow;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handover;
mod health;
mod loops;
pub mod metrics;
mod open;
mod peek;
mod proxy;
mod resolve;
mod running;
mod sni;
pub mod spec;
mod sys;
mod tcp;
mod time;
mod tls;
mod udp;

pub use access_log::{AccessLog, LogFormat};
pub use ambassador::{Ambassador, Bound};
pub use apply_error::ApplyError;
pub use balance::{Balance, Eject, EndpointState, EndpointView, Failure, OnRemove, Policy};
pub use control::{Control, PutError, Unavailable};
pub use edge::Edge;
pub use explain::{Explained, Preview, Upstreams};
pub use flow::{Address, Datapath, Flow, FlowFilter, NotAnAddress};
pub use forward::{Discovery, EndpointSet, Forward, Limits, Listen, Options, Protocol, RelayMode};
pub use handover::{HandoverError, Heritage, Successors};
pub use health::{Check, CheckKind};
pub use proxy::{AcceptProxy, ProxyVersion};
pub use resolve::{CheckWarning, ResolveError, Resolver, ServiceError};
pub use sni::{NameError, NamePattern, Sni};
pub use spec::{ForwardSpec, Host, Target};
pub use tls::{
    Allowed, Credentials, CredentialsError, Identity, IdentityError, Part, PeerError, Tls,
    TlsFiles, TlsFilesError, TlsSide,
};
