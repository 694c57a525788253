//! One connection's worth of presence: a lease kept alive, and writes under it.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions, TxnOp,
};
use tracing::debug;

use super::EndpointId;
use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::keys::{ENDPOINTS, Key};
use crate::model::EndpointRecord;
use crate::nodes::{ATTEMPTS, RegisterNodeError, Roll};
use crate::wire::Record;

/// How long a host that says nothing is held to be alive.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(10);

/// How long a beat may take to be answered: another member has to be found before the lease ends.
const BEAT_ANSWERED: Duration = Duration::from_secs(2);

/// Keys written per transaction; etcd allows 128 operations.
const BATCH: usize = 100;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("lease {0:x} has expired")]
    LeaseLost(i64),
    #[error("the keep-alive stream of lease {0:x} has ended")]
    StreamEnded(i64),
    /// Others have this host's name or address by now.
    #[error("this host is kept out")]
    KeptOut(#[source] RegisterNodeError),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A lease with its keep-alive stream open.
pub(super) struct Session {
    registry: Registry,
    node: String,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Session {
    /// Goes on with `lease` if it still lives, else grants a new one and leaves it there.
    pub(super) async fn open(
        registry: &Registry,
        node: &str,
        lease: &mut Option<i64>,
    ) -> Result<Self, SessionError> {
        let mut client = registry.client().lease_client();
        if let Some(former) = *lease {
            let left = registry
                .call("ask for lease", client.time_to_live(former, None))
                .await?;
            if left.ttl() <= 0 {
                *lease = None;
            }
        }
        let id = match *lease {
            Some(id) => id,
            None => {
                let seconds = i64::try_from(LEASE_TTL.as_secs()).unwrap_or(i64::MAX);
                let grant = client.grant(seconds, Some(LeaseGrantOptions::new()));
                let id = registry.call("grant lease", grant).await?.id();
                *lease = Some(id);
                id
            }
        };
        let stream = registry
            .call("keep lease alive", client.keep_alive(id))
            .await;
        let (keeper, answers) = match stream {
            Ok(opened) => opened,
            Err(error) => {
                *lease = None; // it may be what is wrong
                return Err(error.into());
            }
        };
        Ok(Self {
            registry: registry.clone(),
            node: node.to_owned(),
            keeper,
            answers,
        })
    }

    pub(super) fn lease(&self) -> i64 {
        self.keeper.id()
    }

    pub(super) async fn keep_alive(&mut self) -> Result<(), SessionError> {
        const OPERATION: &str = "keep lease alive";
        let id = self.keeper.id();
        self.registry
            .call_within(BEAT_ANSWERED, OPERATION, self.keeper.keep_alive())
            .await?;
        let answer = self
            .registry
            .call_within(BEAT_ANSWERED, OPERATION, self.answers.message())
            .await?;
        match answer {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            Some(_) => Err(SessionError::LeaseLost(id)),
            None => Err(SessionError::StreamEnded(id)),
        }
    }

    /// Makes this node's keys be exactly `wanted`, and the node alive.
    pub(super) async fn reconcile(
        &self,
        wanted: &BTreeMap<EndpointId, EndpointRecord>,
    ) -> Result<(), SessionError> {
        let roll = self.roll().await?;
        let listing = self.registry.list("list endpoints", ENDPOINTS).await?;
        let mut missing = wanted.clone();
        let mut ops = Vec::new();
        for entry in &listing.entries {
            let Some(Key::Endpoint { network, id }) = Key::parse(&entry.key) else {
                continue;
            };
            if let Some(endpoint) = missing.remove(&(network, id)) {
                let value = endpoint.encode(Some(&entry.value));
                if value != entry.value || entry.lease != self.lease() {
                    ops.push(self.put(entry.key.clone(), value));
                }
            } else if EndpointRecord::decode(&entry.value)
                .is_ok_and(|found| found.node == self.node)
            {
                ops.push(TxnOp::delete(entry.key.clone(), None));
            }
        }
        for ((network, id), endpoint) in missing {
            ops.push(self.put(
                Key::Endpoint { network, id }.to_string(),
                endpoint.encode(None),
            ));
        }
        debug!(changes = ops.len(), "reconcile endpoints");
        self.apply(ops, &[]).await?;
        // Alive comes last: whoever sees this node return sees its endpoints too.
        let alive = Key::Alive(self.node.clone()).to_string();
        let entry = self.registry.entry("ask whether alive", alive).await?;
        match entry.is_none_or(|entry| entry.lease != self.lease()) {
            true => self.live(roll).await,
            false => Ok(()),
        }
    }

    /// The hosts there are, if this one can live beside those that do.
    async fn roll(&self) -> Result<Roll, SessionError> {
        let roll = self.registry.roll("come to life").await?;
        roll.beside_others(&self.node)
            .map_err(SessionError::KeptOut)?;
        Ok(roll)
    }

    /// Makes the node alive, unless its name or address is that of another host by now, which lives.
    async fn live(&self, mut roll: Roll) -> Result<(), SessionError> {
        const OPERATION: &str = "come to life";
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let (seen, when) = roll
                .beside_others(&self.node)
                .map_err(SessionError::KeptOut)?;
            let alive = Key::Alive(self.node.clone()).to_string();
            let put = self.put(alive, br#"{"v":1}"#.to_vec());
            let done = self.registry.txn_as_of(seen, OPERATION, when, vec![put]);
            if done.await?.succeeded {
                return Ok(());
            }
            backoff.wait().await;
            roll = self.registry.roll(OPERATION).await?;
        }
        let contended = RegisterNodeError::Contended(self.node.clone());
        Err(SessionError::KeptOut(contended))
    }

    /// Writes again what others have changed or removed of what is `wanted`. Unlike [`Self::reconcile`], which a host does
    /// once in a session, it reads nothing of other hosts'.
    pub(super) async fn repair(
        &self,
        wanted: &BTreeMap<EndpointId, EndpointRecord>,
    ) -> Result<(), SessionError> {
        let alive = Key::Alive(self.node.clone()).to_string();
        let mut keys = vec![alive.clone()];
        keys.extend(wanted.keys().map(|(network, id)| {
            let (network, id) = (network.clone(), id.clone());
            Key::Endpoint { network, id }.to_string()
        }));
        let mut there = BTreeMap::new();
        for batch in keys.chunks(BATCH) {
            let gets = batch.iter().map(|key| TxnOp::get(key.as_str(), None));
            let read = self.registry.read("read endpoints", gets.collect());
            let found = read.await?.found.into_iter().flatten();
            there.extend(found.map(|entry| (entry.key.clone(), entry)));
        }
        let mut ops = Vec::new();
        for ((network, id), endpoint) in wanted {
            let (network, id) = (network.clone(), id.clone());
            let key = Key::Endpoint { network, id }.to_string();
            let present = there.get(&key);
            let value = endpoint.encode(present.map(|entry| entry.value.as_slice()));
            if present.is_none_or(|entry| entry.value != value || entry.lease != self.lease()) {
                ops.push(self.put(key, value));
            }
        }
        if !ops.is_empty() {
            debug!(changes = ops.len(), "repair endpoints");
        }
        self.apply(ops, &[]).await?;
        match there.get(&alive) {
            Some(entry) if entry.lease == self.lease() => Ok(()),
            _ => self.live(self.roll().await?).await,
        }
    }

    /// Writes the endpoints that changed; `None` deletes. A host whose lease has ended meanwhile changes nothing, as
    /// others may have gone by its absence.
    pub(super) async fn write(
        &self,
        changed: Vec<(EndpointId, Option<EndpointRecord>)>,
    ) -> Result<(), SessionError> {
        let mut ops = Vec::new();
        for ((network, id), endpoint) in changed {
            let key = Key::Endpoint { network, id }.to_string();
            let previous = self.registry.entry("read endpoint", key.clone()).await?;
            ops.push(match endpoint {
                Some(endpoint) => {
                    let value =
                        endpoint.encode(previous.as_ref().map(|entry| entry.value.as_slice()));
                    self.put(key, value)
                }
                None => TxnOp::delete(key, None),
            });
        }
        let alive = Key::Alive(self.node.clone()).to_string();
        self.apply(
            ops,
            &[Compare::lease(alive, CompareOp::Equal, self.lease())],
        )
        .await
    }

    fn put(&self, key: String, value: Vec<u8>) -> TxnOp {
        TxnOp::put(key, value, Some(PutOptions::new().with_lease(self.lease())))
    }

    async fn apply(&self, mut ops: Vec<TxnOp>, when: &[Compare]) -> Result<(), SessionError> {
        while !ops.is_empty() {
            let batch: Vec<TxnOp> = ops.drain(..ops.len().min(BATCH)).collect();
            let done = self.registry.txn("write endpoints", when.to_vec(), batch);
            if !done.await?.succeeded {
                return Err(SessionError::LeaseLost(self.lease()));
            }
        }
        Ok(())
    }
}

/// Gives a lease back as far as the registry can be reached; else it expires by itself.
pub(super) async fn revoke(registry: &Registry, lease: i64) {
    let mut client = registry.client().lease_client();
    if let Err(error) = registry.call("revoke lease", client.revoke(lease)).await {
        debug!(
            error = &error as &dyn std::error::Error,
            "lease is left to expire"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::catalog::tests::endpoint;
    use crate::connect::ConnectOptions;
    use crate::embedded::Server;

    #[tokio::test]
    async fn a_repair_writes_again_what_others_took_and_reads_nothing_of_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::open(directory.path()).unwrap();
        let bound = server.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let endpoints = vec![format!("http://{}", bound.local_addr())];
        let stop = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(stop.clone()));
        let options = ConnectOptions {
            endpoints,
            ..ConnectOptions::default()
        };
        let registry = Registry::connect(&options).await.unwrap();
        let session = Session::open(&registry, "a", &mut None).await.unwrap();
        let of = |record: EndpointRecord| ((record.network.clone(), record.id.clone()), record);
        let wanted: BTreeMap<_, _> = (1..=150u8)
            .map(|last| of(endpoint(&last.to_string(), "a", last)))
            .collect();
        session.reconcile(&wanted).await.unwrap();
        let listed = || async { registry.list("list", ENDPOINTS).await.unwrap().entries };
        let before = listed().await;
        assert_eq!(before.len(), wanted.len());

        let mut kv = registry.client().kv_client();
        let (taken, changed) = (before[0].key.clone(), before[120].key.clone());
        kv.delete(taken, None).await.unwrap();
        kv.put(changed, "{}", None).await.unwrap();
        kv.delete(Key::Alive("a".to_owned()).to_string(), None)
            .await
            .unwrap();
        session.repair(&wanted).await.unwrap();
        let strip = |entries: Vec<crate::client::Entry>| -> Vec<_> {
            entries
                .into_iter()
                .map(|entry| (entry.key, entry.value, entry.lease))
                .collect()
        };
        let after = listed().await;
        let written: Vec<i64> = after.iter().map(|entry| entry.modified).collect();
        assert_eq!(strip(after), strip(before));
        assert!(
            registry
                .entry("alive", Key::Alive("a".to_owned()).to_string())
                .await
                .unwrap()
                .is_some()
        );
        session.repair(&wanted).await.unwrap();
        let again: Vec<i64> = listed().await.iter().map(|entry| entry.modified).collect();
        assert_eq!(again, written, "what is right is not written again");
        stop.cancel();
        serving.await.unwrap();
    }
}
