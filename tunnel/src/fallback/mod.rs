//! The way around, where UDP does not get through: TLS over TCP, from this host to a peer for what this host sends, and from
//! the peer for what that one does. So each side decides for itself, and nothing has to be agreed on.

mod frame;
mod reach;
mod receiver;
mod sender;
mod tls;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use self::sender::Proof;
pub(crate) use self::{
    frame::Kind,
    reach::{PROBE, Probe, Reach},
    receiver::serve,
    sender::Sender,
};
use crate::{FallbackDocument, FallbackStatus, Identity};

/// What a host says that has made sure of another one and will take what it sends.
const WELCOME: [u8; 1] = [b'+'];

/// What is kept of one peer over changes of all else.
pub(crate) struct Fallback {
    pub(crate) document: FallbackDocument,
    pub(crate) sender: Arc<Sender>,
    /// Whether WireGuard gets through to it by UDP.
    pub(crate) reach: Arc<Reach>,
    pub(crate) received: Arc<AtomicU64>,
    /// Connections that it has made.
    pub(crate) open: Arc<AtomicUsize>,
}

impl Fallback {
    /// What `document` says, with what of `before` is still so; `None` if this host has no identity. The newest of
    /// `identities` comes first.
    pub(crate) fn new(
        document: &FallbackDocument,
        from: IpAddr,
        identities: &[Identity],
        before: Option<&Self>,
    ) -> Option<Self> {
        let proof = Proof {
            own: identities.first()?.clone(),
            other: document.key,
        };
        let same = before.filter(|before| before.sender.may_stay(document, identities));
        let sender = match same {
            Some(before) => {
                before.sender.prove_by(proof);
                Arc::clone(&before.sender)
            }
            None => Arc::new(Sender::new(document.endpoint, from, proof)),
        };
        Some(Self {
            document: document.clone(),
            sender,
            reach: before.map_or_else(
                || Arc::new(Reach::new(Instant::now())),
                |before| Arc::clone(&before.reach),
            ),
            received: before.map_or_else(Arc::default, |before| Arc::clone(&before.received)),
            open: before.map_or_else(Arc::default, |before| Arc::clone(&before.open)),
        })
    }

    /// Messages of WireGuard are to go this way, and can.
    pub(crate) fn is_needed(&self) -> bool {
        self.reach.is_blocked() && self.sender.is_connected()
    }

    /// What is to be sent by UDP now, to see whether that gets through: of use only if there is something to be `sealed`.
    pub(crate) fn probe(&self, sealed: bool) -> Option<Probe> {
        sealed.then(|| self.reach.tick(Instant::now())).flatten()
    }

    /// Connects as far as that is wanted.
    pub(crate) fn tick(&self) {
        self.sender.want(self.is_wanted());
    }

    fn is_wanted(&self) -> bool {
        self.document.wanted || self.reach.is_blocked()
    }

    pub(crate) fn status(&self) -> FallbackStatus {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FallbackStatus {
            endpoint: self.document.endpoint,
            wanted: self.is_wanted(),
            connected: self.sender.is_connected(),
            blocked: self.reach.is_blocked(),
            serving: self.open.load(Ordering::Relaxed) > 0,
            sent: read(&self.sender.sent),
            dropped: read(&self.sender.dropped),
            received: read(&self.received),
        }
    }
}
