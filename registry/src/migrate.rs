//! Moving all contents from one registry to another while hosts use it.
//!
//! Most is copied while hosts still write. Then the source is closed by one transaction, after which no host's write
//! succeeds there; what had changed meanwhile is brought, and the target is opened by another. Whatever is killed on the
//! way can be begun anew: the eras of the two say how far it came.

use std::collections::BTreeMap;

use etcd_client::{DeleteOptions, LeaseGrantOptions, PutOptions, TxnOp};

use crate::client::{CallError, Entry, Registry, prefix_end};
use crate::era::{ERA, Era, Seen};
use crate::keys::{ANSWERS, ASKS, ROOT};

/// Etcd allows 128 operations and 1.5 MiB in a transaction.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1 << 20;
/// Seconds that a host which does not come to the target is believed to live.
const ARRIVAL: i64 = 30;

/// Why contents were not moved, or not yet wholly.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There would be two.
    #[error(
        "the target holds {keys} keys of nuncio already: choose an empty one, or replace them with --force"
    )]
    NotEmpty {
        /// How many.
        keys: usize,
    },
    /// One registry, by two addresses perhaps.
    #[error("source and target are the same registry")]
    Same,
    /// The source is itself the target of a migration that did not end.
    #[error("the source is not complete itself: first end the migration that was to fill it")]
    Incomplete,
    /// An earlier migration has moved it to another place.
    #[error("the contents have moved from there already, to {0}: take them from there")]
    Elsewhere(String),
    /// Two migrations at once.
    #[error("another migration has changed the {0} meanwhile")]
    Disturbed(&'static str),
    /// A registry could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What was moved.
#[derive(Clone, Copy, Debug)]
pub struct Migrated {
    /// Keys that are in the target now.
    pub keys: usize,
    /// Whether there was anything left to do.
    pub already: bool,
}

impl Registry {
    /// Moves all contents from this registry to `target`, which is reached at `endpoints` by all hosts. With `force` what
    /// the target holds of nuncio is replaced.
    ///
    /// # Errors
    ///
    /// [`MigrateError`]; it can be repeated, and goes on where it was.
    pub async fn migrate(
        &self,
        target: &Self,
        endpoints: &[String],
        force: bool,
    ) -> Result<Migrated, MigrateError> {
        if self.cluster().await? == target.cluster().await? {
            return Err(MigrateError::Same);
        }
        let (source_seen, target_seen) = (self.read_era().await?, target.read_era().await?);
        let gone = match source_seen.era() {
            Some(era) if era.filling => return Err(MigrateError::Incomplete),
            Some(era) => era.moved.map(|moved| (era.id, moved)),
            None => None,
        };
        let at_target = target_seen.era();
        let id = match gone {
            Some((id, moved)) if moved == endpoints => {
                if at_target.as_ref() == Some(&Era::new(&id)) {
                    let keys = target.contents().await?.len();
                    return Ok(Migrated {
                        keys,
                        already: true,
                    });
                }
                id
            }
            Some((_, moved)) => return Err(MigrateError::Elsewhere(moved.join(","))),
            None => new_id(),
        };
        let filled = target
            .claim(target_seen, &id, &self.options().endpoints, force)
            .await?;
        bring(self, target, &filled, false).await?;
        self.close(source_seen, &id, endpoints).await?;
        let keys = bring(self, target, &filled, true).await?;
        let open = TxnOp::put(ERA, Era::new(&id).encode(), None);
        if !target.guarded(&filled, vec![open]).await? {
            return Err(MigrateError::Disturbed("target"));
        }
        Ok(Migrated {
            keys,
            already: false,
        })
    }

    async fn read_era(&self) -> Result<Seen, CallError> {
        let entry = self.entry("read the registry's era", ERA).await?;
        Ok(Seen(entry.map(|entry| entry.value)))
    }

    async fn cluster(&self) -> Result<u64, CallError> {
        let mut kv = self.client().kv_client();
        let answer = self
            .call("ask the registry who it is", kv.get(ERA, None))
            .await?;
        Ok(answer
            .header()
            .map_or(0, etcd_client::ResponseHeader::cluster_id))
    }

    /// All of nuncio's but what lasts as long as a question does.
    async fn contents(&self) -> Result<BTreeMap<String, Entry>, CallError> {
        let listed = self.list("list the registry", ROOT).await?;
        let passing = |key: &str| key == ERA || key.starts_with(ASKS) || key.starts_with(ANSWERS);
        let entries = listed.entries.into_iter();
        Ok(entries
            .filter(|entry| !passing(&entry.key))
            .map(|entry| (entry.key.clone(), entry))
            .collect())
    }

    /// Makes the target one that is being filled, by nobody else, and empties it.
    async fn claim(
        &self,
        seen: Seen,
        id: &str,
        source: &[String],
        force: bool,
    ) -> Result<Seen, MigrateError> {
        let keys = self.contents().await?.len();
        let ours = match seen.era() {
            Some(era) => era.filling || era.moved.is_some_and(|moved| moved == source),
            None => false,
        };
        if keys > 0 && !ours && !force {
            return Err(MigrateError::NotEmpty { keys });
        }
        let era = Era {
            filling: true,
            attempt: Some(new_id()),
            ..Era::new(id)
        };
        let filled = Seen(Some(era.encode()));
        let mark = TxnOp::put(ERA, era.encode(), None);
        if !self.guarded(&seen, vec![mark]).await? {
            return Err(MigrateError::Disturbed("target"));
        }
        let range = |from: &str, end: String| {
            TxnOp::delete(from, Some(DeleteOptions::new().with_range(end)))
        };
        let rest = format!("{ERA}\0");
        let all = vec![range(ROOT, ERA.to_owned()), range(&rest, prefix_end(ROOT))];
        match self.guarded(&filled, all).await? {
            true => Ok(filled),
            false => Err(MigrateError::Disturbed("target")),
        }
    }

    /// Lets no host write here any more, and tells them where to.
    async fn close(&self, seen: Seen, id: &str, to: &[String]) -> Result<(), MigrateError> {
        let era = Era {
            moved: Some(to.to_vec()),
            ..Era::new(id)
        };
        let closed = Seen(Some(era.encode()));
        if seen == closed {
            return Ok(());
        }
        let close = TxnOp::put(ERA, era.encode(), None);
        match self.guarded(&seen, vec![close]).await? {
            true => Ok(()),
            false => Err(MigrateError::Disturbed("source")),
        }
    }

    /// Does `ops`, if the era is as it was seen.
    async fn guarded(&self, seen: &Seen, ops: Vec<TxnOp>) -> Result<bool, CallError> {
        let done = self.txn_as_of(seen, "migrate the registry", Vec::new(), ops);
        Ok(done.await?.succeeded)
    }
}

/// Has the target hold what the source does. What lives by hosts' leases comes last, on a lease of its own: it is there
/// until the hosts are, and then on theirs.
async fn bring(
    source: &Registry,
    target: &Registry,
    filled: &Seen,
    last: bool,
) -> Result<usize, MigrateError> {
    let (wanted, there) = (source.contents().await?, target.contents().await?);
    let lease = match last {
        true => {
            let mut leases = target.client().lease_client();
            let grant = leases.grant(ARRIVAL, Some(LeaseGrantOptions::new()));
            Some(target.call("grant lease", grant).await?.id())
        }
        false => None,
    };
    let mut ops = Vec::new();
    for (key, entry) in &wanted {
        let same = there
            .get(key)
            .is_some_and(|found| found.value == entry.value);
        let options = match (entry.lease, lease) {
            (0, _) if same => continue,
            (0, _) => None,
            (_, Some(lease)) => Some(PutOptions::new().with_lease(lease)),
            (_, None) => continue,
        };
        ops.push((
            entry.value.len(),
            TxnOp::put(key.as_str(), entry.value.clone(), options),
        ));
    }
    let extra = there.keys().filter(|key| !wanted.contains_key(*key));
    ops.extend(extra.map(|key| (0, TxnOp::delete(key.as_str(), None))));
    let mut batch = Vec::new();
    let mut size = 0;
    for (length, op) in ops {
        if batch.len() == BATCH || size + length > BATCH_BYTES {
            write(target, filled, std::mem::take(&mut batch)).await?;
            size = 0;
        }
        size += length;
        batch.push(op);
    }
    write(target, filled, batch).await?;
    Ok(wanted.len())
}

async fn write(target: &Registry, filled: &Seen, batch: Vec<TxnOp>) -> Result<(), MigrateError> {
    if batch.is_empty() || target.guarded(filled, batch).await? {
        return Ok(());
    }
    Err(MigrateError::Disturbed("target"))
}

fn new_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
