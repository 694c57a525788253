//! From peers by TLS: who may connect, and what comes of what they send.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::PollFlags;
use rustls::{CertificateError, ServerConnection};
use socket2::{Domain, Protocol, Socket, Type};

use super::{WELCOME, frame, frame::Kind, tls};
use crate::{
    IdentityKey,
    batch::{Arrivals, Train},
    inbound,
    socket::wait,
    status::count,
    table::{Peer, Table},
    tunnel::Shared,
};

/// Connections of one address at a time: one, those that it has given up without our noticing, and some for strangers.
const OPEN: usize = 8;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long a peer may take to prove who it is.
const PROVES: Duration = Duration::from_secs(5);
/// How long a peer may be silent: its pulse is faster.
const SILENT: Duration = Duration::from_secs(20);
/// How often it is looked whether all this is still wanted.
const LOOK: Duration = Duration::from_millis(500);
/// How long a port that is taken is let be before it is tried again.
const TAKEN: Duration = Duration::from_secs(5);
/// What is read at once.
const CHUNK: usize = 1 << 16;

/// Takes connections at `address` until the tunnel ends. While somebody else has the port it is tried again.
pub(crate) fn serve(shared: &Arc<Shared>, address: SocketAddr) {
    let mut open = Open::default();
    while !shared.is_over() {
        match listen(address) {
            Ok(listener) => {
                shared.set_fallback(listener.local_addr().ok());
                open.accept(shared, &listener);
            }
            Err(error) => {
                tracing::warn!(%address, %error, "listen for what comes by the fall-back");
                let end = Instant::now() + TAKEN;
                while !shared.is_over() && Instant::now() < end {
                    thread::park_timeout(LOOK);
                }
            }
        }
    }
    for thread in open.threads {
        let _ = thread.join(); // its panic has been printed
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that are open.
#[derive(Default)]
struct Open {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    threads: Vec<JoinHandle<()>>,
}

/// One of an address's connections, until it is dropped.
struct Place {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Open {
    /// Accepts until the tunnel ends, or the socket fails.
    fn accept(&mut self, shared: &Arc<Shared>, listener: &TcpListener) {
        while !shared.is_over() {
            self.threads.retain(|thread| !thread.is_finished());
            match wait(listener, PollFlags::IN, LOOK) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => return tracing::warn!(%error, "wait for connections"),
            }
            match listener.accept() {
                Ok((tcp, from)) => self.admit(shared, tcp, from.ip()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!(%error, "accept"); // such as EMFILE: it passes
                    thread::park_timeout(LOOK);
                }
            }
        }
    }

    fn admit(&mut self, shared: &Arc<Shared>, tcp: TcpStream, from: IpAddr) {
        let table = shared.table.load();
        let is_known = table.peers.iter().any(|peer| has_address(peer, from));
        let place = is_known.then(|| Place::take(&self.by_address, from));
        let Some(place) = place.flatten() else {
            return count(&shared.counts.strangers);
        };
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new().name("fallback-in".to_owned());
        let spawned = thread.spawn(move || {
            let place = place;
            if let Err(error) = receive(&shared, &tcp, place.address) {
                tracing::debug!(from = %place.address, %error, "a connection of the fall-back");
            }
        });
        match spawned {
            Ok(thread) => self.threads.push(thread),
            Err(error) => tracing::warn!(%error, "start a thread"),
        }
    }
}

impl Place {
    fn take(by_address: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr) -> Option<Self> {
        let mut counts = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        (*count < OPEN).then(|| {
            *count += 1;
            Self {
                address,
                by_address: Arc::clone(by_address),
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = self.by_address.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

fn has_address(peer: &Peer, address: IpAddr) -> bool {
    let fallback = peer.fallback.as_ref();
    fallback.is_some_and(|fallback| fallback.document.endpoint.ip() == address)
}

/// The peer that has the key, as long as there is one.
fn peer_of(table: &Table, key: IdentityKey) -> Option<&Arc<Peer>> {
    let has_key = |peer: &&Arc<Peer>| {
        let fallback = peer.fallback.as_ref();
        fallback.is_some_and(|fallback| fallback.document.has(key))
    };
    table.peers.iter().find(has_key)
}

/// Makes sure who it is, and carries what it sends until it is silent, unknown, or the tunnel ends.
fn receive(shared: &Arc<Shared>, tcp: &TcpStream, from: IpAddr) -> io::Result<()> {
    tcp.set_nonblocking(false)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PROVES))?;
    tcp.set_write_timeout(Some(PROVES))?;
    let (mut tls, key) = prove(shared, tcp).inspect_err(|_| {
        count(&shared.counts.strangers);
    })?;
    let unknown = || io::Error::other(CertificateError::ApplicationVerificationFailure.to_string());
    let open = {
        let table = shared.table.load();
        let peer = peer_of(&table, key).ok_or_else(unknown)?;
        let fallback = peer.fallback.as_ref().ok_or_else(unknown)?;
        Opened::new(&fallback.open)
    };
    io::Write::write_all(&mut tls.writer(), &WELCOME)?;
    tls::shake_hands(&mut tls, tcp, PROVES)?; // all that it has to write
    tracing::info!(%from, "a peer sends by the fall-back");
    tcp.set_read_timeout(Some(LOOK))?;
    let carried = Inflow::new(shared, key).carry(&mut tls, tcp);
    drop(open);
    carried
}

/// Counts as open until it is dropped.
struct Opened(Arc<AtomicUsize>);

impl Opened {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn prove(shared: &Arc<Shared>, tcp: &TcpStream) -> io::Result<(ServerConnection, IdentityKey)> {
    let known = Arc::clone(shared);
    let is_trusted = move |key| peer_of(&known.table.load(), key).is_some();
    let own = &shared.table.load().identities;
    let config = tls::server(own, Box::new(is_trusted)).map_err(io::Error::other)?;
    let mut tls = ServerConnection::new(Arc::new(config)).map_err(io::Error::other)?;
    tls::shake_hands(&mut tls, tcp, PROVES)?;
    let sent = tls.peer_certificates().and_then(<[_]>::first);
    let key = sent.and_then(|sent| IdentityKey::read(sent));
    let key = key.ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
    Ok((tls, key))
}

/// What comes by one connection.
struct Inflow<'s> {
    shared: &'s Shared,
    key: IdentityKey,
    bytes: Vec<u8>,
    arrivals: Arrivals,
    answers: Train<'s>,
}

impl<'s> Inflow<'s> {
    fn new(shared: &'s Shared, key: IdentityKey) -> Self {
        Self {
            shared,
            key,
            bytes: Vec::new(),
            arrivals: Arrivals::new(),
            answers: Train::new(&shared.socket, &shared.counts),
        }
    }

    fn carry(mut self, tls: &mut ServerConnection, mut tcp: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut heard = Instant::now();
        while !self.shared.is_over() && heard.elapsed() < SILENT {
            match tls.read_tls(&mut tcp) {
                Ok(0) => return Ok(()),
                Ok(_) => heard = Instant::now(),
                Err(error) if is_patience(&error) => {}
                Err(error) => return Err(error),
            }
            let state = tls.process_new_packets();
            state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            loop {
                match io::Read::read(&mut tls.reader(), &mut buffer) {
                    Ok(0) => return Ok(()), // it has said that it ends
                    Ok(length) => self.take(&buffer[..length])?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Carries the frames that are whole by now; of the last one the rest may be still to come.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        let table = self.shared.table.load();
        let gone = || io::Error::other("the host is not known any more");
        let peer = peer_of(&table, self.key).ok_or_else(gone)?;
        let whole = std::mem::take(&mut self.bytes);
        let mut rest = &whole[..];
        while let Some((kind, frame)) = frame::pop(&mut rest).map_err(io::Error::other)? {
            match kind {
                Kind::Pulse => {}
                Kind::Packet => self.packet(&table, peer, frame),
                Kind::Message => {
                    let from = peer.endpoint;
                    let (arrivals, answers) = (&mut self.arrivals, &mut self.answers);
                    inbound::receive(self.shared, &table, from, frame, arrivals, answers);
                }
            }
        }
        self.arrivals.write();
        self.answers.send();
        if let Some(fallback) = &peer.fallback {
            let bytes = (whole.len() - rest.len()) as u64;
            fallback.received.fetch_add(bytes, Ordering::Relaxed);
        }
        let done = whole.len() - rest.len();
        self.bytes = whole;
        self.bytes.drain(..done);
        Ok(())
    }

    /// A packet that is not sealed is taken for networks only whose packets need not be.
    fn packet(&mut self, table: &Table, peer: &Peer, packet: &[u8]) {
        let link = table.link_for(peer, packet);
        match link.filter(|link| !link.document.sealed) {
            Some(link) => {
                self.arrivals.room(packet.len()).copy_from_slice(packet);
                self.arrivals.keep(packet.len(), link);
            }
            None => count(&self.shared.counts.foreign),
        }
    }
}

/// Nothing came while it was waited for.
fn is_patience(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
