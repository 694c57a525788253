//! Join tokens, and hosts that are to leave. Docker has these below `/swarm`, in another form.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};

use super::body::JsonBody;
use super::{Answer, Server, json};
use crate::daemon::Daemon;
use crate::daemon::mesh::NewToken;

/// A token to be made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct TokenRequest {
    /// Seconds; absent: for ever.
    ttl: Option<u64>,
    /// Absent: any number.
    uses: Option<u32>,
    /// Whether all others are to let in nobody any more.
    rotate: bool,
}

/// A token that was made: the only time that it is shown.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TokenMade {
    token: String,
    address: String,
}

/// A token without its secret.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    #[serde(rename = "ID")]
    id: String,
    created: u64,
    expires: Option<u64>,
    uses: Option<u32>,
}

pub(crate) async fn create_token(
    State(daemon): Server,
    JsonBody(wanted): JsonBody<TokenRequest>,
) -> Answer {
    let ttl = wanted.ttl.map(Duration::from_secs);
    let NewToken { token, address } = daemon.create_token(ttl, wanted.uses, wanted.rotate)?;
    let address = address.to_string();
    Ok((
        StatusCode::CREATED,
        json::sorted(TokenMade { token, address })?,
    )
        .into_response())
}

/// A certificate for an operator to be made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub(crate) struct CertificateRequest {
    name: String,
    /// The operator's public key; the private one is nobody else's.
    key: String,
    /// Seconds.
    expiry: u64,
}

/// A certificate that was made.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CertificateMade {
    name: String,
    certificate: String,
    authority: String,
    expires: u64,
}

pub(crate) async fn certify(
    State(daemon): Server,
    JsonBody(wanted): JsonBody<CertificateRequest>,
) -> Answer {
    let lifetime = Duration::from_secs(wanted.expiry);
    let papers = daemon.certify(&wanted.name, &wanted.key, lifetime)?;
    let made = CertificateMade {
        name: wanted.name,
        certificate: papers.certificate,
        authority: papers.authority,
        expires: papers.expires,
    };
    Ok((StatusCode::CREATED, json::sorted(made)?).into_response())
}

pub(crate) async fn tokens(State(daemon): Server) -> Answer {
    let tokens = daemon.tokens()?.into_iter().map(|token| Token {
        id: token.id,
        created: token.created,
        expires: token.expires,
        uses: token.uses,
    });
    json::sorted(tokens.collect::<Vec<_>>())
}

pub(crate) async fn remove_token(State(daemon): Server, Path(id): Path<String>) -> Answer {
    daemon.remove_token(&id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn remove_node(State(daemon): Server, Path(wanted): Path<String>) -> Answer {
    remove_from_mesh(&daemon, &wanted).await
}

/// Has a host be none of the mesh any more.
pub(super) async fn remove_from_mesh(daemon: &Daemon, wanted: &str) -> Answer {
    daemon.remove_node(wanted).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
