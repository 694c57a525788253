//! What is wanted and needs something else that is wanted, as a service its secrets: neither is there without the other.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, TxnOp};

use crate::backoff::Backoff;
use crate::client::{CallError, Registry};
use crate::desired::{DesireError, DesiredKind, DesiredRecord, name_key};
use crate::keys::{Key, check_name};
use crate::nodes::ATTEMPTS;
use crate::wire::Record as _;

/// Of more it is not compared whether they are there: etcd allows 128 comparisons in a transaction.
const MOST: usize = 100;

/// What has to be there, by kind and identifier.
pub type Needs = BTreeSet<(DesiredKind, String)>;

fn key(need: &(DesiredKind, String)) -> String {
    Key::Desired(need.0, need.1.clone()).to_string()
}

/// That all of it is there.
pub(crate) fn are_there(needs: &Needs) -> impl Iterator<Item = Compare> {
    let keys = needs.iter().take(MOST).map(key);
    keys.map(|key| Compare::version(key, CompareOp::Greater, 0))
}

impl Registry {
    /// The first that is not there.
    pub(crate) async fn missing(
        &self,
        operation: &'static str,
        needs: &Needs,
    ) -> Result<Option<(DesiredKind, String)>, CallError> {
        for need in needs {
            if self.entry(operation, key(need)).await?.is_none() {
                return Ok(Some(need.clone()));
            }
        }
        Ok(None)
    }

    /// Takes back what is wanted, unless `check` refuses it in view of all that is wanted of the kind `users`: one that comes or
    /// changes at the same time is seen by it, or finds that it is gone. `None`: it was not there.
    ///
    /// # Errors
    ///
    /// What `check` refuses, which may be asked several times.
    pub async fn undesire_unused<E>(
        &self,
        kind: DesiredKind,
        record: &DesiredRecord,
        users: DesiredKind,
        mut check: impl FnMut(&[DesiredRecord]) -> Result<(), E>,
    ) -> Result<Option<i64>, DesireError<E>> {
        const OPERATION: &str = "take back what nothing needs";
        check_name(&record.id)?;
        let own = Key::Desired(kind, record.id.clone()).to_string();
        let all = Key::Desired(users, String::new()).to_string();
        let mut backoff = Backoff::contention();
        for _ in 0..ATTEMPTS {
            let seen = self.place().seen();
            let listing = self.list(OPERATION, &all).await?;
            let found = listing.entries.iter();
            let found: Vec<_> = found
                .filter_map(|entry| DesiredRecord::decode(&entry.value).ok())
                .collect();
            check(&found).map_err(DesireError::Refused)?;
            let next = listing.revision.saturating_add(1);
            let when = vec![
                Compare::version(own.clone(), CompareOp::Greater, 0),
                Compare::mod_revision(all.clone(), CompareOp::Less, next).with_prefix(),
            ];
            let mut then = vec![TxnOp::delete(own.clone(), None)];
            if !record.name.is_empty() {
                then.push(TxnOp::delete(name_key(kind, &record.name), None));
            }
            let done = self.txn_as_of(&seen, OPERATION, when, then).await?;
            if done.succeeded {
                return Ok(Some(done.revision));
            }
            if self.entry(OPERATION, own.clone()).await?.is_none() {
                return Ok(None);
            }
            backoff.wait().await;
        }
        Err(DesireError::Contended(record.id.clone()))
    }
}
