//! What a tunnel is doing, for who asks.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::PublicKey;

/// What a tunnel is doing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TunnelStatus {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it listens for what comes by TLS; absent while it cannot.
    pub fallback: Option<SocketAddr>,
    /// Its own keys, the newest first.
    pub keys: Vec<PublicKey>,
    /// The other hosts, in the order of the document.
    pub peers: Vec<PeerStatus>,
    /// Packets, and connections, that were dropped since the start, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// What a tunnel has to do with one other host.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Its id in the document.
    pub id: String,
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// Our key and its key that are in use; absent while there is nothing to say or no agreement.
    pub using: Option<(PublicKey, PublicKey)>,
    /// How long ago the two agreed on the session in use, in seconds.
    pub handshake: Option<u64>,
    /// Bytes of packets sent, over all keys that are still accepted.
    pub sent: u64,
    /// Bytes of packets received, likewise.
    pub received: u64,
    /// The way there, and from there, by TLS; absent if it takes none.
    pub fallback: Option<FallbackStatus>,
}

/// What goes to another host, and comes from it, by TLS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FallbackStatus {
    /// Where it listens.
    pub endpoint: SocketAddr,
    /// This host is to send by it: it was told so, or what is sealed does not get there by UDP.
    pub wanted: bool,
    /// It takes what this host sends.
    pub connected: bool,
    /// What is sealed does not get there by UDP.
    pub blocked: bool,
    /// It is connected to this host, to send.
    pub serving: bool,
    /// Bytes that were given to the connection.
    pub sent: u64,
    /// Packets that were dropped, for there was no connection, or more waited than may.
    pub dropped: u64,
    /// Bytes that came.
    pub received: u64,
}

/// Packets that were not carried, and why.
#[derive(Default)]
pub(crate) struct Counts {
    /// To an address that no peer has.
    pub(crate) unrouted: AtomicU64,
    /// From an address, or between networks, that its sender has no part in.
    pub(crate) foreign: AtomicU64,
    /// Not sealed by a peer's key: forged, repeated, too late, or no message at all.
    pub(crate) unreadable: AtomicU64,
    /// Not taken by the kernel.
    pub(crate) unsent: AtomicU64,
    /// Connections of those who are no peers, or did not prove to be.
    pub(crate) strangers: AtomicU64,
}

impl Counts {
    pub(crate) fn unsent(&self, packets: usize, error: &io::Error) {
        self.unsent.fetch_add(packets as u64, Ordering::Relaxed);
        tracing::debug!(%error, packets, "send");
    }

    pub(crate) fn by_reason(&self) -> BTreeMap<String, u64> {
        let counts = [
            ("unrouted", &self.unrouted),
            ("foreign", &self.foreign),
            ("unreadable", &self.unreadable),
            ("unsent", &self.unsent),
            ("strangers", &self.strangers),
        ];
        let read = |(reason, count): (&str, &AtomicU64)| {
            (reason.to_owned(), count.load(Ordering::Relaxed))
        };
        counts.into_iter().map(read).collect()
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
