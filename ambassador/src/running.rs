//! A forward that runs: its settings, which may change, and what it knows of its upstreams.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::{Semaphore, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::balance::{Balancer, Rules};
use crate::count::Count;
use crate::direct::Desk;
use crate::flow::{FlowTable, Totals};
use crate::health::Checks;
use crate::sni::{NamePattern, Routes};
use crate::sys::Congestion;
use crate::tcp::PipePool;
use crate::{Discovery, Edge, EndpointSet, Forward, Limits, Listen, Options, loops};

/// What all forwards of an ambassador share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) flows: Arc<FlowTable>,
    pub(crate) pipes: Arc<PipePool>,
    pub(crate) congestion: OnceLock<Congestion>,
    /// Flows of all forwards that are open or being connected.
    pub(crate) open: Count,
    /// Lent to each check while it is under way.
    pub(crate) probes: Semaphore,
    /// Told when endpoints have come, gone or been ejected.
    pub(crate) direct: Arc<Desk>,
}

/// What a listener and its flows share.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) name: Arc<str>,
    /// As it was asked for; `local` has the port that the kernel chose.
    pub(crate) listen: Listen,
    pub(crate) local: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    pub(crate) balancer: Balancer,
    pub(crate) totals: Arc<Totals>,
    checks: Checks,
    /// Newcomers that wait for an upstream.
    pending: AtomicUsize,
    /// Flows that are open or being connected.
    pub(crate) open: Count,
    pub(crate) limits: watch::Sender<Limits>,
    pub(crate) edge: watch::Sender<Arc<Edge>>,
    /// Upstreams by server name.
    pub(crate) routes: Routes,
    /// The name that leads here; none for a forward's own upstreams.
    route: Option<NamePattern>,
    present: Arc<Present>,
    pub(crate) resolved: watch::Sender<bool>,
    /// Sent to when endpoints have left, and when the time of their flows is over.
    pub(crate) left: watch::Sender<()>,
    /// Cancelled when no newcomers are wanted.
    pub(crate) closed: CancellationToken,
    /// Set before that, if a successor reads from the sockets that they share.
    pub(crate) handed_over: AtomicBool,
    source: Mutex<Option<Source>>,
}

/// The endpoints of a forward, by the name that leads to them.
#[derive(Debug, Default)]
struct Present(Mutex<Parts>);

type Parts = HashMap<Option<NamePattern>, Vec<SocketAddr>>;

impl Present {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Source {
    upstreams: watch::Receiver<Arc<EndpointSet>>,
    _follower: AbortOnDropHandle<()>,
}

impl Running {
    pub(crate) fn start(shared: Arc<Shared>, forward: &Forward, local: SocketAddr) -> Arc<Self> {
        Self::part(shared, forward, local, (None, Arc::default()))
    }

    /// Another one for flows of this one's listener, with upstreams of its own.
    pub(crate) fn route(&self, pattern: NamePattern, forward: &Forward) -> Arc<Self> {
        let (shared, present) = (self.shared.clone(), self.present.clone());
        Self::part(shared, forward, self.local, (Some(pattern), present))
    }

    /// Forgets the endpoints of names that lead nowhere any more.
    pub(crate) fn keep_routes(&self, keep: impl Fn(&NamePattern) -> bool) {
        let mut parts = self.present.lock();
        parts.retain(|route, _| route.as_ref().is_none_or(&keep));
        self.tell_present(&parts);
    }

    fn part(
        shared: Arc<Shared>,
        forward: &Forward,
        local: SocketAddr,
        (route, present): (Option<NamePattern>, Arc<Present>),
    ) -> Arc<Self> {
        let name = forward.name.as_str().into();
        let running = Arc::new(Self {
            totals: shared.flows.totals(&name),
            name,
            listen: forward.listen,
            local,
            shared,
            balancer: Balancer::default(),
            checks: Checks::default(),
            pending: AtomicUsize::new(0),
            open: Count::default(),
            limits: watch::channel(forward.limits).0,
            edge: watch::channel(Arc::default()).0,
            routes: Routes::default(),
            route,
            present,
            resolved: watch::channel(false).0,
            left: watch::channel(()).0,
            closed: CancellationToken::new(),
            handed_over: AtomicBool::new(false),
            source: Mutex::new(None),
        });
        running.reconfigure(forward);
        let left = running.left.subscribe();
        tokio::spawn(end_in_time(Arc::downgrade(&running), left));
        running
    }

    /// Takes over limits, balance, edge and upstreams. Open flows are not touched, but for those
    /// whose endpoint leaves or whose peer may not speak any more.
    pub(crate) fn reconfigure(self: &Arc<Self>, forward: &Forward) {
        self.limits.send_replace(forward.limits);
        let balance = &forward.balance;
        self.balancer.configure(Rules {
            policy: balance.policy,
            eject: balance.eject,
            on_remove: balance.on_remove,
            most: forward.limits.max_per_endpoint.max(1),
        });
        // Before the rules: whoever is asked for a name finds what it leads to.
        self.routes.follow(self, forward);
        self.edge.send_replace(Arc::new(forward.edge.clone()));
        self.learn_from(forward);
        self.checks.configure(balance.check.as_ref(), self);
    }

