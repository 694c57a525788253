//! The one place that builds and reads netlink messages.

mod address;
mod conntrack;
mod link;
mod neighbour;
mod route;
mod ruleset;
mod watch;

use std::io;

use rtnetlink::Handle;
use tokio_util::task::AbortOnDropHandle;

pub use self::watch::ChangeWatch;
pub(crate) use self::{
    address::Address,
    conntrack::{Conntrack, UdpFlow},
    link::{Link, NewVeth, VxlanSettings},
    neighbour::{FdbRow, Neighbour},
    route::{Route, Way},
    ruleset::Ruleset,
};
use crate::netns::NetNs;

/// Marks what is ours: the group of links, and the protocol of addresses and routes.
const OURS: u8 = 0x6e;

/// A route socket of one network namespace.
pub(crate) struct Netlink {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            _connection: AbortOnDropHandle::new(tokio::spawn(connection)),
        })
    }

    /// Opens a socket in `namespace`; a socket stays where it was made.
    pub(crate) async fn open_in(namespace: &NetNs) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        namespace
            .run(move || {
                let _context = runtime.enter();
                Self::open()
            })
            .await?
    }
}

/// Keeps the errno.
fn to_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
