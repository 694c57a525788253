//! The tunnel as a whole: its socket, its table, and the threads that carry.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    KeyRing, LinkDocument, PeerStatus, TunnelDocument, TunnelStatus,
    batch::Train,
    fallback::{self, PROBE},
    inbound,
    link::Link,
    outbound,
    pair::LONGEST_CONTROL,
    socket::Socket,
    status::Counts,
    table::{Clock, Peer, Table},
};

/// How often keys are looked after. WireGuard's own times are seconds.
const TICK: Duration = Duration::from_millis(250);
/// Indexes have 24 bits.
const INDEXES: u32 = 1 << 24;

/// Carries packets between TUN devices of this host and other hosts, until it is dropped.
pub struct Tunnel {
    shared: Arc<Shared>,
    /// Those that serve devices; held by who changes them.
    carriers: Mutex<Carriers>,
    threads: Vec<JoinHandle<()>>,
    /// Where others reach this host.
    local: SocketAddr,
}

/// What all threads see.
pub(crate) struct Shared {
    pub(crate) socket: Socket,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) counts: Counts,
    pub(crate) clock: Clock,
    /// Where it listens for what comes by TLS.
    fallback: Mutex<Option<SocketAddr>>,
    over: AtomicBool,
}

#[derive(Default)]
struct Carriers {
    links: Vec<(Arc<Link>, JoinHandle<()>)>,
    index: u32,
}

/// Why a tunnel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTunnelError {
    /// Its port is taken, or the address is not this host's.
    #[error("listen on UDP {address}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

