//! A small server of the etcd v3 protocol on a local transactional store.
//!
//! For meshes without an etcd cluster: `etcd-client` and `etcdctl` work on it as they do on etcd. There is one
//! member, and no TLS: whoever accepts connections for it may tell whose they are, and then a host writes only what
//! is its own. What it does not do it refuses by name.
//!
//! Writes go to one thread, which commits all that wait in one durable transaction. Reads and watches see
//! only what is committed. Watches are served from what was committed last, which is kept in memory for all of them, and
//! further back from the history in the store, so a slow watcher costs nothing but its place in it; the history is bounded,
//! and compacted without being asked.

mod apply;
mod connection;
mod disk;
mod election_service;
mod kv;
mod lease;
mod lease_service;
mod lock_service;
mod member;
mod pb;
#[cfg(test)]
mod power;
mod queue;
mod range;
mod recent;
mod rights;
mod server;
mod store;
mod tables;
mod txn;
mod watch;
mod watcher;
mod writer;

pub use connection::{Client, Connection};
pub use server::{BindError, Bound, OpenError, Server};
