//! Service addresses without a proxy: eBPF programs send the connections that the processes of a
//! cgroup make to a service's address straight to one of its endpoints.
//!
//! A [`Rewriter`] holds the programs and the sets of endpoints they choose from. `connect` (TCP
//! and UDP) picks an endpoint at random by weight each time; a UDP socket without a peer keeps its
//! endpoint for as long as that is in the service's set. `getpeername` and the source of received
//! datagrams show the service's address. Nothing but the address is changed: what the socket then
//! does, it does by itself, and what fails is told to the process by the kernel.
//!
//! The programs are held by the process that has loaded them and go when it goes, killed or not:
//! nobody is left to take a dead endpoint out, so connections had better find the listener at the
//! service's address, if there is one, or its successor. Those that were made go on.
//!
//! Linux 5.11 or later, a mounted cgroup2, and `CAP_BPF` with `CAP_NET_ADMIN` are needed;
//! [`probe`] tells what is missing. Sockets belong to the cgroup in which they were made.

mod cgroup;
mod director;
mod endpoints;
mod error;
mod layout;
mod report;
mod rewriter;
mod scopes;
mod service;
mod worker;

pub use error::{DirectError, SetError};
pub use report::{DirectCgroup, DirectForward};
pub use rewriter::{Counter, Rewriter, probe};
pub use service::{NotAService, Scope, ServiceKey};

pub(crate) use director::{Desk, Director, Task};
