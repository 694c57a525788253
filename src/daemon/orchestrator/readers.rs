//! Who can read what is sealed in the registry: each host of the mesh, also one that joins later.

use nuncio_registry::{Catalog, DesireError, DesiredKind};
use serde::Deserialize as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use std::sync::Arc;

use super::services::no_such;
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;
use crate::daemon::sealed::{Recipients, SealError, Sealed};

/// Where records of a kind keep what is sealed, below their state.
const PLACES: [(DesiredKind, &str, &[&str]); 2] = [
    (DesiredKind::Secret, "secret", &[""]),
    (
        DesiredKind::Service,
        "the account of service",
        &["/account", "/previous/account"],
    ),
];

/// The hosts that may read what is sealed, but for this one.
fn recipients(catalog: &Catalog) -> Recipients {
    let nodes = catalog.nodes.values();
    let keys = nodes.filter_map(|node| {
        let key = &node.machine.as_ref()?.seal_key;
        (!key.is_empty()).then(|| (node.id.clone(), key.clone()))
    });
    keys.collect()
}

/// What is sealed at a place of a record's state, if there is anything.
fn sealed_at(state: &Value, place: &str) -> Option<Result<Sealed, SealError>> {
    let kept = state.pointer(place).filter(|kept| !kept.is_null())?;
    Some(Sealed::deserialize(kept).map_err(|_| SealError::Damaged))
}

impl Daemon {
    /// All hosts of the mesh.
    pub(super) fn recipients(&self) -> Recipients {
        let mut recipients = recipients(&self.catalog());
        recipients.insert(self.node.id.clone(), self.seal_key.public());
        recipients
    }

    /// Hands on what this host can read and others of the mesh cannot, or not any more.
    async fn hand_on(&self) -> anyhow::Result<()> {
        let catalog = self.catalog();
        let recipients = self.recipients();
        let is_alive = |node: &str| node == self.node.id || catalog.alive.contains(node);
        // The first of those that can does it.
        let is_mine = |sealed: &Sealed| {
            let mut readers = sealed.readers(&recipients).filter(|node| is_alive(node));
            readers.next() == Some(&self.node.id) && !sealed.is_for(&recipients)
        };
        for (kind, what, places) in PLACES {
            for record in catalog.desired.all(kind) {
                let mut kept = places
                    .iter()
                    .filter_map(|place| sealed_at(&record.state, place));
                if !kept.any(|sealed| sealed.is_ok_and(|sealed| is_mine(&sealed))) {
                    continue;
                }
                let changed = self.registry.redesire(kind, &record.id, |before| {
                    let mut record = before.ok_or_else(|| no_such(what, &record.id))?;
                    let wrong = |error: SealError| {
                        Refusal::invalid(format!("{what} {}: {error}", record.name))
                    };
                    for place in places {
                        let Some(sealed) = sealed_at(&record.state, place) else {
                            continue;
                        };
                        let mut sealed = sealed.map_err(wrong)?;
                        if !is_mine(&sealed) {
                            continue;
                        }
                        sealed
                            .hand_on(&self.node.id, &self.seal_key, &recipients)
                            .map_err(wrong)?;
                        if let Some(kept) = record.state.pointer_mut(place) {
                            *kept = serde_json::to_value(sealed).unwrap_or_default();
                        }
                    }
                    Ok::<_, Refusal>(record)
                });
                match changed.await {
                    // It was removed meanwhile, or is of no use to anybody.
                    Err(DesireError::Refused(refusal)) => {
                        tracing::warn!(of = record.name, %refusal, "hand on {what}");
                    }
                    changed => drop(changed?),
                }
            }
        }
        Ok(())
    }
}

/// Hands on what is sealed to hosts that join, until `stop`.
pub(in crate::daemon) async fn run(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut catalog = daemon.catalog_changes.clone();
    let follow = async {
        loop {
            let known = catalog.borrow_and_update().clone();
            let done = match known.stale {
                None => daemon.hand_on().await,
                Some(_) => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(error = format!("{error:#}"), "hand on what is sealed");
            }
            if catalog.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow => {}
    }
}
