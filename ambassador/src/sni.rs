//! Chooses upstreams by the server name that a TLS client asks for. The bytes stay untouched.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::sync::watch;

use crate::peek::{PeekError, Peeked};
use crate::running::Running;
use crate::tcp::{READABLE, Socket, WRITABLE};
use crate::time::timeout;
use crate::{Edge, EndpointSet, Forward, sys};

/// A ClientHello is read up to this many bytes; most have a few hundred.
const LONGEST: usize = 16 << 10;
/// How long it may take to come. Whoever says nothing for longer asks for no name.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one who is turned away may take to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// A fatal alert, unrecognized_name (RFC 6066 §3), in a record of TLS 1.2.
const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

/// Upstreams by server name. A client that asks for no name, or one that is not here, gets the
/// forward's own upstreams, if it has any to give.
#[derive(Clone, Debug)]
pub struct Sni {
    /// A name of its own goes before a longer suffix, and that before a shorter one.
    pub routes: Vec<(NamePattern, watch::Receiver<Arc<EndpointSet>>)>,
    /// Whether other clients are refused, with the alert unrecognized_name.
    pub refuse_others: bool,
}

/// A server name, or `*.` and the end of many. Displayed and parsed as such.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NamePattern {
    /// Lower case, without the star.
    name: String,
    any_below: bool,
}

/// Not a server name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not a server name; write one such as db.example.org, or *.example.org for all below it"
)]
pub struct NameError(String);

