//! To one peer by TLS: what waits to be sent, and the connection, which is made anew whenever it breaks.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConnection, pki_types::ServerName};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    WELCOME,
    frame::{self, Kind},
    tls,
};
use crate::{FallbackDocument, Identity, IdentityKey};

/// Bytes that may wait; what comes then is dropped, as on any link that is full.
const WAITING: usize = 1 << 20;
/// How long the peer may take to take a connection, and to prove who it is.
const CONNECTS: Duration = Duration::from_secs(5);
/// How long it may take to acknowledge what was sent.
const ACKNOWLEDGES: Duration = Duration::from_secs(10);
/// How long nothing is sent before a pulse is.
const PULSE: Duration = Duration::from_secs(5);
/// How long after new keys were refused they are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause before the connection is tried again, first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// What TLS is given at once.
const CHUNK: usize = 1 << 16;

pub(crate) struct Sender {
    to: SocketAddr,
    from: IpAddr,
    state: Mutex<State>,
    changed: Condvar,
    connected: AtomicBool,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// By what the two ends of a connection prove who they are.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Proof {
    pub(crate) own: Identity,
    pub(crate) other: IdentityKey,
}

struct State {
    /// For the next connection.
    proof: Proof,
    wanted: bool,
    /// It is to be wanted never again.
    retired: bool,
    /// A thread keeps the connection.
    running: bool,
    waiting: Vec<u8>,
}

/// To a peer that has taken it.
struct Connection {
    tls: ClientConnection,
    tcp: TcpStream,
    proof: Proof,
}

/// What there is to be done with a connection.
enum Task {
    /// Send what was taken.
    Send,
    /// Go on by another one, that proves what holds now.
    Renew(Proof),
    /// It is not wanted any more.
    End,
}

/// How a connection ended.
enum Ended {
    /// It is not wanted any more.
    Unwanted,
    /// It broke, after the peer had taken it or before.
    Broke { was_open: bool, error: io::Error },
}

