//! What happens at the two edges of a TCP flow before its bytes are carried.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::{debug, info};

use crate::flow::{EndCause, EndSide, Ended};
use crate::proxy::{self, AcceptError, AcceptProxy, Ends, Header, ProxyVersion};
use crate::running::Running;
use crate::sni::{self, NoName, Sni, Unserved};
use crate::tcp::{Socket, WRITABLE};
use crate::time::timeout;
use crate::tls::{self, HandshakeError, Stream, Tls, TlsSide};
use crate::{sys, tcp};

/// What a forward says and asks at its two ends. Changes concern newcomers, but for
/// those of [`Tls`] that say so.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// Clients are proxies, and say for whom they come.
    pub accept_proxy: Option<AcceptProxy>,
    /// Upstreams are told who the client is, or whom it says it comes for, before its first byte.
    pub send_proxy: Option<ProxyVersion>,
    /// Upstreams by the server name that TLS clients ask for, whose bytes go on untouched unless TLS ends here.
    pub sni: Option<Sni>,
    /// One end is encrypted. A PROXY header comes before that, in the clear.
    pub tls: Option<Tls>,
}

impl Edge {
    /// The key of a configuration that asks for something here; none if nothing does.
    pub(crate) fn asks(&self) -> Option<&'static str> {
        first_given([
            ("accept_proxy", self.accept_proxy.is_some()),
            ("proxy_protocol", self.send_proxy.is_some()),
            ("sni", self.sni.is_some()),
            ("tls", self.tls.is_some()),
        ])
    }
}

