//! Saying that this host lives and what runs on it, for as long as it does.
//!
//! The endpoints wanted are kept in memory; a task makes the registry agree with them whenever it can be
//! reached. So publishing never fails and nothing is lost in an outage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::client::Registry;
use crate::model::EndpointRecord;

mod session;

use session::{LEASE_TTL, Session, SessionError};

/// Network and container of an endpoint.
type EndpointId = (String, String);

/// Where a presence stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PresenceState {
    /// The lease under which this host is alive, if the registry can be reached.
    pub lease: Option<i64>,
    /// Why this host is not to live though the registry can be reached: another one has its name or address.
    pub kept_out: Option<String>,
    /// Number of the last change that is in the registry.
    settled: u64,
}

/// This host's lease and the endpoints on it, kept in the registry by a task.
///
/// Dropped without [`Presence::shutdown`] it ends as by a crash: the lease is left to expire.
#[derive(Debug)]
pub struct Presence {
    wanted: Arc<Wanted>,
    state: watch::Receiver<PresenceState>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// The endpoints that ought to be in the registry.
#[derive(Debug)]
struct Wanted {
    inner: Mutex<WantedInner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct WantedInner {
    endpoints: BTreeMap<EndpointId, EndpointRecord>,
    /// Changed since the task last looked.
    dirty: BTreeSet<EndpointId>,
    changes: u64,
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, WantedInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: EndpointId, endpoint: Option<EndpointRecord>) {
        let mut inner = self.lock();
        match endpoint {
            Some(endpoint) => inner.endpoints.insert(id.clone(), endpoint),
            None => inner.endpoints.remove(&id),
        };
        inner.dirty.insert(id);
        inner.changes += 1;
        self.changes.send_replace(inner.changes);
    }
}

impl Presence {
    /// Becomes alive as `node`, with `endpoints` running on it.
    ///
    /// Endpoints of this node that the registry has but are not among them are those of a former daemon and
    /// are removed; therefore whatever still runs must be handed in here, not published later.
    pub fn start(
        registry: Registry,
        node: &str,
        endpoints: impl IntoIterator<Item = EndpointRecord>,
    ) -> Self {
        let id = |endpoint: &EndpointRecord| (endpoint.network.clone(), endpoint.id.clone());
        let endpoints = endpoints
            .into_iter()
            .map(|endpoint| (id(&endpoint), endpoint))
            .collect();
        let inner = WantedInner {
            endpoints,
            changes: 1,
            ..WantedInner::default()
        };
        let wanted = Arc::new(Wanted {
            inner: Mutex::new(inner),
            changes: watch::Sender::new(1),
        });
        let (report, state) = watch::channel(PresenceState::default());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            registry,
            node: node.to_owned(),
            wanted: Arc::clone(&wanted),
            report,
            stop: stop.clone(),
        };
        Self {
            wanted,
            state,
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// Wants `endpoint` in the registry, in place of a former one of its network and id.
    pub fn publish(&self, endpoint: EndpointRecord) {
        let id = (endpoint.network.clone(), endpoint.id.clone());
        self.wanted.change(id, Some(endpoint));
    }

    /// Wants the endpoint of `network` and `id` out of the registry.
    pub fn withdraw(&self, network: &str, id: &str) {
        self.wanted
            .change((network.to_owned(), id.to_owned()), None);
    }

    /// Where things stand, and each change of that.
    pub fn state(&self) -> watch::Receiver<PresenceState> {
        self.state.clone()
    }

    /// Returns when all that was published and withdrawn before the call is in the registry. In an outage
    /// that is after it: use a time-out.
    pub async fn settled(&self) {
        let asked = self.wanted.lock().changes;
        let mut state = self.state.clone();
        // An error means the task has ended, after which nothing settles any more.
        let _ = state
            .wait_for(|state| state.settled >= asked && state.lease.is_some())
            .await;
    }

    /// Revokes the lease, so that this host and its endpoints vanish at once.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "presence ended early");
        }
    }
}

