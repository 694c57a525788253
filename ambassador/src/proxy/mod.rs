//! The PROXY protocol, versions 1 and 2: who the client behind a proxy is, told before its bytes.
//!
//! As <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt> has it.

mod accept;
mod parse;
mod v1;
mod v2;
mod write;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

pub(crate) use accept::{AcceptError, accept};
#[cfg(any(test, fuzzing))]
pub(crate) use parse::{LONGEST, parse};
pub(crate) use write::encode;

/// The form of a header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, which carries extensions too.
    V2,
}

/// A listener whose clients are proxies: each connection must begin with a header of either
/// version.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AcceptProxy {
    /// The networks whose word is taken; a connection from elsewhere is refused.
    pub from: Vec<IpNetwork>,
    /// How long a header may take to come.
    pub timeout: Duration,
}

impl AcceptProxy {
    /// Takes everybody's word, if it comes within three seconds.
    #[must_use]
    pub fn from_everybody() -> Self {
        let everything = [[0_u8; 4].into(), std::net::IpAddr::from([0_u8; 16])];
        let networks = everything.map(|address| IpNetwork::new(address, 0).expect("0 is a prefix"));
        Self {
            from: networks.into(),
            timeout: Duration::from_secs(3),
        }
    }
}

/// What a header says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Header {
    /// None where the proxy speaks for itself, or its client has no IP address: then the
    /// connection's own addresses hold.
    pub(crate) ends: Option<Ends>,
    /// The extensions of version 2 as they came, structure checked; often empty.
    pub(crate) extensions: Vec<u8>,
}

/// Who connected, and to what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}
