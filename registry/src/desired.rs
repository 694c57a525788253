//! What is wanted of the mesh as a whole, what is done for it on which host, and who sees to it.
//!
//! Whoever asks for something writes what is wanted; one host at a time leads, and it alone writes tasks; each host
//! says how its own tasks are. So no two hosts ever write one key, but for what is wanted, which is compared before it
//! is replaced. The leader's writes hold only as long as it leads: its key lives by its lease, and every transaction
//! compares that key's create revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::keys::{BadName, DESIRED_NAMES, Key, LEADER, check_name};
use crate::needs::{self, Needs};
use crate::nodes::ATTEMPTS;
use crate::wire::{DecodeError, Record, fields_of, parse};

/// Etcd allows 128 operations in a transaction.
const BATCH: usize = 100;

/// What may be wanted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DesiredKind {
    /// Containers of one kind, over all hosts.
    Service,
    /// How far a service's update has come; the leader's.
    Update,
    /// Something confidential for containers.
    Secret,
    /// A file for containers.
    Config,
    /// How a host is to be used.
    Node,
    /// The mesh as a whole.
    Cluster,
}

impl DesiredKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Service,
        Self::Update,
        Self::Secret,
        Self::Config,
        Self::Node,
        Self::Cluster,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Update => "updates",
            Self::Secret => "secrets",
            Self::Config => "configs",
            Self::Node => "nodes",
            Self::Cluster => "clusters",
        }
    }
}

impl fmt::Display for DesiredKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for DesiredKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|kind| kind.word() == text).ok_or(())
    }
}

/// Something wanted.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct DesiredRecord {
    /// Identifier, part of its key.
    pub id: String,
    /// Of those of its kind only one has it; empty: it has none.
    #[serde(default)]
    pub name: String,
    /// Grows by one with each change.
    pub version: u64,
    /// When it was first wanted, in RFC 3339.
    pub created: String,
    /// When it was last changed, in RFC 3339.
    pub updated: String,
    /// What is wanted, in the words of Docker's API.
    pub spec: Value,
    /// What else is known of it.
    #[serde(default)]
    pub state: Value,
}

/// A piece of work for one host. The leader alone writes it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TaskRecord {
    /// Identifier, part of its key.
    pub id: String,
    /// Identifier of the service it is for.
    pub service: String,
    /// The host that does it; `None`: not decided yet.
    #[serde(default)]
    pub node: Option<String>,
    /// As the scheduler knows it.
    pub task: Value,
    /// What is to be run, in the words of Docker's API.
    pub spec: Value,
    /// When it was last written, in RFC 3339.
    pub updated: String,
}

/// How a task is, as its host says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TaskStatusRecord {
    /// The task.
    pub task: String,
    /// Its host.
    pub node: String,
    /// A word of Docker's, as `running`.
    pub state: String,
    /// Since when, in RFC 3339.
    pub since: String,
    /// When it began to run, in RFC 3339.
    #[serde(default)]
    pub started: Option<String>,
    /// What is being done.
    #[serde(default)]
    pub message: String,
    /// What went wrong; empty: nothing.
    #[serde(default)]
    pub error: String,
    /// Identifier of its container; empty: it has none yet.
    #[serde(default)]
    pub container: String,
    /// Of the container's first process, on that host.
    #[serde(default)]
    pub pid: Option<u32>,
    /// With which it ended.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Its health check succeeds, or it has none.
    #[serde(default)]
    pub healthy: bool,
    /// Ports of the host that lead to it, in the words of Docker's API.
    #[serde(default)]
    pub ports: Value,
}

/// What a host sees of tasks that change hands: its forwarders and names act by it already.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AckRecord {
    /// The host.
    pub node: String,
    /// Tasks that it leads to.
    #[serde(default)]
    pub present: BTreeSet<String>,
    /// Tasks that it leads to no more.
    #[serde(default)]
    pub gone: BTreeSet<String>,
}

/// Who leads.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeaderRecord {
    /// The host.
    pub node: String,
    /// Since when, in RFC 3339.
    pub since: String,
}

macro_rules! written_as_it_is {
    ($($record:ty),*) => {$(
        impl Record for $record {
            fn decode(value: &[u8]) -> Result<Self, DecodeError> {
                parse(value)
            }

            fn fields(&self) -> Map<String, Value> {
                fields_of(self)
            }
        }
    )*};
}

written_as_it_is!(
    DesiredRecord,
    TaskRecord,
    TaskStatusRecord,
    AckRecord,
    LeaderRecord
);

