//! Asks the hosts file, then the name servers.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::hosts::Hosts;

const SHORTEST: Duration = Duration::from_secs(1);
/// The longest that an answer is believed.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("{name} is not in {}, and {} names no name server", .hosts.display(), .resolv_conf.display())]
    NoServer {
        name: String,
        hosts: PathBuf,
        resolv_conf: PathBuf,
    },
    #[error("look up {name}: {source}")]
    Dns { name: String, source: NetError },
    #[error("{name} has no address")]
    Empty { name: String },
}

#[derive(Debug)]
pub(super) struct Names {
    hosts: Reread<Hosts>,
    servers: Reread<Servers>,
}

/// None if the file names none.
struct Servers(Option<TokioResolver>);

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Servers").field(&self.0.is_some()).finish()
    }
}

impl Names {
    pub(super) fn new(hosts: &Path, resolv_conf: &Path) -> Self {
        Self {
            hosts: Reread::new(hosts, |text| Hosts::parse(&String::from_utf8_lossy(text))),
            servers: Reread::new(resolv_conf, |text| Servers(servers(text).ok())),
        }
    }

    /// The addresses of `name`, and how long to believe them.
    pub(super) async fn resolve(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), LookupError> {
        if let Some(addresses) = self.hosts.latest().addresses(name) {
            return Ok((addresses.to_vec(), SHORTEST));
        }
        // RFC 6761 §6.3, for images that have no hosts file.
        if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            return Ok((vec![Ipv4Addr::LOCALHOST.into()], SHORTEST));
        }
        let servers = self.servers.latest();
        let Servers(Some(servers)) = &*servers else {
            return Err(LookupError::NoServer {
                name: name.to_owned(),
                hosts: self.hosts.path.clone(),
                resolv_conf: self.servers.path.clone(),
            });
        };
        let answer = servers.lookup_ip(name).await;
        let answer = answer.map_err(|source| LookupError::Dns {
            name: name.to_owned(),
            source,
        })?;
        let addresses: Vec<_> = answer.iter().collect();
        if addresses.is_empty() {
            let name = name.to_owned();
            return Err(LookupError::Empty { name });
        }
        let ttl = answer
            .valid_until()
            .saturating_duration_since(Instant::now());
        Ok((addresses, ttl.clamp(SHORTEST, LONGEST)))
    }
}

fn servers(resolv_conf: &[u8]) -> Result<TokioResolver, NetError> {
    let (config, mut options) = parse_resolv_conf(resolv_conf)?;
    // Both are ours: the file is read again when it changes, and a name asked when its time is up.
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    let provider = TokioRuntimeProvider::default();
    let builder = TokioResolver::builder_with_config(config, provider);
    builder.with_options(options).build()
}

/// What a file says, parsed again when the file has changed.
struct Reread<T> {
    path: PathBuf,
    parse: fn(&[u8]) -> T,
    latest: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// Tells versions of a file apart; none if it is absent.
type Stamp = Option<(SystemTime, u64, u64)>;

impl<T> Reread<T> {
    fn new(path: &Path, parse: fn(&[u8]) -> T) -> Self {
        Self {
            path: path.to_owned(),
            parse,
            latest: Mutex::default(),
        }
    }

    fn latest(&self) -> Arc<T> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp().ok();
        match &*latest {
            Some((seen, parsed)) if *seen == stamp => parsed.clone(),
            _ => {
                let text = fs::read(&self.path).unwrap_or_default();
                let parsed = Arc::new((self.parse)(&text));
                *latest = Some((stamp, parsed.clone()));
                parsed
            }
        }
    }

    fn stamp(&self) -> io::Result<(SystemTime, u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&self.path)?;
        Ok((metadata.modified()?, metadata.ino(), metadata.len()))
    }
}

impl<T: fmt::Debug> fmt::Debug for Reread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reread")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
