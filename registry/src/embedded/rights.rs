//! What a host may write: its own records, and claims of what nobody has. All may be read by each.

use std::collections::BTreeSet;

use serde::Deserialize;
use tonic::{Request, Status};

use super::apply::Batch;
use super::connection::Client;
use super::lease_service::keys_of;
use super::pb::etcdserverpb::request_op::Request as Op;
use super::pb::etcdserverpb::{DeleteRangeRequest, PutRequest};
use super::pb::mvccpb::KeyValue;
use super::store::{Refusal, Store};
use super::tables::Keys;
use crate::client::prefix_end;
use crate::keys::{ALIVE, ASKS, ENDPOINTS, LEADER, NETWORKS, ROOT};

/// The rights of who sent a request.
#[derive(Clone, Debug)]
pub(super) struct Rights(Option<Client>);

/// Whose a record is, or whose network it is about.
#[derive(Default, Deserialize)]
#[serde(default)]
struct About {
    node: String,
    network: String,
}

/// A host, and the networks that its request removes.
struct Writer<'a> {
    node: &'a str,
    removes: BTreeSet<String>,
}

/// Lets in the requests of those who may write everything.
pub(super) fn only_unlimited(request: Request<()>) -> Result<Request<()>, Status> {
    match Rights::of(&request).limit()? {
        None => Ok(request),
        Some(node) => Err(denied(node, "hold elections and locks")),
    }
}

impl Rights {
    /// Where nobody knows who connects, everybody may write everything.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        Self(request.extensions().get::<Client>().cloned())
    }

    /// Whose records alone may be written; `None`: everybody's.
    fn limit(&self) -> Result<Option<&str>, Status> {
        match &self.0 {
            Some(client) if client.ended.is_cancelled() => {
                let ended = format!("node {} is no longer in the mesh", client.node);
                Err(Status::unauthenticated(ended))
            }
            Some(client) if !client.unlimited => Ok(Some(&client.node)),
            _ => Ok(None),
        }
    }

    pub(super) fn check_compact(&self) -> Result<(), Status> {
        match self.limit()? {
            Some(node) => Err(denied(node, "compact the history")),
            None => Ok(()),
        }
    }

    /// Whether a lease may be kept alive or ended: not, if another node lives by it.
    pub(super) async fn check_lease(&self, store: &Store, id: i64) -> Result<(), Status> {
        let Some(node) = self.limit()? else {
            return Ok(());
        };
        let keys = keys_of(store, id).await?;
        let mut alive = keys
            .iter()
            .filter_map(|key| key.strip_prefix(ALIVE.as_bytes()));
        match alive.any(|other| other != node.as_bytes()) {
            true => Err(denied(node, "use the lease of another node")),
            false => Ok(()),
        }
    }

    pub(super) fn check_put(&self, batch: &Batch<'_>, put: &PutRequest) -> Result<(), Refusal> {
        self.check_all(batch, &[Change::Put(put)])
    }

    pub(super) fn check_delete(
        &self,
        batch: &Batch<'_>,
        delete: &DeleteRangeRequest,
    ) -> Result<(), Refusal> {
        self.check_all(batch, &[Change::Delete(delete)])
    }

    /// Whether the operations of one transaction may be carried out.
    pub(super) fn check(&self, batch: &Batch<'_>, operations: &[&Op]) -> Result<(), Refusal> {
        let changes = operations.iter().filter_map(|operation| match operation {
            Op::RequestPut(put) => Some(Change::Put(put)),
            Op::RequestDeleteRange(delete) => Some(Change::Delete(delete)),
            Op::RequestRange(_) | Op::RequestTxn(_) => None,
        });
        self.check_all(batch, &changes.collect::<Vec<_>>())
    }

    fn check_all(&self, batch: &Batch<'_>, changes: &[Change<'_>]) -> Result<(), Refusal> {
        let Some(node) = self.limit()? else {
            return Ok(());
        };
        let removes = changes.iter().filter_map(Change::removed_network).collect();
        let writer = Writer { node, removes };
        for change in changes {
            let (allowed, key) = match change {
                Change::Put(put) => (writer.may_put(batch, put)?, &put.key),
                Change::Delete(delete) => (writer.may_delete(batch, delete)?, &delete.key),
            };
            if !allowed {
                let what = format!("write {} in the registry", String::from_utf8_lossy(key));
                return Err(denied(node, &what).into());
            }
        }
        Ok(())
    }
}

/// What changes the store.
enum Change<'r> {
    Put(&'r PutRequest),
    Delete(&'r DeleteRangeRequest),
}

impl Change<'_> {
    fn removed_network(&self) -> Option<String> {
        match self {
            Self::Delete(delete) if delete.range_end.is_empty() => {
                let key = std::str::from_utf8(&delete.key).ok()?;
                Some(key.strip_prefix(NETWORKS)?.to_owned())
            }
            _ => None,
        }
    }
}