/// Proof of who leads: what is written with it is not, once somebody else may lead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fence {
    /// Create revision of the leader's key.
    term: i64,
    /// Revision of the registry at which it was found; what was written before by others is known from there on.
    revision: i64,
}

impl Fence {
    /// Until this revision of the registry is known, what former leaders wrote may not be.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    fn holds(self) -> Compare {
        Compare::create_revision(LEADER, CompareOp::Equal, self.term)
    }
}

/// Something that the leader writes.
#[derive(Clone, Debug)]
pub enum LeaderWrite {
    /// A new task, or what it has become.
    Task(Box<TaskRecord>),
    /// A task is not needed any more, nor what its host says of it.
    ForgetTask {
        /// The task.
        id: String,
        /// Its host.
        node: Option<String>,
    },
    /// How far a service's update has come.
    Update(Box<DesiredRecord>),
    /// A service's update is of no interest any more.
    ForgetUpdate(String),
    /// What a host acknowledged that is gone.
    ForgetAck(String),
}

/// Why the leader's writes were not made.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Another host leads, or may.
    #[error("this host does not lead any more")]
    Deposed,
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why something wanted could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DesireError<E> {
    /// The change itself was refused.
    #[error(transparent)]
    Refused(E),
    /// Of that kind another one has the name.
    #[error("the name {name} is taken by {by}")]
    NameTaken {
        /// The name.
        name: String,
        /// Identifier of the one that has it.
        by: String,
    },
    /// Something that it needs is not there.
    #[error("{kind}/{id} is not there")]
    Missing {
        /// What that is.
        kind: DesiredKind,
        /// Its identifier.
        id: String,
    },
    /// The name or identifier cannot be part of a key.
    #[error(transparent)]
    InvalidName(#[from] BadName),
    /// Others kept writing in between.
    #[error("{0} keeps changing")]
    Contended(String),
    /// The registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

pub(crate) fn name_key(kind: DesiredKind, name: &str) -> String {
    format!("{DESIRED_NAMES}{kind}/{name}")
}

impl Registry {
    /// Writes something new that is wanted, and needs nothing else.
    ///
    /// # Errors
    ///
    /// [`DesireError::NameTaken`], if another one of the kind has its name.
    pub async fn desire(
        &self,
        kind: DesiredKind,
        record: &DesiredRecord,
    ) -> Result<i64, DesireError<std::convert::Infallible>> {
        self.desire_needing(kind, record, &Needs::new()).await
    }

    /// Writes something new that is wanted, if all that it needs is there.
    ///
    /// # Errors
    ///
    /// [`DesireError::Missing`], if something is not, [`DesireError::NameTaken`], if another one of the kind has its name.
    pub async fn desire_needing(
        &self,
        kind: DesiredKind,
        record: &DesiredRecord,
        needs: &Needs,
    ) -> Result<i64, DesireError<std::convert::Infallible>> {
        const OPERATION: &str = "write what is wanted";
        check_name(&record.id)?;
        let key = Key::Desired(kind, record.id.clone()).to_string();
        let mut when = vec![Compare::version(key.clone(), CompareOp::Equal, 0)];
        when.extend(needs::are_there(needs));
        let mut then = vec![TxnOp::put(key.clone(), record.encode(None), None)];
        if !record.name.is_empty() {
            check_name(&record.name)?;
            let name = name_key(kind, &record.name);
            when.push(Compare::version(name.clone(), CompareOp::Equal, 0));
            then.push(TxnOp::put(name, record.id.clone(), None));
        }
        let done = self.txn(OPERATION, when, then).await?;
        if done.succeeded {
            return Ok(done.revision);
        }
        if let Some((kind, id)) = self.missing(OPERATION, needs).await? {
            return Err(DesireError::Missing { kind, id });
        }
        let holder = self
            .entry(OPERATION, name_key(kind, &record.name))
            .await?
            .map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        match holder {
            Some(by) => Err(DesireError::NameTaken {
                name: record.name.clone(),
                by,
            }),
            None => Err(DesireError::Contended(record.id.clone())),
        }
    }

    /// Changes what is wanted, as `change` has it of what there is; the registry's revision from which on it is so.
    ///
    /// # Errors
    ///
    /// What `change` refuses, which may be asked several times.
    pub async fn redesire<E>(
        &self,
        kind: DesiredKind,
        id: &str,
        change: impl FnMut(Option<DesiredRecord>) -> Result<DesiredRecord, E>,
    ) -> Result<(DesiredRecord, i64), DesireError<E>> {
        self.redesire_needing(kind, id, &Needs::new(), change).await
    }

    /// The same, if all that it needs from then on is there.
    ///
    /// # Errors
    ///
    /// [`DesireError::Missing`], if something is not; what `change` refuses, which may be asked several times.
    pub async fn redesire_needing<E>(
        &self,
        kind: DesiredKind,
        id: &str,
        needs: &Needs,
        mut change: impl FnMut(Option<DesiredRecord>) -> Result<DesiredRecord, E>,
    ) -> Result<(DesiredRecord, i64), DesireError<E>> {
        const OPERATION: &str = "change what is wanted";
        check_name(id)?;
        let key = Key::Desired(kind, id.to_owned()).to_string();
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let seen = self.place().seen();
            let entry = self.entry(OPERATION, key.clone()).await?;
            let before = entry
                .as_ref()
                .and_then(|entry| DesiredRecord::decode(&entry.value).ok());
            let old_name = before.as_ref().map(|before| before.name.clone());
            let next = change(before).map_err(DesireError::Refused)?;
            let modified = entry.as_ref().map_or(0, |entry| entry.modified);
            let mut when = vec![Compare::mod_revision(
                key.clone(),
                CompareOp::Equal,
                modified,
            )];
            when.extend(needs::are_there(needs));
            let previous = entry.as_ref().map(|entry| entry.value.as_slice());
            let mut then = vec![TxnOp::put(key.clone(), next.encode(previous), None)];
            if let Some(old) = old_name.filter(|old| *old != next.name) {
                check_name(&next.name)?;
                let new = name_key(kind, &next.name);
                when.push(Compare::version(new.clone(), CompareOp::Equal, 0));
                then.push(TxnOp::put(new, next.id.clone(), None));
                if !old.is_empty() {
                    then.push(TxnOp::delete(name_key(kind, &old), None));
                }
            }
            let done = self.txn_as_of(&seen, OPERATION, when, then).await?;
            if done.succeeded {
                return Ok((next, done.revision));
            }
            if let Some((kind, id)) = self.missing(OPERATION, needs).await? {
                return Err(DesireError::Missing { kind, id });
            }
            backoff.wait().await;
        }
        Err(DesireError::Contended(id.to_owned()))
    }

    /// Takes back what is wanted; whether it was.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn undesire(
        &self,
        kind: DesiredKind,
        id: &str,
        name: &str,
    ) -> Result<Option<i64>, CallError> {
        let key = Key::Desired(kind, id.to_owned()).to_string();
        let there = Compare::version(key.clone(), CompareOp::Greater, 0);
        let mut then = vec![TxnOp::delete(key, None)];
        if !name.is_empty() {
            then.push(TxnOp::delete(name_key(kind, name), None));
        }
        let done = self
            .txn("take back what is wanted", vec![there], then)
            .await?;
        Ok(done.succeeded.then_some(done.revision))
    }

    /// Tries to lead for as long as `lease` lives; `None` if another host does. Who leads already goes on.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn lead(
        &self,
        leader: &LeaderRecord,
        lease: i64,
    ) -> Result<Option<Fence>, CallError> {
        const OPERATION: &str = "lead the mesh";
        let vacant = Compare::version(LEADER, CompareOp::Equal, 0);
        let options = PutOptions::new().with_lease(lease);
        let put = TxnOp::put(LEADER, leader.encode(None), Some(options));
        let done = self.txn(OPERATION, vec![vacant], vec![put]).await?;
        if done.succeeded {
            let (term, revision) = (done.revision, done.revision);
            return Ok(Some(Fence { term, revision }));
        }
        let read = self.read(OPERATION, vec![TxnOp::get(LEADER, None)]).await?;
        let found = read.found.first().and_then(|found| found.first());
        // Of a former life of this host it ends with that life's lease.
        Ok(found
            .filter(|entry| {
                entry.lease == lease
                    && LeaderRecord::decode(&entry.value)
                        .is_ok_and(|found| found.node == leader.node)
            })
            .map(|entry| Fence {
                term: entry.modified,
                revision: read.revision,
            }))
    }

    /// Leads no more.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer; the lease ends it then.
    pub async fn abdicate(&self, fence: Fence) -> Result<(), CallError> {
        let delete = TxnOp::delete(LEADER, None);
        let done = self.txn("lead no more", vec![fence.holds()], vec![delete]);
        done.await.map(drop)
    }

    /// Writes what the leader decided, in as few transactions as can be, in their order; the revision of the last.
    ///
    /// # Errors
    ///
    /// [`LeadError::Deposed`], if the fence does not hold any more; some may have been written before.
    pub async fn write_as_leader(
        &self,
        fence: Fence,
        writes: &[LeaderWrite],
    ) -> Result<i64, LeadError> {
        let mut revision = 0;
        for batch in writes.chunks(BATCH / 2) {
            let then = batch.iter().flat_map(operations).collect();
            let done = self.txn("write tasks", vec![fence.holds()], then).await?;
            if !done.succeeded {
                return Err(LeadError::Deposed);
            }
            revision = done.revision;
        }
        Ok(revision)
    }

    /// Says how a task of this host is.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer.
    pub async fn put_task_status(&self, status: &TaskStatusRecord) -> Result<(), CallError> {
        let key = Key::TaskStatus {
            node: status.node.clone(),
            task: status.task.clone(),
        };
        let put = TxnOp::put(key.to_string(), status.encode(None), None);
        // A task that is forgotten must not come back by what is said of it.
        let task = Key::Task(status.task.clone()).to_string();
        let wanted = Compare::version(task, CompareOp::Greater, 0);
        let done = self.txn("say how a task is", vec![wanted], vec![put]);
        done.await.map(drop)
    }

    /// Says what this host sees of tasks that change hands, for as long as `lease` lives.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the registry does not answer, or the lease is over.
    pub async fn put_ack(&self, ack: &AckRecord, lease: i64) -> Result<(), CallError> {
        let key = Key::Ack(ack.node.clone());
        let options = PutOptions::new().with_lease(lease);
        let put = TxnOp::put(key.to_string(), ack.encode(None), Some(options));
        let done = self.txn("acknowledge tasks", Vec::new(), vec![put]);
        done.await.map(drop)
    }
}

