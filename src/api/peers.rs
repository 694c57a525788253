//! `/nuncio/v1/peers` and `/nuncio/v1/exports`: other meshes, and what is lent to them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::error::ApiError;
use super::{Answer, Server, json};

/// For how long a token may be good.
const LONGEST: u64 = 365 * 24 * 3600;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Peers {
    peers: Vec<Peer>,
    exports: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Peer {
    name: String,
    /// `lends` or `borrows`.
    role: &'static str,
    addresses: Vec<SocketAddr>,
    keys: Vec<String>,
    connected: usize,
    services: Vec<String>,
}

/// Another mesh that is to lend.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct NewPeer {
    name: String,
    address: String,
    token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct TokenRequest {
    /// Seconds.
    ttl: u64,
}

/// A token that was made: the only time that it is shown.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TokenMade {
    token: String,
    address: SocketAddr,
}

pub(crate) async fn list(State(daemon): Server) -> Answer {
    let (peers, exports) = daemon.other_meshes()?;
    let peer = |peer: crate::daemon::peers::PeerView| Peer {
        name: peer.name,
        role: if peer.lends { "lends" } else { "borrows" },
        addresses: peer.addresses,
        keys: peer.fingerprints,
        connected: peer.connected,
        services: peer.services,
    };
    json::sorted(Peers {
        peers: peers.into_iter().map(peer).collect(),
        exports,
    })
}

pub(crate) async fn add(State(daemon): Server, JsonBody(peer): JsonBody<NewPeer>) -> Answer {
    let Ok(address) = peer.address.parse() else {
        return Err(ApiError::bad_request(format!(
            "invalid address of a gateway {:?}: expected IP:PORT",
            peer.address
        )));
    };
    daemon.add_peer(&peer.name, address, &peer.token).await?;
    Ok(StatusCode::CREATED.into_response())
}

pub(crate) async fn remove(State(daemon): Server, Path(name): Path<String>) -> Answer {
    daemon.remove_peer(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn create_token(
    State(daemon): Server,
    JsonBody(wanted): JsonBody<TokenRequest>,
) -> Answer {
    if wanted.ttl == 0 || wanted.ttl > LONGEST {
        let ttl = wanted.ttl;
        return Err(ApiError::bad_request(format!(
            "invalid Ttl {ttl}: expected 1 to {LONGEST} seconds"
        )));
    }
    let (token, address) = daemon.create_peer_token(Duration::from_secs(wanted.ttl))?;
    let made = json::sorted(TokenMade { token, address })?;
    Ok((StatusCode::CREATED, made).into_response())
}

pub(crate) async fn export(State(daemon): Server, Path(name): Path<String>) -> Answer {
    daemon.lend(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn unexport(State(daemon): Server, Path(name): Path<String>) -> Answer {
    daemon.lend_no_more(&name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