/// Why a tunnel does not serve a device that it is told of; the rest is served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It is not there, or another process serves it.
    #[error("attach to TUN device {link}")]
    Attach {
        /// The device's name.
        link: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

impl Shared {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn set_fallback(&self, address: Option<SocketAddr>) {
        *self.fallback.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

impl Tunnel {
    /// Listens on `address` for UDP, and on `fallback` for TCP, with no peers and no devices yet.
    ///
    /// # Errors
    ///
    /// [`OpenTunnelError`] if the port of UDP is taken. That of TCP is waited for.
    pub fn open(address: SocketAddr, fallback: SocketAddr) -> Result<Self, OpenTunnelError> {
        let socket =
            Socket::bind(address).map_err(|source| OpenTunnelError::Listen { address, source })?;
        let shared = Arc::new(Shared {
            socket,
            table: ArcSwap::default(),
            counts: Counts::default(),
            clock: Clock::start(),
            fallback: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let mut tunnel = Self {
            shared,
            carriers: Mutex::default(),
            threads: Vec::new(),
            local: address,
        };
        for (name, work) in [
            ("inbound", inbound::carry as fn(&Shared)),
            ("keys", keep_keys),
        ] {
            let shared = Arc::clone(&tunnel.shared);
            let thread = spawn(name, move || work(&shared)).map_err(OpenTunnelError::Thread)?;
            tunnel.threads.push(thread);
        }
        let shared = Arc::clone(&tunnel.shared);
        let serve = move || fallback::serve(&shared, fallback);
        let thread = spawn("fallback", serve).map_err(OpenTunnelError::Thread)?;
        tunnel.threads.push(thread);
        Ok(tunnel)
    }

    /// Replaces peers, keys and devices. Sessions whose keys stay go on, and devices that stay are not let go of.
    ///
    /// # Errors
    ///
    /// The first device that cannot be attached to; all else is done nevertheless.
    pub fn configure(
        &self,
        document: &TunnelDocument,
        ring: &KeyRing,
    ) -> Result<(), ConfigureError> {
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        let carriers = &mut *carriers;
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut carriers.links)
            .into_iter()
            .partition(|(link, _)| document.links.contains(&link.document));
        carriers.links = kept;
        end(gone);
        let mut failure = None;
        let mut served = document.clone();
        served.links.retain(|link| {
            let is_served = carriers.links.iter().any(|(old, _)| old.document == *link);
            if is_served {
                return true;
            }
            let attached = self.serve(carriers, link);
            let is_attached = attached.is_ok();
            failure = failure.take().or(attached.err());
            is_attached
        });
        let links = served.links.iter().filter_map(|link| {
            let mut all = carriers.links.iter();
            all.find(|(carried, _)| carried.document == *link)
                .map(|(carried, _)| Arc::clone(carried))
        });
        let links: Vec<_> = links.collect();
        let Carriers { index, .. } = carriers;
        let before = self.shared.table.load();
        let next = || {
            *index = (*index + 1) % INDEXES;
            *index
        };
        let (clock, local) = (&self.shared.clock, self.local.ip());
        let table = Arc::new(Table::new(
            &served, ring, local, links, &before, clock, next,
        ));
        self.shared.table.store(Arc::clone(&table));
        before.retire(&table);
        failure.map_or(Ok(()), Err)
    }

    /// What it is doing.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell the socket's address.
    pub fn status(&self) -> io::Result<TunnelStatus> {
        let table = self.shared.table.load();
        Ok(TunnelStatus {
            listen: self.shared.socket.address()?,
            fallback: *self
                .shared
                .fallback
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            keys: table.own.iter().map(|own| own.public).collect(),
            peers: table.peers.iter().map(|peer| status(peer)).collect(),
            dropped: self.shared.counts.by_reason(),
        })
    }

    fn serve(&self, carriers: &mut Carriers, link: &LinkDocument) -> Result<(), ConfigureError> {
        let attached = Link::attach(link).map_err(|source| ConfigureError::Attach {
            link: link.name.clone(),
            source,
        })?;
        let attached = Arc::new(attached);
        let (shared, carried) = (Arc::clone(&self.shared), Arc::clone(&attached));
        let thread = spawn(&link.name, move || outbound::carry(&shared, &carried));
        let thread = thread.map_err(ConfigureError::Thread)?;
        carriers.links.push((attached, thread));
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let carriers = self
            .carriers
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        end(std::mem::take(&mut carriers.links));
        self.shared.table.load().retire(&Table::default());
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

fn end(carriers: Vec<(Arc<Link>, JoinHandle<()>)>) {
    for (link, _) in &carriers {
        link.retire();
    }
    for (_, thread) in carriers {
        let _ = thread.join(); // its panic has been printed
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Has peers agree on keys in time, for as long as there is something to say.
fn keep_keys(shared: &Shared) {
    let mut train = Train::new(&shared.socket, &shared.counts);
    while !shared.is_over() {
        let table = shared.table.load_full();
        for own in &table.own {
            own.limiter.reset_count();
        }
        for peer in &table.peers {
            let wanted = peer.is_wanted(&shared.clock);
            for pair in &peer.pairs {
                peer.send(&mut train, LONGEST_CONTROL, |out| pair.tick(wanted, out));
            }
            if let Some(fallback) = &peer.fallback {
                // By UDP, also where all else goes another way: so it is seen when it gets through again.
                if let Some(probe) = fallback.probe(!peer.pairs.is_empty()) {
                    train.push(peer.endpoint, PROBE, |out| probe.write(out));
                }
                fallback.tick();
            }
        }
        train.send();
        drop(table);
        thread::park_timeout(TICK);
    }
}

fn status(peer: &Peer) -> PeerStatus {
    let in_use = peer.in_use();
    let all = peer.pairs.iter().map(|pair| pair.status());
    let (sent, received) = all.fold((0, 0), |(sent, received), pair| {
        (sent + pair.sent, received + pair.received)
    });
    let handshake = in_use.and_then(|pair| pair.status().handshake);
    PeerStatus {
        id: peer.id.clone(),
        endpoint: peer.endpoint,
        using: in_use.map(|pair| (pair.local, pair.remote)),
        handshake: handshake.map(|age| age.as_secs()),
        sent,
        received,
        fallback: peer.fallback.as_ref().map(fallback::Fallback::status),
    }
}
