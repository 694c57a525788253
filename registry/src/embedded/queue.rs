//! Queues, which locks and elections are: of the keys under a name, each on a lease, the oldest is first.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::apply::Batch;
use super::lease;
use super::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use super::pb::mvccpb::KeyValue;
use super::store::{Refusal, Store, view_range};
use super::tables::Keys;

/// TTL in seconds of the lease of who brings none. It is kept alive while its holder waits in a call.
const OWN_TTL: i64 = 60;

/// A place in a queue, given up when this is dropped before [`Place::keep`].
pub(super) struct Place {
    store: Store,
    prefix: Vec<u8>,
    pub(super) key: Vec<u8>,
    /// The revision that made the key, which orders the queue.
    pub(super) revision: i64,
    pub(super) lease: i64,
    own_lease: bool,
    kept: bool,
}

impl Place {
    /// Takes the place that `lease` has in the queue `name`, or with 0 one on a new lease, and puts `value` there.
    pub(super) async fn take(
        store: &Store,
        name: &[u8],
        lease: i64,
        value: Vec<u8>,
    ) -> Result<Self, Status> {
        let own_lease = lease == 0;
        let lease = match lease {
            0 => lease::grant(store, 0, OWN_TTL).await?.0,
            given => given,
        };
        let prefix = prefix(name);
        let key = [&prefix[..], format!("{lease:x}").as_bytes()].concat();
        let mut place = Self {
            store: store.clone(),
            prefix,
            key: key.clone(),
            revision: 0,
            lease,
            own_lease,
            kept: false,
        };
        place.revision = store
            .write(move |batch| join(batch, key, value, lease))
            .await?;
        Ok(place)
    }

    /// Waits until all who came earlier have gone, or until `stop`.
    pub(super) async fn first(&self, stop: &CancellationToken) -> Result<(), Status> {
        let stopped = || Status::unavailable("the embedded registry is stopping");
        stop.run_until_cancelled(self.waited())
            .await
            .unwrap_or_else(|| Err(stopped()))
    }

    async fn waited(&self) -> Result<(), Status> {
        let mut committed = self.store.revision();
        let mut beat = beat();
        loop {
            committed.borrow_and_update();
            let queue = members(&self.store, &self.prefix).await?.1;
            let ours = |kv: &KeyValue| kv.key == self.key && kv.create_revision == self.revision;
            if !queue.iter().any(ours) {
                return Err(Status::unknown("mutex: session is expired"));
            }
            let earlier = queue
                .into_iter()
                .filter(|kv| kv.create_revision < self.revision)
                .max_by_key(|kv| kv.create_revision);
            let Some(earlier) = earlier else {
                return Ok(());
            };
            // Only the one just before is looked at from now on, so that not all look at all.
            while self.both_there(&earlier).await? {
                tokio::select! {
                    changed = committed.changed() => if changed.is_err() {
                        return Err(Status::unavailable("the embedded registry is stopping"));
                    },
                    _ = beat.tick() => if self.own_lease {
                        self.store.leases.keep_alive(self.lease);
                    },
                }
            }
        }
    }

    async fn both_there(&self, earlier: &KeyValue) -> Result<bool, Status> {
        let made_at = [
            (self.key.clone(), self.revision),
            (earlier.key.clone(), earlier.create_revision),
        ];
        self.store
            .read(move |read| {
                for (key, revision) in &made_at {
                    let request = RangeRequest {
                        key: key.clone(),
                        ..RangeRequest::default()
                    };
                    let found = view_range(read, &request)?.1.kvs;
                    if !found.iter().any(|kv| kv.create_revision == *revision) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })
            .await
    }

    /// Stays in the queue, whatever becomes of the call.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (store, key, revision) = (self.store.clone(), self.key.clone(), self.revision);
        // Whoever waited has gone; should the store fail too, the lease takes the key with it.
        tokio::spawn(async move { leave(&store, key, revision).await });
    }
}

fn beat() -> Interval {
    let mut beat = interval(Duration::from_secs(OWN_TTL.unsigned_abs() / 3));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// Puts the key unless it is there with that value, and returns the revision that made it.
fn join(batch: &mut Batch<'_>, key: Vec<u8>, value: Vec<u8>, lease: i64) -> Result<i64, Refusal> {
    let there = batch.values(&Keys::new(&key, &[]))?.pop();
    if let Some(kv) = there.as_ref().filter(|kv| kv.value == value) {
        return Ok(kv.create_revision);
    }
    let request = PutRequest {
        key,
        value,
        lease,
        ..PutRequest::default()
    };
    batch.check_put(&request)?;
    batch.put(request)?;
    batch.seal();
    Ok(there.map_or(batch.revision(), |kv| kv.create_revision))
}

/// The keys in the queue `prefix` and the revision at which they were.
async fn members(store: &Store, prefix: &[u8]) -> Result<(i64, Vec<KeyValue>), Status> {
    let mut end = prefix.to_vec();
    if let Some(slash) = end.last_mut() {
        *slash += 1;
    }
    let request = RangeRequest {
        key: prefix.to_vec(),
        range_end: end,
        ..RangeRequest::default()
    };
    let (revision, found) = store.read(move |read| view_range(read, &request)).await?;
    Ok((revision, found.kvs))
}

/// Who is first in the queue `name`, and the revision at which that was so.
pub(super) async fn head(store: &Store, name: &[u8]) -> Result<(i64, Option<KeyValue>), Status> {
    let (revision, queue) = members(store, &prefix(name)).await?;
    Ok((
        revision,
        queue.into_iter().min_by_key(|kv| kv.create_revision),
    ))
}

/// Changes the value of a key that was made at `revision`; `false` if that one is gone.
pub(super) async fn revalue(
    store: &Store,
    key: Vec<u8>,
    revision: i64,
    value: Vec<u8>,
) -> Result<bool, Status> {
    let write = move |batch: &mut Batch<'_>| {
        let there = batch.values(&Keys::new(&key, &[]))?.pop();
        let Some(kv) = there.filter(|kv| kv.create_revision == revision) else {
            return Ok(false);
        };
        let request = PutRequest {
            key,
            value,
            lease: kv.lease,
            ..PutRequest::default()
        };
        batch.put(request)?;
        batch.seal();
        Ok(true)
    };
    store.write(write).await
}

/// Deletes a key, if it is the one that was made at `revision`.
pub(super) async fn leave(store: &Store, key: Vec<u8>, revision: i64) -> Result<(), Status> {
    let write = move |batch: &mut Batch<'_>| {
        let there = batch.values(&Keys::new(&key, &[]))?.pop();
        if there.is_some_and(|kv| kv.create_revision == revision) {
            batch.delete(&DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            })?;
            batch.seal();
        }
        Ok(())
    };
    store.write(write).await
}
