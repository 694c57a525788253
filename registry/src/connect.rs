//! Finding the registry: endpoints as given, their addresses, and whether anybody answers there.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etcd_client::{Client, TlsOptions};
use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Endpoint as Tonic;

use crate::client::CallError;
use crate::dial::Dialer;
use crate::failover::{Failover, Member};
use crate::secure::{TlsError, TlsFiles, User};
use crate::version::TooOld;

/// Where the registry is.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each member; without a scheme, `http`.
    pub endpoints: Vec<String>,
    /// Time allowed for connecting, and for each operation thereafter.
    pub timeout: Duration,
    /// By what the registry and this client know each other, at `https://`.
    pub tls: TlsFiles,
    /// Who comes, if the registry has users.
    pub user: Option<User>,
    /// How to connect to the one endpoint, if not by TCP, or by TLS as its scheme says.
    pub dialer: Option<Dialer>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            timeout: Duration::from_secs(5),
            tls: TlsFiles::default(),
            user: None,
            dialer: None,
        }
    }
}

/// Why there is no connection to the registry.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No endpoint was given.
    #[error("no registry endpoint given, expected such as http://10.0.0.1:2379")]
    NoEndpoints,
    /// An endpoint is not of the form expected.
    #[error("registry endpoint {0:?} is not of the form http://HOST:PORT")]
    Endpoint(String),
    /// A certificate can be checked against one host name only.
    #[error("https registry endpoints must be addresses, or all have one host name")]
    HostNames,
    /// A host name has no address.
    #[error("resolve registry endpoint {endpoint}")]
    Resolve {
        /// The endpoint as given.
        endpoint: String,
        /// What the resolver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody listens, at none of the endpoints.
    #[error("no registry at {0}")]
    Unreachable(Failures),
    /// It is an etcd that lacks what is asked of it.
    #[error("the registry at {endpoints} {found}")]
    TooOld {
        /// The endpoints as given.
        endpoints: String,
        /// What it says that it is.
        found: TooOld,
    },
    /// Somebody listens, but does not answer as etcd does.
    #[error("no etcd answers at {endpoints}")]
    NoRegistry {
        /// The endpoints as given.
        endpoints: String,
        /// What came of the first call.
        source: CallError,
    },
    /// Its contents have moved to where they cannot be reached, or are not all there yet.
    #[error("the registry at {endpoints} is not the one to use")]
    NotUsed {
        /// The endpoints as given.
        endpoints: String,
        /// Why.
        source: CallError,
    },
    /// The files given do not make for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The user is not let in.
    #[error("log in to the registry at {endpoints} as {user}")]
    Login {
        /// The endpoints as given.
        endpoints: String,
        /// The user's name.
        user: String,
        /// What the registry said.
        source: crate::client::Cause,
    },
    /// The client could not be set up.
    #[error("prepare the registry client")]
    Client(#[source] etcd_client::Error),
}

/// For each endpoint why it could not be connected to.
#[derive(Debug)]
pub struct Failures(pub Vec<(String, io::Error)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (endpoint, error)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint}: {error}")?;
        }
        Ok(())
    }
}

/// An endpoint with its host name resolved.
#[derive(Debug)]
struct Endpoint {
    given: String,
    tls: bool,
    host: String,
    address: SocketAddr,
}

/// Splits an endpoint into whether it is https, its host and its port.
fn parse(given: &str) -> Option<(bool, &str, u16)> {
    let (tls, rest) = match given.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return None,
        None => (false, given),
    };
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    let port = port.parse().ok().filter(|&port| port != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let valid = bare.parse::<IpAddr>().is_ok() || (!bare.is_empty() && bare.chars().all(named));
    valid.then_some((tls, bare, port))
}

async fn resolve(options: &ConnectOptions) -> Result<Vec<Endpoint>, ConnectError> {
    if options.endpoints.is_empty() {
        return Err(ConnectError::NoEndpoints);
    }
    let mut endpoints = Vec::new();
    for given in &options.endpoints {
        let Some((tls, host, port)) = parse(given) else {
            return Err(ConnectError::Endpoint(given.clone()));
        };
        let ip = match host.parse() {
            Ok(ip) => ip,
            Err(_) => lookup(host, options.timeout).await.map_err(|source| {
                let endpoint = given.clone();
                ConnectError::Resolve { endpoint, source }
            })?,
        };
        let (given, host, address) = (given.clone(), host.to_owned(), SocketAddr::new(ip, port));
        endpoints.push(Endpoint {
            given,
            tls,
            host,
            address,
        });
    }
    Ok(endpoints)
}