/// The task behind a [`Presence`].
struct Keeper {
    registry: Registry,
    node: String,
    wanted: Arc<Wanted>,
    report: watch::Sender<PresenceState>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = Backoff::outage();
        let mut lease = None;
        loop {
            let ended = tokio::select! {
                () = self.stop.cancelled() => break,
                ended = self.hold(&mut lease, &mut backoff) => ended,
            };
            self.note_end(&ended);
            if matches!(ended, SessionError::KeptOut(_))
                && let Some(lease) = lease.take()
            {
                session::revoke(&self.registry, lease).await; // with the endpoints under it
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = backoff.wait() => {}
            }
        }
        if let Some(lease) = lease {
            session::revoke(&self.registry, lease).await;
        }
    }

    /// Holds `lease`, or a new one, and keeps the registry in agreement until either fails.
    async fn hold(&self, lease: &mut Option<i64>, backoff: &mut Backoff) -> SessionError {
        /// Repairs what others may have done to this node's keys.
        const RECONCILE: Duration = Duration::from_secs(60);
        let mut session = match Session::open(&self.registry, &self.node, lease).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        let mut changes = self.wanted.changes.subscribe();
        let mut beat = tokio::time::interval(LEASE_TTL / 3);
        // The first tick is at once. Not all hosts keep step, which an outage begins with for all.
        let mut repair = tokio::time::interval(RECONCILE.mul_f64(rand::random_range(0.75..=1.25)));
        let mut reconciled = false;
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        repair.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                biased;
                _ = beat.tick() => session.keep_alive().await,
                _ = repair.tick() => {
                    let whole = !std::mem::replace(&mut reconciled, true);
                    self.reconcile(&session, whole).await
                }
                Ok(()) = changes.changed() => self.write_changes(&session).await,
            };
            match step {
                Ok(()) => backoff.reset(),
                Err(error) => return error,
            }
        }
    }

    /// The `whole` does away, too, with what a former daemon of this host left.
    async fn reconcile(&self, session: &Session, whole: bool) -> Result<(), SessionError> {
        let (wanted, changes) = {
            let mut inner = self.wanted.lock();
            inner.dirty.clear();
            (inner.endpoints.clone(), inner.changes)
        };
        match whole {
            true => session.reconcile(&wanted).await?,
            false => session.repair(&wanted).await?,
        }
        self.settle(session, changes);
        Ok(())
    }

    async fn write_changes(&self, session: &Session) -> Result<(), SessionError> {
        let (changed, changes) = {
            let mut inner = self.wanted.lock();
            let dirty = std::mem::take(&mut inner.dirty);
            let now = |id: EndpointId| {
                let endpoint = inner.endpoints.get(&id).cloned();
                (id, endpoint)
            };
            (
                dirty.into_iter().map(now).collect::<Vec<_>>(),
                inner.changes,
            )
        };
        // What fails here is not forgotten: the next session begins by reconciling everything.
        session.write(changed).await?;
        self.settle(session, changes);
        Ok(())
    }

    fn note_end(&self, ended: &SessionError) {
        let error: &(dyn std::error::Error + 'static) = ended;
        let why = match ended {
            SessionError::KeptOut(why) => Some(why.to_string()),
            _ => None,
        };
        match &why {
            None => warn!(
                error,
                "registry lost, this host will say again that it lives"
            ),
            Some(_) if self.report.borrow().kept_out == why => {}
            Some(_) => warn!(
                error,
                "other hosts will not see this one until that is over"
            ),
        }
        self.report.send_modify(|state| {
            state.lease = None;
            state.kept_out = why;
        });
    }

    fn settle(&self, session: &Session, changes: u64) {
        self.report.send_if_modified(|state| {
            let next = PresenceState {
                lease: Some(session.lease()),
                kept_out: None,
                settled: changes,
            };
            if state.lease.is_none() {
                info!(
                    lease = session.lease(),
                    "this host is alive in the registry"
                );
            }
            let changed = *state != next;
            *state = next;
            changed
        });
    }
}