/// The first key that is there.
pub(crate) fn first_given<const N: usize>(keys: [(&'static str, bool); N]) -> Option<&'static str> {
    keys.into_iter()
        .find_map(|(key, given)| given.then_some(key))
}

/// A newcomer that was let in.
pub(crate) struct Admitted {
    pub(crate) stream: Stream,
    /// Who came, or for whom.
    pub(crate) client: SocketAddr,
    /// What the proxy said, if there is one.
    header: Option<Box<Header>>,
    /// What the server name leads to, if that was asked for.
    pub(crate) route: Option<Arc<Running>>,
}

impl Admitted {
    /// Where to look for an upstream.
    pub(crate) fn upstreams<'a>(&'a self, running: &'a Running) -> &'a Running {
        self.route.as_deref().unwrap_or(running)
    }
}

/// Why one end of a flow could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EdgeError {
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error("send the PROXY header to upstream {0}")]
    Send(SocketAddr, #[source] io::Error),
    #[error(transparent)]
    Name(Unserved),
    #[error(transparent)]
    Client(HandshakeError),
    #[error("upstream {0}")]
    Upstream(SocketAddr, #[source] HandshakeError),
}

impl EdgeError {
    /// How the flow ended that never began.
    pub(crate) fn into_end(self) -> Ended {
        let side = match &self {
            Self::Accept(_) | Self::Name(_) | Self::Client(_) => EndSide::Client,
            Self::Send(..) | Self::Upstream(..) => EndSide::Upstream,
        };
        let cause = match &self {
            Self::Accept(AcceptError::Timeout(_))
            | Self::Name(Unserved::Unread(NoName::Timeout(_)))
            | Self::Client(HandshakeError::Timeout(_))
            | Self::Upstream(_, HandshakeError::Timeout(_)) => EndCause::Timeout,
            Self::Accept(AcceptError::Socket(error))
            | Self::Name(Unserved::Unread(NoName::Socket(error)))
            | Self::Send(_, error) => EndCause::from(error),
            _ => EndCause::Forbidden,
        };
        let error = Some(io::Error::other(chain(&self)));
        Ended { cause, side, error }
    }

    fn cause(&self) -> Cause {
        match self {
            Self::Accept(_) | Self::Send(..) => Cause::ProxyHeader,
            Self::Name(_) => Cause::ServerName,
            Self::Client(_) | Self::Upstream(..) => Cause::TlsHandshake,
        }
    }
}

/// Lets a newcomer in; if not, that has been told and counted.
pub(crate) async fn admit(
    client: Socket,
    peer: SocketAddr,
    running: &Running,
) -> Result<Admitted, EdgeError> {
    let edge = running.edge.borrow().clone();
    if edge.accept_proxy.is_none() && edge.sni.is_none() && edge.tls.is_none() {
        return Ok(Admitted {
            stream: Stream::Plain(client),
            client: peer,
            header: None,
            route: None,
        });
    }
    // Apart, so that those who wait for an upstream do not keep room for it.
    let admitted = Box::pin(let_in(client, peer, &edge, running)).await;
    admitted.inspect_err(|error| refused(running, peer, error))
}

async fn let_in(
    client: Socket,
    peer: SocketAddr,
    edge: &Edge,
    running: &Running,
) -> Result<Admitted, EdgeError> {
    let header = match &edge.accept_proxy {
        Some(rules) => Some(Box::new(proxy::accept(&client, peer, rules).await?)),
        None => None,
    };
    let terminated = edge.tls.as_ref();
    let terminated = terminated.filter(|tls| tls.side == TlsSide::Terminate);
    let mut unserved = None;
    let route = match &edge.sni {
        Some(sni) => match sni::choose(&client, sni, &running.routes).await {
            Ok(route) => route,
            // Who may not speak here does not learn either which names there are.
            Err(unknown @ Unserved::Unknown(_)) if terminated.is_some() => {
                client.look_again();
                unserved = Some(unknown);
                None
            }
            Err(unserved) => {
                sni::turn_away(client, &unserved).await;
                return Err(EdgeError::Name(unserved));
            }
        },
        None => None,
    };
    let stream = match terminated {
        Some(tls) => {
            client.look_again();
            let patience = running.limits.borrow().connect_timeout;
            let accepted = tls::accept(client, tls, patience).await;
            let encrypted = accepted.map_err(EdgeError::Client)?;
            debug!(forward = %running.name, client = %peer, identity = %encrypted.identity(), "verified");
            Stream::Encrypted(Box::new(encrypted))
        }
        None => Stream::Plain(client),
    };
    if let Some(unserved) = unserved {
        return Err(EdgeError::Name(unserved));
    }
    Ok(Admitted {
        stream,
        client: header
            .as_ref()
            .and_then(|header| header.ends)
            .map_or(peer, |ends| ends.source),
        header,
        route,
    })
}

/// Says to an upstream what must come before the client's first byte; if it cannot be said, that
/// has been told and counted.
pub(crate) async fn depart(
    upstream: Socket,
    address: SocketAddr,
    admitted: &Admitted,
    running: &Running,
) -> Result<Stream, EdgeError> {
    let edge = running.edge.borrow().clone();
    if edge.send_proxy.is_none() && edge.tls.is_none() {
        return Ok(Stream::Plain(upstream));
    }
    let introduced = Box::pin(introduce(upstream, address, admitted, &edge, running)).await;
    introduced.inspect_err(|error| {
        running.totals.refused.fetch_add(1, Relaxed);
        refused(running, admitted.client, error);
        // Another endpoint may be the one that is meant.
        let cause = io::Error::new(io::ErrorKind::ConnectionAborted, chain(error));
        tcp::failed(admitted.upstreams(running), address, cause);
    })
}

async fn introduce(
    upstream: Socket,
    address: SocketAddr,
    admitted: &Admitted,
    edge: &Edge,
    running: &Running,
) -> Result<Stream, EdgeError> {
    let patience = running.limits.borrow().connect_timeout;
    if let Some(version) = edge.send_proxy {
        let said = say(version, &upstream, admitted);
        let said = timeout(patience, said).await;
        let said = said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        said.map_err(|error| EdgeError::Send(address, error))?;
    }
    match &edge.tls {
        Some(tls) if tls.side == TlsSide::Originate => {
            let connected = tls::connect(upstream, address.ip(), tls, patience).await;
            let encrypted = connected.map_err(|error| EdgeError::Upstream(address, error))?;
            debug!(forward = %running.name, upstream = %address, identity = %encrypted.identity(), "verified");
            Ok(Stream::Encrypted(Box::new(encrypted)))
        }
        _ => Ok(Stream::Plain(upstream)),
    }
}

async fn say(version: ProxyVersion, upstream: &Socket, admitted: &Admitted) -> io::Result<()> {
    let header = admitted.header.as_ref();
    let ends = match header.and_then(|header| header.ends) {
        Some(ends) => ends,
        None => Ends {
            source: admitted.client,
            destination: sys::local_address(admitted.stream.socket())?,
        },
    };
    let extensions = header.map_or(&[][..], |header| &header.extensions[..]);
    let header = proxy::encode(version, ends, extensions);
    let mut bytes = &header[..];
    while !bytes.is_empty() {
        upstream.ready(WRITABLE).await;
        match upstream.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the bytes must pass through user space.
pub(crate) fn is_encrypted(client: &Stream, upstream: &Stream) -> bool {
    !matches!((client, upstream), (Stream::Plain(_), Stream::Plain(_)))
}

/// Counts it, and tells it in one line.
fn refused(running: &Running, client: SocketAddr, error: &EdgeError) {
    running.totals.edge.add(error.cause());
    let reason = chain(error);
    info!(forward = %running.name, %client, error = reason, "refused");
}

/// An error with the whole chain of its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Why somebody was turned away at an edge.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    ProxyHeader,
    ServerName,
    TlsHandshake,
    TlsRevoked,
}

impl Cause {
    const ALL: [Self; 4] = [
        Self::ProxyHeader,
        Self::ServerName,
        Self::TlsHandshake,
        Self::TlsRevoked,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy-header",
            Self::ServerName => "server-name",
            Self::TlsHandshake => "tls-handshake",
            Self::TlsRevoked => "tls-revoked",
        }
    }
}

/// How many one forward has turned away, by cause.
#[derive(Debug, Default)]
pub(crate) struct Totals([AtomicU64; Cause::ALL.len()]);

impl Totals {
    pub(crate) fn add(&self, cause: Cause) {
        self.0[cause as usize].fetch_add(1, Relaxed);
    }

    /// Each cause by name.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |cause: Cause| self.0[cause as usize].load(Relaxed);
        Cause::ALL
            .map(|cause| (cause.name(), count(cause)))
            .into_iter()
    }
}