/// Asks `/etc/hosts` and the name servers for a host's address, without libc's resolver, which a static binary lacks.
///
/// # Errors
///
/// What the resolver says, or that the time is over.
pub async fn lookup(
    host: &str,
    timeout: Duration,
) -> Result<IpAddr, Box<dyn std::error::Error + Send + Sync>> {
    let resolver = TokioResolver::builder_tokio()?.build()?;
    let answer = tokio::time::timeout(timeout, resolver.lookup_ip(host)).await??;
    let first = answer.iter().next();
    Ok(first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?)
}

/// Connects to all endpoints at once and is content with the first that accepts.
pub(crate) async fn probe(options: &ConnectOptions) -> Result<(), ConnectError> {
    let timeout = options.timeout;
    let mut attempts = JoinSet::new();
    for Endpoint { given, address, .. } in resolve(options).await? {
        attempts.spawn(async move {
            let late = || io::Error::from(io::ErrorKind::TimedOut);
            let attempt = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
            match attempt.unwrap_or_else(|_| Err(late())) {
                Ok(_) => Ok(()),
                Err(error) => Err((given, error)),
            }
        });
    }
    let mut failures = Vec::new();
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failures.push(failure),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Err(ConnectError::Unreachable(Failures(failures)))
}

/// A client that connects when first used and again whenever it must, to whichever member answers.
pub(crate) async fn client(options: &ConnectOptions) -> Result<(Client, Failover), ConnectError> {
    let failover = Failover::new(members(options).await?);
    let etcd = etcd_client::ConnectOptions::new()
        .with_auto_token_refresh(true)
        .with_require_leader(true);
    let client = Client::from_channel(failover.channel(), Some(etcd)).await;
    Ok((client.map_err(ConnectError::Client)?, failover))
}

/// The members at the endpoints, none of which has been spoken to yet.
pub(crate) async fn members(options: &ConnectOptions) -> Result<Vec<Member>, ConnectError> {
    const PING: Duration = Duration::from_secs(10);
    let endpoints = resolve(options).await?;
    let tls = match &options.dialer {
        Some(_) => None,
        None => tls_options(&endpoints, &options.tls)?,
    };
    let member = |endpoint: &Endpoint| {
        // With a dialer the scheme says what is spoken over the connection, not how that is made.
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut member = Tonic::from_shared(format!("{scheme}://{}", endpoint.address))?
            .connect_timeout(options.timeout)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(options.timeout);
        if let Some(tls) = &tls {
            member = member.tls_config(tls.clone())?;
        }
        Ok(Member {
            endpoint: member,
            address: endpoint.address,
            dialer: options.dialer.clone(),
        })
    };
    let members: Result<Vec<Member>, tonic::transport::Error> =
        endpoints.iter().map(member).collect();
    members.map_err(|error| ConnectError::Client(error.into()))
}

fn tls_options(
    endpoints: &[Endpoint],
    files: &TlsFiles,
) -> Result<Option<TlsOptions>, ConnectError> {
    if let Some(plain) = endpoints.iter().find(|endpoint| !endpoint.tls) {
        let mixed = endpoints.iter().any(|endpoint| endpoint.tls);
        return if mixed {
            Err(ConnectError::Endpoint(plain.given.clone()))
        } else if files.any() {
            Err(TlsError::Plain(plain.given.clone()).into())
        } else {
            Ok(None)
        };
    }
    let mut names = endpoints
        .iter()
        .map(|e| &e.host)
        .filter(|host| host.parse::<IpAddr>().is_err());
    let tls = files.options()?;
    Ok(Some(match names.next() {
        None => tls,
        Some(name) if endpoints.iter().all(|endpoint| endpoint.host == *name) => {
            tls.domain_name(name)
        }
        Some(_) => return Err(ConnectError::HostNames),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints_as_people_write_them() {
        assert_eq!(
            parse("http://10.0.0.1:2379"),
            Some((false, "10.0.0.1", 2379))
        );
        assert_eq!(parse("10.0.0.1:2379/"), Some((false, "10.0.0.1", 2379)));
        assert_eq!(
            parse("https://etcd-1.lan:2379"),
            Some((true, "etcd-1.lan", 2379))
        );
        assert_eq!(
            parse("http://[fd00::1]:2379"),
            Some((false, "fd00::1", 2379))
        );
        for bad in [
            "",
            "10.0.0.1",
            "ftp://a:1",
            "http://:1",
            "a:0",
            "a:70000",
            "fd00::1:2",
            "a b:1",
            "a/b:1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not_but_never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