impl Sender {
    pub(crate) fn new(to: SocketAddr, from: IpAddr, proof: Proof) -> Self {
        Self {
            to,
            from,
            state: Mutex::new(State {
                proof,
                wanted: false,
                retired: false,
                running: false,
                waiting: Vec::new(),
            }),
            changed: Condvar::new(),
            connected: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// It leads where `document` says, by keys that both ends still accept; `own` are this host's.
    pub(crate) fn may_stay(&self, document: &FallbackDocument, own: &[Identity]) -> bool {
        let state = self.state();
        let Proof { own: last, other } = &state.proof;
        self.to == document.endpoint && document.has(*other) && own.contains(last)
    }

    /// What is to be proved from now on. A connection that proves something else is replaced, without losing anything.
    pub(crate) fn prove_by(&self, proof: Proof) {
        let mut state = self.state();
        if state.proof != proof {
            state.proof = proof;
            self.changed.notify_all();
        }
    }

    /// The peer has taken the connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Connects, or lets go of the connection.
    pub(crate) fn want(self: &Arc<Self>, wanted: bool) {
        let mut state = self.state();
        let wanted = wanted && !state.retired;
        if state.wanted != wanted {
            state.wanted = wanted;
            self.changed.notify_all();
        }
        if wanted && !state.running {
            let sender = Arc::clone(self);
            let thread = thread::Builder::new().name("fallback".to_owned());
            match thread.spawn(move || sender.keep()) {
                Ok(_) => state.running = true, // it ends when it is not wanted
                Err(error) => tracing::warn!(%error, "start a thread"),
            }
        }
    }

    /// Lets go of the connection for good.
    pub(crate) fn retire(self: &Arc<Self>) {
        self.state().retired = true;
        self.want(false);
    }

    /// Sends the packet, or message, of at most `most` bytes that `fill` writes and returns the length of, if there is
    /// a connection and room.
    pub(crate) fn push(&self, kind: Kind, most: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        let mut state = self.state();
        if !self.is_connected() || state.waiting.len() + most > WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = state.waiting.is_empty();
        let added = frame::push(&mut state.waiting, kind, most, fill);
        self.sent.fetch_add(added as u64, Ordering::Relaxed);
        if was_empty && added > 0 {
            self.changed.notify_all();
        }
    }

    /// Keeps a connection for as long as it is wanted.
    fn keep(&self) {
        let mut pause = PAUSES.0;
        loop {
            match self.session() {
                Ended::Unwanted => {
                    let mut state = self.state();
                    if !state.wanted {
                        state.running = false;
                        return;
                    }
                }
                Ended::Broke { was_open, error } => {
                    match was_open {
                        true => tracing::info!(to = %self.to, %error, "the fall-back broke"),
                        false => tracing::debug!(to = %self.to, %error, "connect the fall-back"),
                    }
                    if was_open {
                        pause = PAUSES.0;
                    }
                    let state = self.state();
                    let is_wanted = |state: &mut State| state.wanted;
                    // A panic of who changes it leaves nothing half done.
                    let _ = self.changed.wait_timeout_while(state, pause, is_wanted);
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    fn session(&self) -> Ended {
        let proof = {
            let state = self.state();
            if !state.wanted {
                return Ended::Unwanted;
            }
            state.proof.clone()
        };
        let connection = match self.connect(proof) {
            Ok(connection) => connection,
            Err(error) => {
                let was_open = false;
                return Ended::Broke { was_open, error };
            }
        };
        tracing::info!(to = %self.to, "the fall-back is connected");
        self.connected.store(true, Ordering::Relaxed);
        let ended = self.carry(connection);
        self.connected.store(false, Ordering::Relaxed);
        self.state().waiting.clear();
        match ended {
            Ok(()) => Ended::Unwanted,
            Err(error) => Ended::Broke {
                was_open: true,
                error,
            },
        }
    }

    /// Connects, proves who this host is, and waits until the peer says that it takes what comes.
    fn connect(&self, proof: Proof) -> io::Result<Connection> {
        let socket = Socket::new(
            Domain::for_address(self.to),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.bind(&SocketAddr::new(self.from, 0).into())?;
        socket.connect_timeout(&self.to.into(), CONNECTS)?;
        let tcp = TcpStream::from(socket);
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(CONNECTS))?;
        tcp.set_write_timeout(Some(ACKNOWLEDGES))?;
        SockRef::from(&tcp).set_tcp_user_timeout(Some(ACKNOWLEDGES))?;
        let config = tls::client(&proof.own, proof.other).map_err(io::Error::other)?;
        let name = ServerName::from(self.to.ip());
        let tls = ClientConnection::new(Arc::new(config), name);
        let mut tls = tls.map_err(io::Error::other)?;
        tls::shake_hands(&mut tls, &tcp, CONNECTS)?;
        let mut welcome = [0; WELCOME.len()];
        io::Read::read_exact(&mut rustls::Stream::new(&mut tls, &mut &tcp), &mut welcome)?;
        match welcome == WELCOME {
            true => Ok(Connection { tls, tcp, proof }),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends what waits until it is not wanted any more.
    fn carry(&self, mut connection: Connection) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut refused = None;
        loop {
            match self.take(&mut bytes, &connection.proof, refused) {
                Task::End => return connection.end(),
                Task::Send if bytes.is_empty() => {
                    frame::push(&mut bytes, Kind::Pulse, 0, |_| 0);
                }
                Task::Send => {}
                Task::Renew(proof) => match self.connect(proof) {
                    Ok(renewed) => {
                        // If it broke meanwhile, the other one stands.
                        let _ = std::mem::replace(&mut connection, renewed).end();
                        tracing::info!(to = %self.to, "the fall-back goes on with new keys");
                    }
                    // It may not have heard of them yet, and takes those before.
                    Err(error) => {
                        tracing::debug!(to = %self.to, %error, "connect with new keys");
                        refused = Some(Instant::now());
                    }
                },
            }
            connection.send(&bytes)?;
            bytes.clear();
        }
    }

    /// Takes what waits, or nothing if for long nothing did. A connection with another `proof` than there is now is to be
    /// renewed, but not at once if that was `refused`.
    fn take(&self, into: &mut Vec<u8>, proof: &Proof, refused: Option<Instant>) -> Task {
        let may_renew = refused.is_none_or(|at| at.elapsed() >= AGAIN);
        let state = self.state();
        let is_idle = |state: &mut State| {
            let is_proved = !may_renew || state.proof == *proof;
            state.wanted && state.waiting.is_empty() && is_proved
        };
        let patience = if may_renew { PULSE } else { AGAIN };
        let waited = self.changed.wait_timeout_while(state, patience, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.wanted && may_renew && state.proof != *proof {
            return Task::Renew(state.proof.clone());
        }
        std::mem::swap(&mut state.waiting, into);
        if state.wanted { Task::Send } else { Task::End }
    }

    /// No panic leaves it half written.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            io::Write::write_all(&mut self.tls.writer(), chunk)?;
            self.flush()?;
        }
        Ok(())
    }

    /// Says that nothing more comes, after all that was sent.
    fn end(mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }
}
