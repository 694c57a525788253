//! The set of forwards that run, changed as a whole.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use crate::apply_error::{ApplyError, check};
use crate::flow::{FlowTable, Sums};
use crate::running::{Running, Shared};
use crate::tcp::PipePool;
use crate::{EndpointView, Flow, Forward, Listen, Options, Protocol, health, sys, tcp, udp};

/// Listeners and the flows they have accepted. Dropping it ends them all.
#[derive(Debug)]
pub struct Ambassador {
    shared: Arc<Shared>,
    state: Mutex<State>,
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Listener>,
    /// UDP forwards that were removed while sessions went on, which need the socket.
    draining: Vec<Draining>,
}

#[derive(Debug)]
struct Listener {
    running: Arc<Running>,
    socket: Socket,
    task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Draining {
    listen: Listen,
    socket: Weak<UdpSocket>,
    task: AbortOnDropHandle<()>,
}

#[derive(Clone, Debug)]
enum Socket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpSocket>),
}

/// A listener that is open.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The name of its forward.
    pub name: String,
    /// What was asked for.
    pub listen: Listen,
    /// What the kernel gave: the port is never 0.
    pub local: SocketAddr,
}

impl Ambassador {
    /// An ambassador that does nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let pipes = PipePool::new(options.max_pipes, options.pipe_size);
        Self {
            shared: Arc::new(Shared {
                flows: Arc::new(FlowTable::new()),
                pipes,
                options,
                open: watch::channel(0).0,
                probes: Semaphore::new(health::MOST_AT_ONCE),
                stopped: CancellationToken::new(),
            }),
            state: Mutex::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// Makes `forwards` what runs, or changes nothing.
    ///
    /// Listeners that stay are not touched, though their upstreams and limits may change; those
    /// that go are closed on return. Flows go on in any case.
    ///
    /// # Errors
    ///
    /// [`ApplyError`] if a listener cannot be had, or the forwards contradict each other.
    pub async fn apply(&self, forwards: Vec<Forward>) -> Result<(), ApplyError> {
        check(&forwards)?;
        let gone = self.exchange(&forwards)?;
        self.ready.store(true, Ordering::Relaxed);
        for listener in gone {
            info!(forward = %listener.running.name, listen = %listener.running.listen, "closed");
            // Once the task has ended, the port is free.
            drop(listener.socket);
            let _ = listener.task.await;
        }
        Ok(())
    }

    /// Returns the TCP listeners that were closed.
    fn exchange(&self, forwards: &[Forward]) -> Result<Vec<Listener>, ApplyError> {
        let mut state = self.lock();
        state
            .draining
            .retain(|draining| !draining.task.is_finished());
        let mut sockets = Vec::with_capacity(forwards.len());
        for forward in forwards {
            sockets.push(match state.position(forward) {
                Some(_) => None,
                None => Some(self.socket(&state, forward)?),
            });
        }
        // From here on nothing fails.
        let mut old = std::mem::take(&mut state.listeners);
        for (forward, socket) in forwards.iter().zip(sockets) {
            let listener = match socket {
                Some((socket, local)) => self.start(forward, socket, local),
                None => {
                    let same = |listener: &Listener| listener.serves(forward);
                    let kept = old.iter().position(same).expect("position has found it");
                    let kept = old.swap_remove(kept);
                    kept.running.reconfigure(forward);
                    kept
                }
            };
            state.listeners.push(listener);
        }
        Ok(state.retire(old))
    }

    /// A socket for a new forward: one that is open for that address already, or a fresh one.
    fn socket(&self, state: &State, forward: &Forward) -> Result<(Socket, SocketAddr), ApplyError> {
        let listen = forward.listen;
        let found = state.socket_for(listen);
        let socket = found.map_or_else(|| Socket::bind(listen, &self.shared.options), Ok);
        socket
            .and_then(|socket| Ok((socket.clone(), socket.local()?)))
            .map_err(|source| ApplyError::Bind {
                forward: forward.name.clone(),
                listen,
                source,
            })
    }

    fn start(&self, forward: &Forward, socket: Socket, local: SocketAddr) -> Listener {
        let running = Running::start(self.shared.clone(), forward, local);
        info!(forward = %forward.name, listen = %forward.listen, %local, "listening");
        let task = match socket.clone() {
            Socket::Tcp(socket) => tokio::spawn(tcp::serve(socket, running.clone())),
            Socket::Udp(socket) => tokio::spawn(udp::serve(socket, running.clone())),
        };
        Listener {
            running,
            socket,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// The listeners that are open.
    pub fn listeners(&self) -> Vec<Bound> {
        let bound = |listener: &Listener| Bound {
            name: listener.running.name.to_string(),
            listen: listener.running.listen,
            local: listener.running.local,
        };
        self.lock().listeners.iter().map(bound).collect()
    }

    /// The flows that are open, oldest first.
    pub fn flows(&self) -> Vec<Flow> {
        self.shared.flows.flows()
    }

    /// What is known of the endpoints of each forward, by the forward's name, in the order of
    /// [`Self::listeners`]. Flows are not held up by this, nor is any state changed.
    pub fn endpoints(&self) -> Vec<(String, Vec<EndpointView>)> {
        let now = Instant::now();
        let views = |listener: &Listener| {
            let running = &listener.running;
            (running.name.to_string(), running.balancer.views(now))
        };
        self.lock().listeners.iter().map(views).collect()
    }

    /// Whether a configuration was applied and nobody has called [`Self::unready`].
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Asks those who look at `/ready` to send newcomers elsewhere; those who come are served.
    pub fn unready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Returns once no flow is open, or being connected.
    pub async fn idle(&self) {
        let mut open = self.shared.open.subscribe();
        // The sender lives as long as `self`.
        let _ = open.wait_for(|open| *open == 0).await;
    }

    /// Closes all listeners, then waits for flows to end, at most for `grace`. Returns how many
    /// are left.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.unready();
        let gone = {
            let mut state = self.lock();
            let all = std::mem::take(&mut state.listeners);
            state.retire(all)
        };
        for listener in gone {
            drop(listener.socket);
            let _ = listener.task.await;
        }
        let _ = timeout(grace, self.idle()).await;
        *self.shared.open.borrow()
    }

    pub(crate) fn sums(&self) -> HashMap<String, Sums> {
        let state = self.lock();
        let running = state.listeners.iter().map(|listener| &*listener.running);
        self.shared
            .flows
            .sums(running.map(|running| (&*running.name, &*running.totals)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        self.shared.stopped.cancel();
        self.shared.flows.abort_all();
    }
}

impl State {
    fn position(&self, forward: &Forward) -> Option<usize> {
        self.listeners
            .iter()
            .position(|listener| listener.serves(forward))
    }

    /// A socket that is open for `listen`, under another name or for sessions that go on.
    fn socket_for(&self, listen: Listen) -> Option<Socket> {
        if listen.address.port() == 0 {
            return None;
        }
        let open = (self.listeners.iter()).find(|listener| listener.running.listen == listen);
        let draining = || (self.draining.iter()).find(|draining| draining.listen == listen);
        open.map(|listener| listener.socket.clone())
            .or_else(|| Some(Socket::Udp(draining()?.socket.upgrade()?)))
    }

    /// Closes listeners to newcomers. Those of TCP are handed back, to be waited for.
    fn retire(&mut self, old: Vec<Listener>) -> Vec<Listener> {
        let mut tcp = Vec::new();
        for listener in old {
            listener.running.closed.cancel();
            match &listener.socket {
                Socket::Tcp(_) => tcp.push(listener),
                Socket::Udp(socket) => self.draining.push(Draining {
                    listen: listener.running.listen,
                    socket: Arc::downgrade(socket),
                    task: listener.task,
                }),
            }
        }
        // Two must not read from one socket: a new forward on it ends the old sessions.
        let listeners = &self.listeners;
        let taken = |listen| {
            listeners
                .iter()
                .any(|listener| listener.running.listen == listen)
        };
        self.draining.retain(|draining| !taken(draining.listen));
        tcp
    }
}

impl Listener {
    fn serves(&self, forward: &Forward) -> bool {
        self.running.listen == forward.listen && *self.running.name == *forward.name
    }
}

impl Socket {
    fn bind(listen: Listen, options: &Options) -> io::Result<Self> {
        Ok(match listen.protocol {
            Protocol::Tcp => {
                let socket = sys::listen(listen.address, options)?;
                Self::Tcp(Arc::new(TcpListener::from_std(socket)?))
            }
            Protocol::Udp => {
                let socket = udp::listen(listen.address)?;
                Self::Udp(Arc::new(UdpSocket::from_std(socket)?))
            }
        })
    }

    fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}