/// Why no name was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoName {
    #[error("the client asks for no server name")]
    Absent,
    #[error("there is no ClientHello within {0:?}")]
    Timeout(Duration),
    #[error("the ClientHello is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the client closed within its ClientHello")]
    Truncated,
    #[error("it begins with no ClientHello")]
    NotTls(#[source] rustls::Error),
    #[error("read the ClientHello")]
    Socket(#[source] io::Error),
}

impl FromStr for NamePattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let below = lower.strip_prefix("*.");
        let name = below.unwrap_or(&lower);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(NameError(text.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            any_below: below.is_some(),
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.any_below { "*." } else { "" };
        write!(f, "{star}{}", self.name)
    }
}

impl NamePattern {
    /// Whether a client that asks for `name` is meant.
    pub(crate) fn is_for(&self, name: &str) -> bool {
        self.fits(&name.to_ascii_lowercase()).is_some()
    }

    /// How well it fits `name`, which is lower case; None if not at all.
    fn fits(&self, name: &str) -> Option<usize> {
        if !self.any_below {
            return (self.name == name).then_some(usize::MAX);
        }
        let before = name.strip_suffix(&self.name)?.strip_suffix('.')?;
        (!before.is_empty()).then_some(self.name.len())
    }
}

/// What each name leads to: forwards without a listener of their own.
#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<Vec<(NamePattern, Arc<Running>)>>);

impl Routes {
    /// Takes over the routes of `forward`. Those that stay keep what they know of their endpoints.
    pub(crate) fn follow(&self, parent: &Running, forward: &Forward) {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *routes);
        for (pattern, upstreams) in forward.edge.sni.iter().flat_map(|sni| &sni.routes) {
            let part = Forward {
                upstreams: upstreams.clone(),
                edge: Edge::default(),
                ..forward.clone()
            };
            let kept = old.iter().position(|(known, _)| known == pattern);
            let running = match kept.map(|at| old.swap_remove(at)) {
                Some((_, running)) => {
                    running.reconfigure(&part);
                    running
                }
                None => parent.route(pattern.clone(), &part),
            };
            routes.push((pattern.clone(), running));
        }
        if !old.is_empty() {
            parent.keep_routes(|pattern| routes.iter().any(|(kept, _)| kept == pattern));
        }
    }

    /// Each by its name, in order.
    pub(crate) fn all(&self) -> Vec<(NamePattern, Arc<Running>)> {
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = routes.clone();
        all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    fn find(&self, name: &str) -> Option<Arc<Running>> {
        let name = name.to_ascii_lowercase();
        let routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = routes
            .iter()
            .filter_map(|(pattern, running)| Some((pattern.fits(&name)?, running)));
        let best = fitting.max_by_key(|(fits, _)| *fits);
        best.map(|(_, running)| running.clone())
    }
}

/// Why nobody serves a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unserved {
    #[error("no upstream serves {0:?}, and there is no other for names that are not listed")]
    Unknown(String),
    #[error("no upstream serves those whose name cannot be read")]
    Unread(#[source] NoName),
}

/// Chooses by the name that `client` asks for; None for the forward's own upstreams.
pub(crate) async fn choose(
    client: &Socket,
    sni: &Sni,
    routes: &Routes,
) -> Result<Option<Arc<Running>>, Unserved> {
    let read = timeout(PATIENCE, server_name(client)).await;
    let unserved = match read.unwrap_or(Err(NoName::Timeout(PATIENCE))) {
        Ok(name) => match routes.find(&name) {
            Some(route) => return Ok(Some(route)),
            None => Unserved::Unknown(name),
        },
        Err(error) => Unserved::Unread(error),
    };
    if sni.refuse_others {
        return Err(unserved);
    }
    // What came of a ClientHello is for the upstream to read.
    client.look_again();
    Ok(None)
}

async fn server_name(client: &Socket) -> Result<String, NoName> {
    let mut peeked = Peeked::new(LONGEST);
    let mut hello = Hello::default();
    loop {
        peeked.more(client).await.map_err(|error| match error {
            PeekError::Closed => NoName::Truncated,
            PeekError::Full => NoName::TooLong,
            PeekError::Socket(error) => NoName::Socket(error),
        })?;
        if let Some(name) = hello.read(peeked.bytes())? {
            return Ok(name);
        }
    }
}

/// A ClientHello of which more and more is known.
#[derive(Default)]
pub(crate) struct Hello {
    acceptor: Acceptor,
    read: usize,
}

impl Hello {
    /// The name, once `bytes`, which begin as those before did, hold it. After an error there is
    /// nothing more to learn.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<String>, NoName> {
        let mut news = bytes.get(self.read..).unwrap_or_default();
        self.read = bytes.len();
        while !news.is_empty() {
            // From memory, of which it takes some each time.
            if self.acceptor.read_tls(&mut news).map_err(NoName::Socket)? == 0 {
                break;
            }
            let accepted = self.acceptor.accept();
            if let Some(accepted) = accepted.map_err(|(error, _)| NoName::NotTls(error))? {
                let hello = accepted.client_hello();
                let name = hello.server_name().ok_or(NoName::Absent)?;
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }
}

/// Says that the name is not known here, and finishes; one that speaks no TLS is reset.
pub(crate) async fn turn_away(client: Socket, unserved: &Unserved) {
    if matches!(
        unserved,
        Unserved::Unread(NoName::NotTls(_) | NoName::Socket(_))
    ) {
        return;
    }
    let farewell = async {
        // What was not read would make the alert a reset.
        client.look_again();
        drain(&client)?;
        client.ready(WRITABLE).await;
        client.try_write(UNRECOGNIZED_NAME)?;
        rustix::net::shutdown(&client, rustix::net::Shutdown::Write)?;
        while !drain(&client)? {
            client.ready(READABLE).await;
        }
        sys::close_orderly(&client);
        io::Result::Ok(())
    };
    // Failing is no worse than what happens to those who do not listen: a reset.
    let _ = timeout(FAREWELL, farewell).await;
}

/// Throws away what has come, as long as it is not more than a client may say; true at its end.
fn drain(client: &Socket) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    for _ in 0..LONGEST / buffer.len() + 1 {
        match client.try_io(READABLE, || Ok(rustix::io::read(client, &mut buffer)?)) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::FileTooLarge.into())
}

/// Every address that a forward may send to, as far as is known.
pub(crate) fn endpoints(forward: &Forward) -> Vec<SocketAddr> {
    let routes = forward.edge.sni.iter().flat_map(|sni| &sni.routes);
    let all = routes
        .map(|(_, upstreams)| upstreams)
        .chain([&forward.upstreams]);
    all.flat_map(|upstreams| upstreams.borrow().endpoints.clone())
        .collect()
}

#[cfg(test)]
mod tests;
