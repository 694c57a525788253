//! Forwards as people and machines write them: environment, arguments, TOML, JSON.

mod balance;
mod edge;
mod env;
mod text;
mod wire;

#[cfg(test)]
mod tests;

use std::num::NonZeroU16;
use std::path::PathBuf;

use crate::{Balance, Limits, Listen, Protocol};

pub use edge::{EdgeError, EdgeSpec, TlsSpec};
pub use env::{EnvError, FromEnv, from_env};
pub use text::ParseError;
pub use wire::{FileError, from_file, from_json, from_toml, to_json};

/// A forward whose upstreams are still names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardSpec {
    /// Names the forward; by default after its listener.
    pub name: String,
    /// Where newcomers arrive.
    pub listen: Listen,
    /// Where they are sent.
    pub target: Target,
    /// How bytes are carried, and how long things may take.
    pub limits: Limits,
    /// What is said and asked at either end of a TCP flow.
    pub edge: EdgeSpec,
    /// How newcomers are spread over the upstreams.
    pub balance: Balance,
    /// The cgroups whose processes need no relay, as [`Forward::direct`](crate::Forward::direct).
    pub direct: Vec<PathBuf>,
    /// Why its flows are relayed although one might have them go straight, in the words of who
    /// asks for it; told with each flow.
    pub not_direct: Option<String>,
}

/// Where upstreams come from.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// Hosts, by address or name, each with its port.
    Host(Vec<Host>),
    /// A service that the registry knows, and the port, if not the one it announces.
    Service(String, Option<u16>),
}

/// A host to which newcomers are sent. Written `HOST:PORT`, or `HOST:PORT weight=N`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Host {
    /// An address or a name.
    pub name: String,
    /// The port there.
    pub port: u16,
    /// Its share of newcomers, against the other hosts' weights: from 1, which is usual, to 256.
    /// Each address that a name stands for has it.
    pub weight: NonZeroU16,
}

impl Host {
    /// A host of the usual weight.
    #[must_use]
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            port,
            weight: NonZeroU16::MIN,
        }
    }
}

impl From<(String, u16)> for Host {
    fn from((name, port): (String, u16)) -> Self {
        Self::new(name, port)
    }
}

/// Reads `--listen tcp://ADDR:PORT --to tcp://HOST:PORT[,…]` or `--to service://NAME[:PORT]`.
///
/// # Errors
///
/// [`ParseError`] if one of them is malformed, or they contradict each other.
pub fn from_urls(listen: &str, to: &str) -> Result<ForwardSpec, ParseError> {
    let listen: Listen = listen.parse()?;
    let upstreams = to
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ForwardSpec {
        name: listen.to_string(),
        listen,
        target: text::target(listen.protocol, upstreams)?,
        limits: Limits::default(),
        edge: EdgeSpec::default(),
        balance: Balance::default(),
        direct: Vec::new(),
        not_direct: None,
    })
}

/// Reads the directory of a cgroup.
///
/// # Errors
///
/// [`ParseError`] if it is not an absolute path.
pub fn from_cgroup(path: &str) -> Result<PathBuf, ParseError> {
    path.parse().map(|text::Cgroup(path)| path)
}

/// Reads the arguments `HOST PORT` of Docker's ambassador: TCP on that port, at every address.
///
/// # Errors
///
/// [`ParseError`] if either is malformed.
pub fn from_host_port(host: &str, port: &str) -> Result<ForwardSpec, ParseError> {
    let port = text::port(port)?;
    let host = text::host(host)?;
    let listen = text::everywhere(Protocol::Tcp, port);
    Ok(ForwardSpec {
        name: listen.to_string(),
        listen,
        target: Target::Host(vec![Host::new(host, port)]),
        limits: Limits::default(),
        edge: EdgeSpec::default(),
        balance: Balance::default(),
        direct: Vec::new(),
        not_direct: None,
    })
}
