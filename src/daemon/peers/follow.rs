//! Following gateways of other meshes, and bringing in what they lend.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use nuncio_mesh::{GatewayError, Introduction, Lent};
use nuncio_registry::{ImportRecord, ServiceRecord};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Peers;
use super::forwards::upstream;
use crate::daemon::Daemon;
use crate::daemon::container::locked;
use crate::daemon::services::is_name;

/// A gateway that says nothing for so long is not there.
const SILENCE: Duration = Duration::from_secs(8);
/// What it lent is believed for so long then, if others of its mesh are heard, and else until one is.
const GRACE: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// How often what is brought in is compared with what is in the registry.
const COMPARE: Duration = Duration::from_millis(500);

/// A mesh and the fingerprint of one of its gateways.
type Who = (String, String);

impl Daemon {
    /// Follows all gateways that it was paired with, for ever.
    pub(in crate::daemon) async fn follow_gateways(self: Arc<Self>) {
        let Some(peers) = &self.peers else { return };
        let mut following = BTreeMap::<Who, AbortOnDropHandle<()>>::new();
        loop {
            let wanted: BTreeSet<Who> = locked(&peers.state)
                .borrows
                .iter()
                .flat_map(|(mesh, lenders)| {
                    let key =
                        |lender: &super::Lender| (mesh.clone(), lender.pinned.fingerprint.clone());
                    lenders.iter().map(key)
                })
                .collect();
            following.retain(|who, _| wanted.contains(who));
            for who in wanted {
                following.entry(who.clone()).or_insert_with(|| {
                    let daemon = Arc::clone(&self);
                    AbortOnDropHandle::new(tokio::spawn(daemon.follow_one(who)))
                });
            }
            self.bring_in(peers).await;
            tokio::select! {
                () = peers.changed.notified() => {}
                () = sleep(COMPARE) => {}
            }
        }
    }

    async fn follow_one(self: Arc<Self>, who: Who) {
        let Some(peers) = &self.peers else { return };
        let (mesh, fingerprint) = &who;
        let mut retry = FIRST_RETRY;
        let mut lost = Instant::now();
        loop {
            let Some(address) = peers.address_of(&who) else {
                return;
            };
            let followed = peers
                .gateway
                .follow(address, Introduction::Known(fingerprint))
                .await;
            match followed {
                Ok(mut following) => {
                    tracing::info!(peer = mesh, %address, "follows another mesh's gateway");
                    locked(&self.heard).insert(fingerprint.clone());
                    retry = FIRST_RETRY;
                    while let Ok(Ok(lent)) = timeout(SILENCE, following.next()).await {
                        self.take(peers, &who, lent).await;
                    }
                    locked(&self.heard).remove(fingerprint);
                    lost = Instant::now();
                    tracing::warn!(peer = mesh, %address, "another mesh's gateway is not heard any more");
                }
                Err(error) => {
                    let is_refused = matches!(error, GatewayError::Refused(_));
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::debug!(peer = mesh, %address, error, "follow another mesh's gateway");
                    if is_refused {
                        self.take(peers, &who, Vec::new()).await;
                    }
                }
            }
            // While none of a mesh's gateways is heard, their ambassadors may well go on without their daemons.
            if lost.elapsed() >= GRACE && self.hears_another(peers, &who) {
                self.take(peers, &who, Vec::new()).await;
            }
            sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Whether some other gateway of the same mesh is heard.
    fn hears_another(&self, peers: &Peers, (mesh, fingerprint): &Who) -> bool {
        let (state, heard) = (locked(&peers.state), locked(&self.heard));
        let lenders = state.borrows.get(mesh).into_iter().flatten();
        let mut others = lenders.map(|lender| &lender.pinned.fingerprint);
        others.any(|other| other != fingerprint && heard.contains(other))
    }

    /// Takes what a gateway lends now, if that is news.
    async fn take(&self, peers: &Peers, who: &Who, mut lent: Vec<Lent>) {
        lent.retain(|lent| is_name(&lent.name) && lent.port != 0);
        lent.truncate(super::MOST);
        if peers.lent_by(who).is_none_or(|known| known == lent) {
            return;
        }
        let first = peers.address.port();
        let kept = peers.update(|state| {
            let lenders = state.borrows.get_mut(&who.0).into_iter().flatten();
            for lender in lenders.filter(|lender| lender.pinned.fingerprint == who.1) {
                lender.lent.clone_from(&lent);
            }
            state.give_ports(first);
            Ok(())
        });
        let done = match kept {
            Ok(()) => self.sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            let error = format!("{error:#}");
            tracing::warn!(peer = who.0, error, "take what another mesh lends");
        }
    }

    /// Makes the registry agree with what is borrowed, as far as it is this host's to say.
    async fn bring_in(&self, peers: &Peers) {
        let Some(lease) = self.presence.state().borrow().lease else {
            return; // nobody would hear it now
        };
        let catalog = self.catalog();
        let wanted: BTreeMap<String, ImportRecord> = {
            let state = locked(&peers.state);
            let borrowed = state.borrowed().into_iter();
            let import = |((mesh, name), lenders): ((&str, &str), Vec<(_, &Lent)>)| {
                let name = format!("{name}.{mesh}");
                let port = *state.ports.get(&name)?;
                let mut service = ServiceRecord::new(name, vec![upstream(self.node.address, port)]);
                let tags = lenders
                    .iter()
                    .flat_map(|(_, lent)| lent.tags.iter().cloned());
                service.tags = tags.collect::<BTreeSet<_>>().into_iter().collect();
                let (node, peer) = (self.node.id.clone(), mesh.to_owned());
                Some((
                    service.name.clone(),
                    ImportRecord {
                        node,
                        peer,
                        service,
                    },
                ))
            };
            borrowed.filter_map(import).collect()
        };
        for (name, import) in &wanted {
            let key = (name.clone(), self.node.id.clone());
            if catalog
                .imports
                .get(&key)
                .is_none_or(|known| **known != *import)
                && let Err(error) = self.registry.put_import(import, lease).await
            {
                tracing::debug!(%error, service = name, "bring in a service of another mesh");
            }
        }
        let own = catalog
            .imports
            .keys()
            .filter(|(_, node)| *node == self.node.id);
        for (name, node) in own.filter(|(name, _)| !wanted.contains_key(name)) {
            if let Err(error) = self.registry.remove_import(name, node).await {
                tracing::debug!(%error, service = name, "take back a service of another mesh");
            }
        }
    }
}

impl Peers {
    fn address_of(&self, (mesh, fingerprint): &Who) -> Option<std::net::SocketAddr> {
        let state = locked(&self.state);
        let mut lenders = state.borrows.get(mesh)?.iter();
        let found = lenders.find(|lender| lender.pinned.fingerprint == *fingerprint)?;
        Some(found.address)
    }

    fn lent_by(&self, (mesh, fingerprint): &Who) -> Option<Vec<Lent>> {
        let state = locked(&self.state);
        let mut lenders = state.borrows.get(mesh)?.iter();
        let found = lenders.find(|lender| lender.pinned.fingerprint == *fingerprint)?;
        Some(found.lent.clone())
    }
}
