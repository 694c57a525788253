//! When leases end. That there are leases is in the store; their deadlines are not, for after a restart
//! every holder gets its full time to be heard again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::ReadableTable;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::apply::Batch;
use super::store::{Refusal, Store};

/// Below this a lease would end between two beats; etcd has the same bound.
const LEAST_TTL: i64 = 2;
/// Longest TTL in seconds, as etcd's.
const MOST_TTL: i64 = 9_000_000_000;

/// The deadlines of all leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    inner: Mutex<BTreeMap<i64, Lease>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: i64,
    deadline: Instant,
    /// Found to have expired: no longer to be kept alive, even if not yet gone from the store.
    expired: bool,
}

impl Leases {
    /// All leases of the store, each with its full time.
    pub(super) fn load(table: &impl ReadableTable<i64, i64>) -> Result<Self, redb::Error> {
        let leases = Self::default();
        for item in table.iter()? {
            let (id, ttl) = item?;
            leases.reserve(id.value(), ttl.value());
        }
        Ok(leases)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Lease>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the time of a new lease; `false` if there is one of this id.
    ///
    /// To be called before the lease is written: should that fail, or its caller go away in between, a
    /// deadline without a lease passes without harm, but a lease without a deadline would never end.
    pub(super) fn reserve(&self, id: i64, ttl: i64) -> bool {
        let lease = Lease {
            ttl,
            deadline: after(ttl),
            expired: false,
        };
        let mut leases = self.lock();
        let free = !leases.contains_key(&id);
        if free {
            leases.insert(id, lease);
            self.changed.notify_one();
        }
        free
    }

    pub(super) fn ended(&self, id: i64) {
        self.lock().remove(&id);
    }

    /// Gives a lease its full time again and returns that, or 0 if there is no such lease.
    pub(super) fn keep_alive(&self, id: i64) -> i64 {
        match self.lock().get_mut(&id) {
            Some(lease) if !lease.expired => {
                lease.deadline = after(lease.ttl);
                lease.ttl
            }
            _ => 0,
        }
    }

    /// The TTL granted and what is left of it.
    pub(super) fn remaining(&self, id: i64) -> Option<(i64, Duration)> {
        let lease = *self.lock().get(&id)?;
        Some((
            lease.ttl,
            lease.deadline.saturating_duration_since(Instant::now()),
        ))
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.lock().values().map(|lease| lease.deadline).min()
    }

    /// Marks the leases whose time is over and returns them.
    fn take_expired(&self, now: Instant) -> Vec<i64> {
        let mut leases = self.lock();
        let over = leases.iter_mut().filter(|(_, lease)| lease.deadline <= now);
        over.map(|(id, lease)| {
            lease.expired = true;
            *id
        })
        .collect()
    }

    fn postpone(&self, ids: &[i64], by: Duration) {
        let mut leases = self.lock();
        for id in ids {
            if let Some(lease) = leases.get_mut(id) {
                lease.deadline = Instant::now() + by;
            }
        }
    }

    fn renew_all(&self) {
        for lease in self.lock().values_mut().filter(|lease| !lease.expired) {
            lease.deadline = after(lease.ttl);
        }
    }
}

fn after(ttl: i64) -> Instant {
    const CENTURY: u64 = 100 * 365 * 24 * 3600;
    let seconds = u64::try_from(ttl).unwrap_or_default().min(CENTURY);
    Instant::now() + Duration::from_secs(seconds)
}

/// Deletes leases and their keys as their time ends.
pub(super) async fn expire(store: Store, stop: CancellationToken) {
    /// Later than this, the process itself stood still and cannot blame the others for their silence.
    const STALLED: Duration = Duration::from_secs(2);
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        let planned = store.leases.next_deadline();
        let wait = async {
            match planned {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = store.leases.changed.notified() => continue,
            () = wait => {}
        }
        let now = Instant::now();
        if planned.is_some_and(|at| now > at + STALLED) {
            warn!("stood still for a while, all leases get their full time again");
            store.leases.renew_all();
            continue;
        }
        let expired = store.leases.take_expired(now);
        if let Err(status) = remove(&store, expired.clone()).await {
            warn!(leases = ?expired, %status, "expired leases were not removed, trying again");
            store.leases.postpone(&expired, RETRY);
        }
    }
}

/// Removes expired leases, all in one commit, each with its keys in a revision of its own.
async fn remove(store: &Store, expired: Vec<i64>) -> Result<(), Status> {
    let ids = expired.clone();
    let write = move |batch: &mut Batch<'_>| {
        for id in ids {
            match batch.revoke(id) {
                Err(Refusal::Status(gone)) if gone.code() == Code::NotFound => {}
                revoked => revoked?,
            }
            batch.seal();
        }
        Ok(())
    };
    store.write(write).await?;
    for id in expired {
        debug!(lease = id, "lease expired");
        store.leases.ended(id);
    }
    Ok(())
}

/// Makes a lease, with an id of its own if `id` is 0, and returns the id and the TTL it has been given.
pub(super) async fn grant(store: &Store, id: i64, ttl: i64) -> Result<(i64, i64), Status> {
    if ttl > MOST_TTL {
        return Err(Status::out_of_range("etcdserver: too large lease TTL"));
    }
    let id = match id {
        0 => rand::random_range(1..i64::MAX),
        chosen => chosen,
    };
    let ttl = ttl.max(LEAST_TTL);
    if !store.leases.reserve(id, ttl) {
        return Err(Status::failed_precondition(
            "etcdserver: lease already exists",
        ));
    }
    let granted = store.write(move |batch| batch.grant(id, ttl)).await;
    match granted {
        Ok(()) => Ok((id, ttl)),
        Err(status) => {
            store.leases.ended(id);
            Err(status)
        }
    }
}

/// Ends a lease now. One that is not there is an error, but gone in any case.
pub(super) async fn revoke(store: &Store, id: i64) -> Result<(), Status> {
    let leases = std::sync::Arc::clone(&store.leases);
    let revoked = store
        .write(move |batch| {
            batch.revoke(id)?;
            batch.seal();
            Ok(())
        })
        .await;
    match &revoked {
        Err(status) if status.code() != Code::NotFound => {}
        _ => leases.ended(id),
    }
    revoked
}
