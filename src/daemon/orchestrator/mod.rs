//! Services over all hosts: what is wanted is in the registry; one host leads, and plans tasks; each host runs its own.

pub(crate) mod accounts;
mod acks;
mod agent;
mod cluster;
mod drain;
mod ingress;
mod lead;
pub(super) mod news;
mod nodes;
pub(crate) mod outfit;
pub(super) mod parsed;
mod readers;
mod secrets;
pub(crate) mod services;
pub(crate) mod spec;
mod task_files;
mod time;
pub(crate) mod view;

use std::sync::Arc;

use nuncio_registry::{Catalog, DesiredKind, DesiredRecord};
use tokio::sync::watch;
use tokio::time::timeout;

use self::services::no_such;
use super::refusal::Refusal;
use super::{Daemon, SETTLE};

pub(crate) use self::cluster::NodeWish;
pub(crate) use self::nodes::check_labels as check_node_labels;
pub(crate) use self::secrets::{FileKind, FileSpec};

pub(super) use self::agent::run as run_tasks;
pub(super) use self::lead::run as lead;
pub(super) use self::readers::run as hand_on_sealed;
pub(super) use self::time::MeshTime;

/// 25 digits and small letters, by chance, as Swarm's.
pub(crate) fn new_short_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = uuid::Uuid::new_v4().as_u128();
    let digits = (0..25).map(|_| {
        let digit = usize::try_from(number % 36).unwrap_or_default();
        number /= 36;
        char::from(DIGITS[digit])
    });
    digits.collect()
}

/// Refuses a change that is based on what has changed meanwhile, in Docker's words.
fn check_sequence(record: &DesiredRecord, version: u64) -> Result<(), Refusal> {
    match record.version == version {
        true => Ok(()),
        false => Err(Refusal::invalid("update out of sequence")),
    }
}

impl Daemon {
    /// Waits until this host knows what is in the registry at `revision`, for a bounded time.
    pub(super) async fn know(&self, revision: i64) {
        let mut catalog = self.catalog_changes.clone();
        let known = catalog.wait_for(|catalog| catalog.revision >= revision);
        if timeout(SETTLE, known).await.is_err() {
            tracing::warn!("the registry's news did not come within {SETTLE:?}");
        }
    }

    /// What is known of the mesh, and each change of it. No look at it may last: see [`Daemon::catalog`].
    pub(crate) fn news_of_mesh(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog_changes.clone()
    }

    /// The one of that name, id or beginning of an id.
    pub(super) fn desired_one(
        &self,
        kind: DesiredKind,
        wanted: &str,
        what: &str,
    ) -> anyhow::Result<Arc<DesiredRecord>> {
        let catalog = self.catalog();
        let all = || catalog.desired.all(kind);
        let named = all().find(|record| record.id == wanted || record.name == wanted);
        if let Some(found) = named {
            return Ok(Arc::clone(found));
        }
        let mut begin = all().filter(|record| !wanted.is_empty() && record.id.starts_with(wanted));
        match (begin.next(), begin.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Refusal::invalid(format!(
                "{what} {wanted} is ambiguous: several ids begin so, give more digits"
            ))
            .into()),
            (None, _) => Err(no_such(what, wanted).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_the_length_and_digits_of_swarms() {
        let (one, other) = (new_short_id(), new_short_id());
        assert_ne!(one, other);
        assert_eq!(one.len(), 25);
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
    }
}