impl Writer<'_> {
    fn may_put(&self, batch: &Batch<'_>, put: &PutRequest) -> Result<bool, Refusal> {
        let present = || batch.values(&Keys::new(&put.key, &[]));
        if put.key == LEADER.as_bytes() {
            let vacant = present()?.is_empty();
            return Ok(vacant && !put.ignore_value && put.lease != 0 && self.owns(&put.value));
        }
        let Some((kind, rest)) = split(&put.key) else {
            return Ok(false);
        };
        Ok(match kind {
            "nodes" | "alive" => rest == self.node,
            // With the present value, which may be another's, nothing is said about the new one.
            "blocks" | "endpoints" => {
                !put.ignore_value
                    && self.owns(&put.value)
                    && present()?.iter().all(|found| self.owns(&found.value))
            }
            // They are claimed once, and never written again.
            "networks" | "network-names" | "vni" | "subnets" => present()?.is_empty(),
            // What one host finds or brings in is its own, and ends with it; the rest is everybody's.
            "services" if is_of_one(rest) => {
                !put.ignore_value
                    && put.lease != 0
                    && self.owns(&put.value)
                    && (rest.ends_with("/health")
                        || present()?.iter().all(|found| self.owns(&found.value)))
            }
            "services" => rest.ends_with("/external"),
            // How far an update has come, and tasks, are the leader's to say; what is wanted is everybody's.
            "desired" if rest.starts_with("updates/") => self.leads(batch)?,
            "desired" => true,
            "tasks" => self.leads(batch)?,
            "task-status" => !put.ignore_value && self.is_below(rest),
            "ack" => put.lease != 0 && self.is_below(rest),
            "asks" => put.lease != 0 && rest.split('/').count() == 2,
            "answers" => {
                let asked = format!("{ASKS}{}/{rest}", self.node);
                !batch.values(&Keys::new(asked.as_bytes(), &[]))?.is_empty()
            }
            _ => false,
        })
    }

    fn may_delete(&self, batch: &Batch<'_>, delete: &DeleteRangeRequest) -> Result<bool, Refusal> {
        for found in batch.values(&Keys::new(&delete.key, &delete.range_end))? {
            if !self.may_remove(batch, &found)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn may_remove(&self, batch: &Batch<'_>, found: &KeyValue) -> Result<bool, Refusal> {
        if found.key == LEADER.as_bytes() {
            return Ok(self.owns(&found.value));
        }
        let Some((kind, rest)) = split(&found.key) else {
            return Ok(false);
        };
        let network = || rest.split('/').next().unwrap_or_default();
        Ok(match kind {
            "alive" => rest == self.node,
            "endpoints" => self.owns(&found.value),
            "blocks" => self.owns(&found.value) || self.removes.contains(network()),
            "networks" => {
                let prefix = format!("{ENDPOINTS}{rest}/");
                let end = prefix_end(&prefix);
                let endpoints = batch.values(&Keys::new(prefix.as_bytes(), end.as_bytes()))?;
                endpoints.iter().all(|endpoint| self.owns(&endpoint.value))
            }
            "network-names" | "vni" | "subnets" => {
                self.removes.contains(&about(&found.value).network)
            }
            "services" if is_of_one(rest) => self.owns(&found.value),
            "services" => true,
            "desired" if rest.starts_with("updates/") => self.leads(batch)?,
            "desired" => true,
            "tasks" => self.leads(batch)?,
            "task-status" | "ack" => self.is_below(rest) || self.leads(batch)?,
            "asks" => network() == self.node,
            _ => false,
        })
    }

    fn leads(&self, batch: &Batch<'_>) -> Result<bool, Refusal> {
        let leader = batch.values(&Keys::new(LEADER.as_bytes(), &[]))?;
        Ok(leader.iter().any(|leader| self.owns(&leader.value)))
    }

    /// Whether the rest of a key begins with the host's name.
    fn is_below(&self, rest: &str) -> bool {
        rest.split_once('/')
            .is_some_and(|(node, _)| node == self.node)
    }

    fn owns(&self, value: &[u8]) -> bool {
        about(value).node == self.node
    }
}

/// Whether what lies below `services/` is one host's word.
fn is_of_one(rest: &str) -> bool {
    rest.ends_with("/health") || rest.contains("/imported/")
}

/// The kind of a record and the rest of its key.
fn split(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key)
        .ok()?
        .strip_prefix(ROOT)?
        .split_once('/')
}

/// What cannot be read is nobody's.
fn about(value: &[u8]) -> About {
    serde_json::from_slice(value).unwrap_or_default()
}

fn denied(node: &str, what: &str) -> Status {
    Status::permission_denied(format!("node {node} may not {what}"))
}
