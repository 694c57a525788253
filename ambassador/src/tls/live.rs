//! Whether a peer that speaks may go on.

use rustls::pki_types::CertificateDer;

use super::Tls;
use super::handshake::Peer;
use super::verify::{self, PeerError};
use crate::running::Running;

/// Returns when the forward's settings, or what its credentials have become, forbid the peer to
/// speak. A certificate that was valid when the flow began is not held to the clock any more.
pub(super) async fn forbidden(running: &Running, peer: &Peer) -> PeerError {
    let mut edges = running.edge.subscribe();
    loop {
        let edge = edges.borrow_and_update().clone();
        // A forward that speaks no TLS any more says nothing about those who still do.
        let tls = edge.tls.as_ref().filter(|tls| tls.side == peer.side);
        let again = async {
            match tls {
                Some(tls) => recheck(tls, peer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = again => return error,
            // The sender lives as long as `running`.
            _ = edges.changed() => {}
        }
    }
}

async fn recheck(tls: &Tls, peer: &Peer) -> PeerError {
    let mut credentials = tls.credentials.clone();
    loop {
        let current = credentials.borrow_and_update().clone();
        let (shown, between): (&CertificateDer<'_>, _) =
            peer.chain.split_first().expect("established() has one");
        let chain = (shown, between);
        if let Err(error) = verify::check(peer.side, chain, peer.verified, &current, &tls.allow) {
            return error;
        }
        if credentials.changed().await.is_err() {
            // Nobody will renew them any more; what is stays.
            std::future::pending::<()>().await;
        }
    }
}
