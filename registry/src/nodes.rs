//! Registering hosts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use etcd_client::{Compare, CompareOp, GetOptions, TxnOp};

use crate::backoff::Backoff;
use crate::client::{CallError, Entry, Registry, prefix_end, readable};
use crate::desired::DesiredKind;
use crate::era::Seen;
use crate::keys::{self, ALIVE, BLOCKS, BadName, ENDPOINTS, Key, NODES, TASK_STATUS, check_name};
use crate::model::{BlockRecord, EndpointRecord, NodeRecord};
use crate::wire::Record;

/// Why a node could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterNodeError {
    /// Another live node has this name.
    #[error("node name {name} is in use by live node {by}, choose another one with --node-name")]
    NameTaken {
        /// The name.
        name: String,
        /// Identifier of the node that has it.
        by: String,
    },
    /// Another live node has this underlay address.
    #[error(
        "address {address} is in use by live node {by}, choose another one with --advertise-addr"
    )]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Name of the node that has it.
        by: String,
    },
    /// A later incarnation of this node has registered.
    #[error("node {id} runs already as incarnation {found}, this one is {own}")]
    Superseded {
        /// Identifier of the node.
        id: String,
        /// Incarnation of this record.
        own: u64,
        /// Incarnation registered.
        found: u64,
    },
    /// The name or identifier cannot be part of a key.
    #[error(transparent)]
    Invalid(#[from] BadName),
    /// Others kept registering in between.
    #[error("register node {0}: too many others register at once")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Attempts of an optimistic transaction, of which one contender succeeds each round.
pub(crate) const ATTEMPTS: usize = 100;

impl Registry {
    /// Enters `node`, or renews it with its new incarnation, address and name.
    ///
    /// # Errors
    ///
    /// [`RegisterNodeError`], if the name or address is that of another node whose lease lives.
    pub async fn register_node(&self, node: &NodeRecord) -> Result<(), RegisterNodeError> {
        const OPERATION: &str = "register node";
        check_name(&node.id)?;
        check_name(&node.name)?;
        let key = Key::Node(node.id.clone()).to_string();
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let roll = self.roll(OPERATION).await?;
            let beside = roll.beside(node)?;
            let previous = roll.entries.iter().find(|entry| entry.key == key);
            let value = node.encode(previous.map(|entry| entry.value.as_slice()));
            let put = TxnOp::put(key.clone(), value, None);
            let done = self.txn_as_of(&roll.seen, OPERATION, beside, vec![put]);
            if done.await?.succeeded {
                return Ok(());
            }
            backoff.wait().await;
        }
        Err(RegisterNodeError::Contended(node.id.clone()))
    }

    /// The hosts there are.
    pub(crate) async fn roll(&self, operation: &'static str) -> Result<Roll, CallError> {
        let keys_only = GetOptions::new().with_prefix().with_keys_only();
        let gets = vec![
            TxnOp::get(NODES, Some(GetOptions::new().with_prefix())),
            TxnOp::get(ALIVE, Some(keys_only)),
        ];
        let seen = self.place().seen();
        let mut read = self.read(operation, gets).await?;
        let alive = read.found.pop().unwrap_or_default();
        let alive = alive.iter().filter_map(|it| it.key.strip_prefix(ALIVE));
        Ok(Roll {
            seen,
            revision: read.revision,
            alive: alive.map(str::to_owned).collect(),
            entries: read.found.pop().unwrap_or_default(),
        })
    }

    /// Forgets a node, with its endpoints and its blocks. It must not be able to write any more.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer; it can be repeated.
    pub async fn remove_node(&self, id: &str) -> Result<(), CallError> {
        const OPERATION: &str = "remove node";
        /// Etcd allows 128 operations in a transaction.
        const BATCH: usize = 100;
        let mut keys = vec![Key::Alive(id.to_owned()).to_string()];
        for entry in self.list(OPERATION, ENDPOINTS).await?.entries {
            if EndpointRecord::decode(&entry.value).is_ok_and(|record| record.node == id) {
                keys.push(entry.key);
            }
        }
        for entry in self.list(OPERATION, BLOCKS).await?.entries {
            if BlockRecord::decode(&entry.value).is_ok_and(|record| record.node == id) {
                keys.push(entry.key);
            }
        }
        keys.push(Key::Ack(id.to_owned()).to_string());
        keys.push(Key::Desired(DesiredKind::Node, id.to_owned()).to_string());
        let said = format!("{TASK_STATUS}{id}/");
        for entry in self.list(OPERATION, &said).await?.entries {
            keys.push(entry.key);
        }
        // Last: whoever lists the node can try again.
        keys.push(Key::Node(id.to_owned()).to_string());
        for keys in keys.chunks(BATCH) {
            let deletions = keys.iter().map(|key| TxnOp::delete(key.as_str(), None));
            self.txn(OPERATION, Vec::new(), deletions.collect()).await?;
        }
        Ok(())
    }

    /// All nodes ever registered, alive or not.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, CallError> {
        self.records("list nodes", keys::NODES).await
    }
}

/// The hosts there are, as of one revision.
pub(crate) struct Roll {
    seen: Seen,
    revision: i64,
    entries: Vec<Entry>,
    alive: BTreeSet<String>,
}

impl Roll {
    /// What still holds when `node` is registered, or comes to life: nobody else was registered meanwhile, and of those who
    /// have its name or address nobody lives. Their leases have ended, but they may come back.
    fn beside(&self, node: &NodeRecord) -> Result<Vec<Compare>, RegisterNodeError> {
        let unchanged = Compare::mod_revision(NODES, CompareOp::Less, self.revision + 1);
        let mut when = vec![unchanged.with_range(prefix_end(NODES))];
        for other in self.entries.iter().filter_map(readable::<NodeRecord>) {
            if other.id == node.id {
                if other.incarnation > node.incarnation {
                    let (id, own, found) = (other.id, node.incarnation, other.incarnation);
                    return Err(RegisterNodeError::Superseded { id, own, found });
                }
                continue;
            }
            if other.name != node.name && other.address != node.address {
                continue;
            }
            if !self.alive.contains(&other.id) {
                let alive = Key::Alive(other.id).to_string();
                when.push(Compare::create_revision(alive, CompareOp::Equal, 0));
            } else if other.name == node.name {
                let (name, by) = (other.name, other.id);
                return Err(RegisterNodeError::NameTaken { name, by });
            } else {
                let (address, by) = (other.address, other.name);
                return Err(RegisterNodeError::AddressTaken { address, by });
            }
        }
        Ok(when)
    }

    /// As [`Roll::beside`], for the host of this id, if it is registered. If not, there is nothing that others could have too.
    pub(crate) fn beside_others(
        &self,
        id: &str,
    ) -> Result<(&Seen, Vec<Compare>), RegisterNodeError> {
        let key = Key::Node(id.to_owned()).to_string();
        let own = self.entries.iter().find(|entry| entry.key == key);
        let when = match own.and_then(readable::<NodeRecord>) {
            Some(own) => self.beside(&own)?,
            None => vec![Compare::create_revision(key, CompareOp::Equal, 0)],
        };
        Ok((&self.seen, when))
    }
}
