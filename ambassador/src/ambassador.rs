//! The set of forwards that run, changed as a whole.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::access_log::AccessLog;
use crate::apply_error::{ApplyError, check};
use crate::count::Count;
use crate::direct::{DirectForward, Director, ServiceKey, Task};
use crate::flow::FlowTable;
use crate::handover::{Heritage, Inherited};
use crate::open::{Draining, Listener, Prepared, Retired, Sockets};
use crate::running::{Running, Shared};
use crate::sys::Port;
use crate::tcp::{Closed, Engine, PipePool};
use crate::{EndpointView, Explained, Flow, FlowFilter, Forward, Listen, Options, health};

/// How long a change waits for UDP listeners to be closed.
const CLOSING: Duration = Duration::from_secs(1);
/// Between two looks at that.
const GLANCE: Duration = Duration::from_millis(1);

/// Listeners and the flows they have accepted. Dropping it ends them all.
#[derive(Debug)]
pub struct Ambassador {
    shared: Arc<Shared>,
    direct: Director,
    state: Mutex<State>,
    ready: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Listener>,
    draining: Vec<Draining>,
    /// A predecessor's, until a configuration has said which of them are wanted.
    inherited: Vec<Inherited>,
    /// Made with the first configuration.
    engine: Option<Engine>,
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
        let direct = Director::new();
        Self {
            shared: Arc::new(Shared {
                flows: Arc::new(FlowTable::new()),
                pipes,
                options,
                congestion: OnceLock::new(),
                open: Count::default(),
                probes: Semaphore::new(health::MOST_AT_ONCE),
                direct: direct.desk().clone(),
            }),
            direct,
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
        self.change(forwards, Err).await
    }

    /// As [`Self::apply`], but a listener that cannot be had keeps none of the others from being served. Returns what
    /// is wrong with those; try again later.
    ///
    /// # Errors
    ///
    /// [`ApplyError`] if the forwards contradict each other.
    pub async fn apply_available(
        &self,
        forwards: Vec<Forward>,
    ) -> Result<Vec<ApplyError>, ApplyError> {
        let mut unavailable = Vec::new();
        let note = |error| {
            unavailable.push(error);
            Ok(())
        };
        self.change(forwards, note).await?;
        Ok(unavailable)
    }

    /// `refused` is asked about each listener that cannot be had, and may let it be left out.
    async fn change(
        &self,
        forwards: Vec<Forward>,
        refused: impl FnMut(ApplyError) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        check(&forwards)?;
        let gone = self.exchange(&forwards, refused)?;
        self.direct.settled().await;
        self.ready.store(true, Ordering::Relaxed);
        closed(gone).await;
        // Should that take long, it is not what the forwards have to wait for.
        let _ = timeout(CLOSING, self.let_go()).await;
        Ok(())
    }

    /// Waits until the UDP listeners are closed that have no session.
    async fn let_go(&self) {
        while self.lock().draining.iter().any(Draining::is_ending) {
            sleep(GLANCE).await;
        }
    }

