//! Takes the header off a connection, and not a byte more.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::parse::{HeaderError, LONGEST, parse};
use super::{AcceptProxy, Header};
use crate::peek::{PeekError, Peeked};
use crate::tcp::Socket;
use crate::time::timeout;

/// Why a connection is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("{0} is not among accept_proxy_from, the networks whose PROXY header is taken")]
    Untrusted(IpAddr),
    #[error("no whole PROXY header came within {0:?}")]
    Timeout(std::time::Duration),
    #[error("the PROXY header is truncated: the client closed after {0} bytes of it")]
    Truncated(usize),
    #[error(transparent)]
    Malformed(#[from] HeaderError),
    #[error("read the PROXY header")]
    Socket(#[from] io::Error),
}

/// Waits for the header that begins the connection, and reads just that.
pub(crate) async fn accept(
    client: &Socket,
    peer: SocketAddr,
    rules: &AcceptProxy,
) -> Result<Header, AcceptError> {
    let ip = peer.ip().to_canonical();
    if !rules.from.iter().any(|network| network.contains(ip)) {
        return Err(AcceptError::Untrusted(ip));
    }
    let (header, length) = timeout(rules.timeout, whole(client))
        .await
        .map_err(|_| AcceptError::Timeout(rules.timeout))??;
    crate::peek::consume(client, length)?;
    Ok(header)
}

async fn whole(client: &Socket) -> Result<(Header, usize), AcceptError> {
    let mut peeked = Peeked::new(LONGEST);
    loop {
        if let Some(found) = parse(peeked.bytes())? {
            return Ok(found);
        }
        match peeked.more(client).await {
            Ok(()) => {}
            Err(PeekError::Closed) => {
                return Err(AcceptError::Truncated(peeked.bytes().len()));
            }
            // `parse` has decided by then.
            Err(PeekError::Full) => return Err(HeaderError::TooLong(LONGEST).into()),
            Err(PeekError::Socket(error)) => return Err(error.into()),
        }
    }
}