    fn learn_from(self: &Arc<Self>, forward: &Forward) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |source: &Source| source.upstreams.same_channel(&forward.upstreams);
        if source.as_ref().is_some_and(same) {
            return;
        }
        let mut upstreams = forward.upstreams.clone();
        self.learn(&upstreams.borrow_and_update().clone());
        let follower = tokio::spawn({
            let (running, mut upstreams) = (Arc::downgrade(self), upstreams.clone());
            async move {
                // When nobody will send any more, the last set stays.
                while upstreams.changed().await.is_ok() {
                    let Some(running) = running.upgrade() else {
                        return;
                    };
                    let set = upstreams.borrow_and_update().clone();
                    running.learn(&set);
                }
            }
        });
        *source = Some(Source {
            upstreams,
            _follower: AbortOnDropHandle::new(follower),
        });
    }

    fn learn(&self, set: &EndpointSet) {
        if !set.resolved {
            return;
        }
        let local = Listen {
            address: self.local,
            ..self.listen
        };
        let (own, others): (Vec<_>, Vec<_>) =
            (set.endpoints.iter().copied()).partition(|endpoint| loops::reaches(*endpoint, local));
        if !own.is_empty() {
            warn!(forward = %self.name, listen = %local, ?own, "upstream is this listener: left out");
        }
        if !others.is_empty() {
            let mut parts = self.present.lock();
            parts.insert(self.route.clone(), others.clone());
            self.tell_present(&parts);
        }
        let others: Vec<_> = (others.into_iter())
            .map(|endpoint| (endpoint, set.weight(endpoint)))
            .collect();
        let left = self.balancer.update(&others, Instant::now());
        if !left.is_empty() {
            info!(forward = %self.name, ?left, "endpoints have left");
            self.left.send_replace(());
            self.end_due();
        }
        self.checks.follow(self);
        self.resolved.send_replace(true);
        self.shared.direct.tell();
    }

    /// The parts of a forward share its count.
    fn tell_present(&self, parts: &Parts) {
        let all: Vec<_> = parts.values().flatten().copied().collect();
        self.totals.present(&all, Instant::now());
    }

    /// Ends the flows whose endpoint has left, if their time is over.
    fn end_due(&self) {
        let mut over = self.balancer.over(Instant::now());
        // Flows are known by their forward: those of another name to the same address go on.
        let parts = self.present.lock();
        let others = parts.iter().filter(|(route, _)| **route != self.route);
        let others: HashSet<_> = others.flat_map(|(_, present)| present).copied().collect();
        drop(parts);
        over.retain(|endpoint| !others.contains(endpoint));
        if over.is_empty() {
            return;
        }
        let ended = self.shared.flows.end(&self.totals, &over);
        info!(forward = %self.name, endpoints = ?over, ended, "flows of endpoints that left end");
        self.left.send_replace(());
    }

    /// Counts one more newcomer that waits for an upstream, until the guard is dropped. None if
    /// there are as many as there may be.
    pub(crate) fn pend(&self) -> Option<Pending<'_>> {
        let most = self.limits.borrow().max_pending;
        let one_more = |pending| (pending < most).then(|| pending + 1);
        (self.pending)
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Pending(&self.pending))
    }

    /// How the set of upstreams is known.
    pub(crate) fn discovery(&self) -> Discovery {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let source = source.as_ref();
        source.map_or_else(Discovery::default, |source| {
            source.upstreams.borrow().discovery.clone()
        })
    }

    /// Counts one more flow until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.open.add();
        self.entered()
    }

    /// Counts one more flow if that is within the bound.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Entered> {
        let most = self.limits.borrow().max_connections;
        self.open.add_within(most).then(|| self.entered())
    }

    /// Counts one more flow as soon as that is within the bound.
    pub(crate) async fn enter_when_there_is_room(self: &Arc<Self>) -> Entered {
        loop {
            if let Some(entered) = self.try_enter() {
                return entered;
            }
            let mut limits = self.limits.subscribe();
            let most = limits.borrow_and_update().max_connections;
            tokio::select! {
                () = self.open.wait(|now| now < most) => {}
                _ = limits.changed() => {}
            }
        }
    }

    fn entered(self: &Arc<Self>) -> Entered {
        self.shared.open.add();
        let running = self.clone();
        Entered { running }
    }
}

/// Ends flows when the time is over that they had after their endpoint left.
async fn end_in_time(running: Weak<Running>, mut left: watch::Receiver<()>) {
    loop {
        let next = {
            let Some(running) = running.upgrade() else {
                return;
            };
            running.end_due();
            running.balancer.next_over()
        };
        let due = async {
            match next {
                Some(next) => sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = left.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// A newcomer that counts as waiting.
#[derive(Debug)]
pub(crate) struct Pending<'a>(&'a AtomicUsize);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A flow that counts towards its forward's bound.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) running: Arc<Running>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.open.subtract();
        self.running.shared.open.subtract();
    }
}