fn operations(write: &LeaderWrite) -> Vec<TxnOp> {
    let delete = |key: Key| TxnOp::delete(key.to_string(), None);
    match write {
        LeaderWrite::Task(task) => {
            let key = Key::Task(task.id.clone()).to_string();
            vec![TxnOp::put(key, task.encode(None), None)]
        }
        LeaderWrite::ForgetTask { id, node } => {
            let status = node.clone().map(|node| {
                let task = id.clone();
                delete(Key::TaskStatus { node, task })
            });
            let task = delete(Key::Task(id.clone()));
            status.into_iter().chain([task]).collect()
        }
        LeaderWrite::Update(update) => {
            let key = Key::Desired(DesiredKind::Update, update.id.clone()).to_string();
            vec![TxnOp::put(key, update.encode(None), None)]
        }
        LeaderWrite::ForgetUpdate(id) => {
            vec![delete(Key::Desired(DesiredKind::Update, id.clone()))]
        }
        LeaderWrite::ForgetAck(node) => vec![delete(Key::Ack(node.clone()))],
    }
}

/// What the registry says of what is wanted and done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// What is wanted, by kind and identifier.
    pub records: BTreeMap<(DesiredKind, String), std::sync::Arc<DesiredRecord>>,
    /// Tasks by identifier.
    pub tasks: BTreeMap<String, std::sync::Arc<TaskRecord>>,
    /// How they are, by task and the host that says so.
    pub statuses: BTreeMap<(String, String), std::sync::Arc<TaskStatusRecord>>,
    /// What hosts see, by host.
    pub acks: BTreeMap<String, std::sync::Arc<AckRecord>>,
    /// Who leads.
    pub leader: Option<LeaderRecord>,
}

impl Desired {
    /// All of one kind.
    pub fn all(&self, kind: DesiredKind) -> impl Iterator<Item = &std::sync::Arc<DesiredRecord>> {
        let from = (kind, String::new());
        let those = self.records.range(from..);
        let those = those.take_while(move |((found, _), _)| *found == kind);
        those.map(|(_, record)| record)
    }

    /// The one of this kind and identifier.
    #[must_use]
    pub fn get(&self, kind: DesiredKind, id: &str) -> Option<&std::sync::Arc<DesiredRecord>> {
        self.records.get(&(kind, id.to_owned()))
    }

    /// What the task's host says of it.
    #[must_use]
    pub fn status(&self, task: &TaskRecord) -> Option<&std::sync::Arc<TaskStatusRecord>> {
        let node = task.node.clone()?;
        self.statuses.get(&(task.id.clone(), node))
    }
}
