//! `GET /nuncio/v1/why`: where the way between two containers breaks.

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Json};
use nuncio_overlay::Protocol;
use serde::Deserialize;

use super::{Answer, Server};
use crate::daemon::refusal::Refusal;
use crate::daemon::why::{Asked, Family};

/// `from=NAME&to=NAME[&port=6379[/tcp|/udp]][&family=4|6]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhyQuery {
    from: String,
    to: String,
    port: Option<String>,
    family: Option<String>,
}

pub(crate) async fn why(State(daemon): Server, Query(query): Query<WhyQuery>) -> Answer {
    let port = match query
        .port
        .as_deref()
        .map(str::parse::<crate::daemon::config::Port>)
    {
        Some(Ok(port)) => Some((protocol(port.protocol), port.number)),
        Some(Err(error)) => return Err(Refusal::invalid(error.to_string()).into()),
        None => None,
    };
    let family = match query.family.as_deref() {
        None => None,
        Some("4") => Some(Family::V4),
        Some("6") => Some(Family::V6),
        Some(other) => {
            let refusal = format!("invalid family {other}: expected 4 or 6");
            return Err(Refusal::invalid(refusal).into());
        }
    };
    let asked = Asked {
        from: query.from,
        to: query.to,
        port,
        family,
    };
    Ok(Json(daemon.why(&asked).await?).into_response())
}

fn protocol(protocol: crate::daemon::config::Protocol) -> Protocol {
    match protocol {
        crate::daemon::config::Protocol::Tcp => Protocol::Tcp,
        crate::daemon::config::Protocol::Udp => Protocol::Udp,
    }
}