    /// Returns the TCP listeners that are being closed.
    fn exchange(
        &self,
        forwards: &[Forward],
        mut refused: impl FnMut(ApplyError) -> Result<(), ApplyError>,
    ) -> Result<Vec<(Arc<Running>, Closed)>, ApplyError> {
        let mut state = self.lock();
        state.draining.retain(|draining| !draining.is_over());
        let State { engine, .. } = &mut *state;
        let engine = match engine.take() {
            Some(running) => engine.insert(running),
            None => engine.insert(self.engine()?),
        };
        let workers = engine.workers();
        let mut served = Vec::with_capacity(forwards.len());
        for forward in forwards {
            if state.position(forward).is_some() {
                served.push((forward, None));
                continue;
            }
            match self.sockets(&state, forward, forwards, workers) {
                Ok(sockets) => served.push((forward, Some(sockets))),
                Err(error) => refused(error)?,
            }
        }
        // From here on nothing fails.
        state.inherited.clear();
        let mut old = std::mem::take(&mut state.listeners);
        for (forward, prepared) in served {
            let listener = match prepared {
                Some(prepared) => self.start(&state, forward, prepared),
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
        self.direct.order(state.tasks(forwards));
        Ok(state.retire(old))
    }

    fn engine(&self) -> Result<Engine, ApplyError> {
        let workers = self.shared.options.workers;
        Engine::start(workers).map_err(|source| ApplyError::Workers { workers, source })
    }

    /// Sockets for a new forward: those that are open for that address already, or fresh ones.
    fn sockets(
        &self,
        state: &State,
        forward: &Forward,
        forwards: &[Forward],
        workers: usize,
    ) -> Result<Prepared, ApplyError> {
        let listen = forward.listen;
        let bind = || {
            let port = state.port(listen, forwards);
            Sockets::bind(listen, &self.shared.options, port, workers)
        };
        let sockets = state.sockets_for(forward).map_or_else(bind, Ok);
        sockets
            .and_then(|sockets| sockets.prepare(workers))
            .map_err(|source| ApplyError::Bind {
                forward: forward.name.clone(),
                listen,
                source,
            })
    }

    fn start(&self, state: &State, forward: &Forward, prepared: Prepared) -> Listener {
        let local = prepared.local;
        let running = Running::start(self.shared.clone(), forward, local);
        info!(forward = %forward.name, listen = %forward.listen, %local, "listening");
        let engine = state.engine.as_ref().expect("made before the sockets");
        prepared.serve(engine, running)
    }

    /// The listeners that are open.
    pub fn listeners(&self) -> Vec<Bound> {
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

    /// What each listener does, and why; in the order of [`Self::listeners`].
    pub fn explain(&self) -> Vec<Explained> {
        let now = Instant::now();
        let state = self.lock();
        let running = state.listeners.iter().map(|listener| &listener.running);
        running
            .map(|running| Explained::new(running, now))
            .collect()
    }

    /// Ends the flows that match, and returns how many these are. Peers see a reset, and the ends
    /// are under way on return.
    pub fn end_flows(&self, filter: &FlowFilter) -> usize {
        self.shared.flows.end_matching(filter)
    }

    /// Writes the end of each flow to `log` from now on. Of several logs the first one is used.
    pub fn log_flows(&self, log: AccessLog) {
        self.shared.flows.log_to(log);
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
        self.shared.open.wait(|open| open == 0).await;
    }

    /// Closes all listeners, then waits for flows to end, at most for `grace`. Returns how many
    /// are left.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.unready();
        let gone = {
            let mut state = self.lock();
            let all = std::mem::take(&mut state.listeners);
            self.direct.order(Vec::new());
            state.retire(all)
        };
        closed(gone).await;
        let _ = timeout(grace, self.idle()).await;
        self.shared.open.now()
    }

    /// Makes the next configuration use a predecessor's sockets, where it asks for what they listen
    /// on; the others are closed here once it is applied. For listeners on port 0 the forward must
    /// have the same name.
    pub fn inherit(&self, heritage: &mut Heritage) {
        self.lock().inherited = std::mem::take(&mut heritage.listeners);
    }

    /// What is open, for a successor.
    pub(crate) fn offer(&self) -> Vec<(Bound, Sockets)> {
        let state = self.lock();
        let open = |listener: &Listener| (bound(listener), listener.sockets.clone());
        state.listeners.iter().map(open).collect()
    }

    /// Stops to take newcomers, who are a successor's. What is open goes on.
    pub(crate) async fn hand_over(&self) {
        self.unready();
        let gone = {
            let mut state = self.lock();
            let all = std::mem::take(&mut state.listeners);
            for listener in &all {
                listener.running.handed_over.store(true, Ordering::Relaxed);
            }
            state.retire(all)
        };
        closed(gone).await;
    }

    /// How the forwards fare whose clients are to go straight to the endpoints.
    pub fn direct(&self) -> Vec<DirectForward> {
        self.direct.reports()
    }

    pub(crate) fn table(&self) -> &FlowTable {
        &self.shared.flows
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        self.shared.flows.abort_all();
    }
}

impl State {
    fn position(&self, forward: &Forward) -> Option<usize> {
        self.listeners
            .iter()
            .position(|listener| listener.serves(forward))
    }

    /// What is to be rewritten, now that each of `forwards` has its listener.
    fn tasks(&self, forwards: &[Forward]) -> Vec<Task> {
        let direct = forwards.iter().filter(|forward| !forward.direct.is_empty());
        let task = |forward: &Forward| {
            let running = &self.listeners[self.position(forward)?].running;
            Some(Task {
                running: Arc::downgrade(running),
                forward: running.name.clone(),
                service: ServiceKey::new(forward.listen.protocol, running.local).ok()?,
                cgroups: forward.direct.clone(),
            })
        };
        direct.filter_map(task).collect()
    }

    /// Sockets that are open for `listen`, under another name or for sessions that go on.
    fn sockets_for(&self, forward: &Forward) -> Option<Sockets> {
        let listen = forward.listen;
        let wanted = |known: &&Inherited| known.listen == listen && known.name == forward.name;
        if let Some(inherited) = self.inherited.iter().find(wanted) {
            return Some(inherited.sockets.clone());
        }
        if listen.address.port() == 0 {
            return None;
        }
        let renamed = (self.inherited.iter()).find(|known| known.listen == listen);
        if let Some(inherited) = renamed {
            return Some(inherited.sockets.clone());
        }
        let open = (self.listeners.iter()).find(|listener| listener.running.listen == listen);
        let draining = || (self.draining.iter()).find(|draining| draining.listen == listen);
        open.map(|listener| listener.sockets.clone())
            .or_else(|| Some(Sockets::Udp(draining()?.socket.upgrade()?)))
    }

    /// A listener that goes may still have the port, for another address that overlaps: then it is
    /// shared until that one is closed. One of a single address may stand beside one of every
    /// address, before which the kernel prefers it.
    fn port(&self, listen: Listen, forwards: &[Forward]) -> Port {
        let goes = |rival: &Listener| !forwards.iter().any(|forward| rival.serves(forward));
        let gives_way = |rival: &Listener| goes(rival) || is_beside(rival.running.listen, listen);
        let mut rivals = (self.listeners.iter()).filter(|listener| listener.overlaps(listen));
        let beside = forwards.iter().any(|other| is_beside(other.listen, listen));
        match rivals.next() {
            Some(first) if gives_way(first) && rivals.all(gives_way) => Port::Shared,
            None if beside => Port::Shared,
            _ => Port::Own,
        }
    }

    /// Closes listeners to newcomers. Those of TCP are handed back, to be waited for.
    fn retire(&mut self, old: Vec<Listener>) -> Vec<(Arc<Running>, Closed)> {
        let mut tcp = Vec::new();
        for listener in old {
            match listener.retire() {
                Retired::Tcp(running, closed) => tcp.push((running, closed)),
                Retired::Udp(draining) => self.draining.push(draining),
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

/// Whether one listens at every address and the other at a single one, on the same port.
fn is_beside(one: Listen, other: Listen) -> bool {
    one.protocol == other.protocol
        && one.address.port() == other.address.port()
        && one.address.port() != 0
        && one.address.ip().is_unspecified() != other.address.ip().is_unspecified()
}

fn bound(listener: &Listener) -> Bound {
    Bound {
        name: listener.running.name.to_string(),
        listen: listener.running.listen,
        local: listener.running.local,
    }
}

/// Waits until the ports are free.
async fn closed(gone: Vec<(Arc<Running>, Closed)>) {
    for (running, closed) in gone {
        closed.wait().await;
        info!(forward = %running.name, listen = %running.listen, "closed");
    }
}
