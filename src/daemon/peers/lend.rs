//! The port at which gateways of other meshes ask what is lent.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nuncio_mesh::{Caller, Lending};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Peers, accept};
use crate::daemon::Daemon;
use crate::daemon::container::locked;
use crate::daemon::refusal::Refusal;

/// Gateways that are told, and those who have not yet shown who they are, at once.
const MOST: usize = 256;
/// How often a gateway is told what it knows, so that it knows who tells it to be there.
const BEAT: Duration = Duration::from_secs(2);
/// How long one may take to take it.
const PATIENCE: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_millis(100);

impl Daemon {
    /// Opens the port, if this host is a gateway.
    pub(in crate::daemon) async fn open_gateway(&self) -> anyhow::Result<Option<TcpListener>> {
        let Some(peers) = &self.peers else {
            return Ok(None);
        };
        let address = peers.address;
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!(
                "the gateway cannot listen on {address}: choose another one with --gateway-addr"
            )
        })?;
        tracing::info!(%address, "a gateway for other meshes");
        Ok(Some(listener))
    }

    pub(in crate::daemon) async fn serve_gateway(
        self: Arc<Self>,
        listener: TcpListener,
        stop: CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(MOST));
        let serve = async {
            loop {
                let permit = room.clone().acquire_owned().await;
                let (stream, from) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "accept at the gateway's port"); // such as EMFILE: it passes
                        sleep(BACKOFF).await;
                        continue;
                    }
                };
                let daemon = Arc::clone(&self);
                let ended = stop.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    let Some(peers) = &daemon.peers else { return };
                    let meet = peers.gateway.meet(stream, |caller| peers.decide(caller));
                    match meet.await {
                        Ok(lending) => tokio::select! {
                            () = ended.cancelled() => {}
                            () = daemon.lend_to(peers, lending) => {}
                        },
                        Err(error) => tracing::info!(%from, %error, "not let in at the gateway"),
                    }
                });
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve => {}
        }
    }

    /// Tells a gateway what is lent, as long as it is known and listens.
    async fn lend_to(&self, peers: &Peers, mut lending: Lending) {
        let fingerprint = lending.caller.pinned.fingerprint.clone();
        if lending.caller.token.is_some()
            && let Err(error) = self.sync().await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "let a gateway use what is lent"
            );
        }
        locked(&self.heard).insert(fingerprint.clone());
        let mut lent = peers.lent.subscribe();
        let mut beat = interval(BEAT);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                changed = lent.changed() => if changed.is_err() { break },
            }
            if !peers.knows(&fingerprint) {
                break;
            }
            let services = lent.borrow_and_update().to_vec();
            if !matches!(timeout(PATIENCE, lending.tell(services)).await, Ok(Ok(()))) {
                break;
            }
        }
        locked(&self.heard).remove(&fingerprint);
    }
}

impl Peers {
    fn knows(&self, fingerprint: &str) -> bool {
        let state = locked(&self.state);
        let mut known = state.borrowers.iter();
        known.any(|borrower| borrower.pinned.fingerprint == fingerprint)
    }

    /// Whether a gateway is let in. A token is used up by that, whatever comes of it.
    fn decide(&self, caller: &Caller) -> Result<(), String> {
        const LONGEST: usize = 255;
        let Some((id, hash, name)) = &caller.token else {
            return match self.knows(&caller.pinned.fingerprint) {
                true => Ok(()),
                false => {
                    Err("this gateway's key is not known here: pair it by a new token".to_owned())
                }
            };
        };
        if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
            return Err(format!(
                "a gateway's name has 1 to {LONGEST} printable bytes"
            ));
        }
        let used = self.update(|state| {
            let now = SystemTime::now();
            let is_good = state
                .tokens
                .get(id)
                .is_some_and(|token| token.hash == *hash && token.expires > now);
            if !is_good {
                return Err(Refusal::conflict(
                    "the token is used up, has expired, or is not of this gateway",
                ));
            }
            state.tokens.remove(id);
            accept(state, name, &caller.pinned);
            Ok(())
        });
        used.map_err(|error| format!("{error:#}"))?;
        tracing::info!(
            peer = name,
            key = caller.pinned.fingerprint,
            "a gateway of another mesh is let in"
        );
        Ok(())
    }
}
