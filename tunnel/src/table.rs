//! Who is where, with which keys: made anew from each document, keeping what was agreed on.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use boringtun::{noise::rate_limiter::RateLimiter, x25519};

use crate::{
    Identity, KeyRing, PublicKey, TunnelDocument,
    batch::Train,
    fallback::{Fallback, Kind},
    link::Link,
    pair::Pair,
    ranges::{Ranges, addresses},
};

/// Handshakes that are answered each second before senders must prove their address.
const HANDSHAKES: u64 = 500;
/// How long after its last packet a peer's keys are kept agreed on; as long as WireGuard lets a session live.
const WANTED: Duration = Duration::from_secs(180);

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) own: Vec<OwnKey>,
    /// Who this host is over TLS, the newest first.
    pub(crate) identities: Vec<Identity>,
    pub(crate) peers: Vec<Arc<Peer>>,
    pub(crate) links: Vec<Arc<Link>>,
    blocks: Ranges<usize>,
    subnets: Ranges<usize>,
    /// Pairs, and their peers, by index.
    pairs: HashMap<u32, (usize, Arc<Pair>)>,
}

/// A key of ours, as handshakes are begun with it.
pub(crate) struct OwnKey {
    pub(crate) public: PublicKey,
    pub(crate) secret: x25519::StaticSecret,
    pub(crate) limiter: RateLimiter,
}

/// Another host.
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) endpoint: SocketAddr,
    /// By preference: newest keys first.
    pub(crate) pairs: Vec<Arc<Pair>>,
    pub(crate) fallback: Option<Fallback>,
    /// When there was last something to say, in seconds of [`Clock`].
    spoken: AtomicU64,
}

/// Seconds since it was made.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_secs()
    }
}

impl Peer {
    /// The keys to seal with, `now` by [`Clock`]: the newest that both have agreed on, or, while there are none, the newest
    /// there are.
    pub(crate) fn speaking(&self, now: u64) -> Option<&Arc<Pair>> {
        self.spoken.store(now, Ordering::Relaxed);
        self.in_use().or(self.pairs.first())
    }

    pub(crate) fn in_use(&self) -> Option<&Arc<Pair>> {
        self.pairs.iter().find(|pair| pair.is_ready())
    }

    /// Sends the message that `fill` writes: by UDP, unless that does not get through and there is another way.
    pub(crate) fn send(
        &self,
        train: &mut Train<'_>,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let needed = self.fallback.as_ref().filter(|other| other.is_needed());
        match needed {
            Some(fallback) => fallback.sender.push(Kind::Message, most, fill),
            None => train.push(self.endpoint, most, fill),
        }
    }

    /// Whether there was something to say of late.
    pub(crate) fn is_wanted(&self, clock: &Clock) -> bool {
        let silent = clock
            .now()
            .saturating_sub(self.spoken.load(Ordering::Relaxed));
        silent < WANTED.as_secs()
    }
}

impl Table {
    /// What `document` says, with the sessions and connections of `before` as far as their keys are still there. New pairs
    /// take their indexes from `index` on, and new connections are made from `local`.
    pub(crate) fn new(
        document: &TunnelDocument,
        ring: &KeyRing,
        local: IpAddr,
        links: Vec<Arc<Link>>,
        before: &Self,
        clock: &Clock,
        mut index: impl FnMut() -> u32,
    ) -> Self {
        let known: HashMap<_, _> = before
            .pairs
            .values()
            .map(|(_, pair)| ((pair.local, pair.remote), pair))
            .collect();
        let mut table = Self {
            own: ring.private().iter().map(OwnKey::new).collect(),
            identities: ring.identities(),
            links,
            ..Self::default()
        };
        for peer in &document.peers {
            let of_both = peer
                .keys
                .iter()
                .flat_map(|remote| ring.private().iter().map(move |own| (own, *remote)));
            let pairs = of_both.map(|(own, remote)| match known.get(&(own.public(), remote)) {
                Some(pair) => Arc::clone(pair),
                None => {
                    let unused = std::iter::repeat_with(&mut index)
                        .find(|index| !before.pairs.contains_key(index));
                    let index = unused.expect("there are more indexes than pairs");
                    Arc::new(Pair::new(own, remote, index))
                }
            });
            let pairs: Vec<_> = pairs.collect();
            let at = table.peers.len();
            for pair in &pairs {
                table.pairs.insert(pair.index, (at, Arc::clone(pair)));
            }
            let last = before.peers.iter().find(|known| known.id == peer.id);
            // A new one is spoken to at once: it may have keys agreed on with who was here before.
            let spoken = last.map_or(clock.now(), |last| last.spoken.load(Ordering::Relaxed));
            let fallback = peer.fallback.as_ref().and_then(|document| {
                let last = last.and_then(|last| last.fallback.as_ref());
                Fallback::new(document, local, &table.identities, last)
            });
            table.peers.push(Arc::new(Peer {
                id: peer.id.clone(),
                endpoint: peer.endpoint,
                pairs,
                fallback,
                spoken: AtomicU64::new(spoken),
            }));
        }
        let blocks = document.peers.iter().enumerate();
        table.blocks = Ranges::new(
            blocks.flat_map(|(at, peer)| peer.blocks.iter().map(move |block| (*block, at))),
        );
        let subnets = document.links.iter().enumerate();
        table.subnets = Ranges::new(
            subnets.flat_map(|(at, link)| link.subnets.iter().map(move |subnet| (*subnet, at))),
        );
        table
    }

    /// Lets go of the connections that `next` has not.
    pub(crate) fn retire(&self, next: &Self) {
        let senders = |table: &Self| -> Vec<_> {
            let all = table.peers.iter().filter_map(|peer| peer.fallback.as_ref());
            all.map(|fallback| Arc::clone(&fallback.sender)).collect()
        };
        let kept = senders(next);
        for sender in senders(self) {
            if !kept.iter().any(|kept| Arc::ptr_eq(kept, &sender)) {
                sender.retire();
            }
        }
    }

    /// Whose an address is.
    pub(crate) fn peer_with(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.peers.get(self.blocks.find(address)?)
    }

    /// The pair that gave its peer an index, and that peer.
    pub(crate) fn pair(&self, index: u32) -> Option<(&Arc<Peer>, &Arc<Pair>)> {
        let (peer, pair) = self.pairs.get(&index)?;
        Some((self.peers.get(*peer)?, pair))
    }

    /// The pair of two keys, and the peer.
    pub(crate) fn pair_of(
        &self,
        own: PublicKey,
        remote: PublicKey,
    ) -> Option<(&Arc<Peer>, &Arc<Pair>)> {
        let of_both = |pair: &&Arc<Pair>| pair.local == own && pair.remote == remote;
        self.peers
            .iter()
            .find_map(|peer| Some((peer, peer.pairs.iter().find(of_both)?)))
    }

    /// The device for a packet of `peer`: that of the network in which both its addresses are, if its source is the
    /// peer's.
    pub(crate) fn link_for(&self, peer: &Peer, packet: &[u8]) -> Option<&Arc<Link>> {
        let (source, destination) = addresses(packet)?;
        let link = self.subnets.find(source)?;
        let theirs = self.peer_with(source)?.id == peer.id;
        (theirs && self.subnets.find(destination) == Some(link))
            .then(|| self.links.get(link))
            .flatten()
    }
}

impl OwnKey {
    fn new(key: &crate::PrivateKey) -> Self {
        let secret = key.secret();
        Self {
            public: key.public(),
            limiter: RateLimiter::new(&x25519::PublicKey::from(&secret), HANDSHAKES),
            secret,
        }
    }
}
