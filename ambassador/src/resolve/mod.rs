//! Turns the names in a specification into endpoint sets, and keeps these fresh.

mod hosts;
mod names;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::apply_error;
use crate::tls::FileSource;
use crate::{
    Discovery, EndpointSet, Failure, Forward, ForwardSpec, Host, PutError, Sni, Target,
    TlsFilesError,
};
use names::Names;

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(10);

type Hosts = Vec<Host>;
type Sets = watch::Sender<Arc<EndpointSet>>;
/// Finds the endpoints of a service by its name and, if given, its port.
type Services = dyn Fn(&str, Option<u16>) -> Result<watch::Receiver<Arc<EndpointSet>>, ServiceError>
    + Send
    + Sync;

/// Why a service has no watch.
pub type ServiceError = Box<dyn std::error::Error + Send + Sync>;

/// Why a specification has no upstreams.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody here knows services.
    #[error(
        "forward {forward:?} wants service {service:?}, but no registry is configured; name one with --registry, or give tcp://HOST:PORT"
    )]
    NoRegistry {
        /// The forward.
        forward: String,
        /// The service.
        service: String,
    },
    /// The registry gives no watch of it.
    #[error("forward {forward:?} wants service {service:?}")]
    Service {
        /// The forward.
        forward: String,
        /// The service.
        service: String,
        /// What the registry says.
        source: ServiceError,
    },
    /// It must be encrypted, and cannot be.
    #[error("forward {forward:?} speaks TLS, and does not start without")]
    Tls {
        /// The forward.
        forward: String,
        /// What is wrong with its files.
        source: Box<TlsFilesError>,
    },
}

impl ResolveError {
    /// A word for machines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoRegistry { .. } | Self::Service { .. } => "unknown-service",
            Self::Tls { .. } => "tls",
        }
    }
}

/// What does not keep a configuration from running, but may not be meant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckWarning {
    /// Newcomers would be held until the name resolves.
    #[error("forward {forward:?}: {error}; newcomers are held until it resolves")]
    Unresolved {
        /// The forward.
        forward: String,
        /// Why the name has no address.
        error: String,
    },
}

/// Watches names. Must be used within a tokio runtime.
#[derive(Clone)]
pub struct Resolver {
    names: Arc<Names>,
    services: Option<Arc<Services>>,
    /// One watch for all who want the same hosts; it ends with the last of them.
    watched: Arc<Mutex<HashMap<Hosts, Weak<Sets>>>>,
    tls: FileSource,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolver {
    /// Asks `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
    #[must_use]
    pub fn new() -> Self {
        Self::with_files("/etc/hosts".as_ref(), "/etc/resolv.conf".as_ref())
    }

    /// Asks these files instead. Either may be absent, and both are read again when they change.
    #[must_use]
    pub fn with_files(hosts: &Path, resolv_conf: &Path) -> Self {
        Self {
            names: Arc::new(Names::new(hosts, resolv_conf)),
            services: None,
            watched: Arc::default(),
            tls: FileSource::default(),
        }
    }

    /// Asks `services` for [`Target::Service`].
    #[must_use]
    pub fn with_services<F>(mut self, services: F) -> Self
    where
        F: Fn(&str, Option<u16>) -> Result<watch::Receiver<Arc<EndpointSet>>, ServiceError>
            + Send
            + Sync
            + 'static,
    {
        self.services = Some(Arc::new(services));
        self
    }

    /// Gives a specification its upstreams.
    ///
    /// A name that does not resolve is no error: the forward holds newcomers until it does.
    ///
    /// # Errors
    ///
    /// [`ResolveError`] if a service cannot be watched, or credentials cannot be read.
    pub fn forward(&self, spec: &ForwardSpec) -> Result<Forward, ResolveError> {
        let edge = spec.edge.edge(&self.tls);
        let mut edge = edge.map_err(lacks_credentials(spec))?;
        if !spec.edge.sni.is_empty() {
            let routes = spec.edge.sni.iter().map(|(pattern, target)| {
                let upstreams = self.upstreams(&spec.name, target)?;
                Ok((pattern.clone(), upstreams))
            });
            edge.sni = Some(Sni {
                routes: routes.collect::<Result<_, ResolveError>>()?,
                refuse_others: spec.target == Target::Host(Vec::new()),
            });
        }
        Ok(Forward {
            name: spec.name.clone(),
            listen: spec.listen,
            upstreams: self.upstreams(&spec.name, &spec.target)?,
            limits: spec.limits,
            balance: spec.balance.clone(),
            direct: spec.direct.clone(),
            edge,
        })
    }

    fn upstreams(
        &self,
        forward: &str,
        target: &Target,
    ) -> Result<watch::Receiver<Arc<EndpointSet>>, ResolveError> {
        match target {
            Target::Host(hosts) => Ok(self.hosts(hosts)),
            Target::Service(service, port) => {
                let (forward, service) = (forward.to_owned(), service.clone());
                let Some(services) = &self.services else {
                    return Err(ResolveError::NoRegistry { forward, service });
                };
                services(&service, *port).map_err(|source| ResolveError::Service {
                    forward,
                    service,
                    source,
                })
            }
        }
    }

    /// Whether `forwards` could run together, as far as that shows without opening a listener.
    /// Returns why some upstreams are not known now, which is no fault of the configuration.
    ///
    /// # Errors
    ///
    /// [`PutError`] if they contradict each other, lead in a circle, or lack credentials.
    pub async fn check(&self, forwards: &[ForwardSpec]) -> Result<Vec<CheckWarning>, PutError> {
        let (mut checked, mut warnings) = (Vec::new(), Vec::new());
        for spec in forwards {
            apply_error::direct_or_edge(&spec.name, &spec.direct, spec.edge.asks())?;
            if let Some(tls) = &spec.edge.tls {
                tls.files.check().map_err(lacks_credentials(spec))?;
            }
            let mut warn = |failure: Failure| {
                let (forward, error) = (spec.name.clone(), failure.error);
                warnings.push(CheckWarning::Unresolved { forward, error });
            };
            let upstreams = self.ask(&spec.target, &mut warn).await;
            let mut forward = Forward::new(spec.name.clone(), spec.listen, upstreams);
            let mut routes = Vec::with_capacity(spec.edge.sni.len());
            for (pattern, target) in &spec.edge.sni {
                routes.push((pattern.clone(), self.ask(target, &mut warn).await));
            }
            forward.edge.sni = Some(Sni {
                routes,
                refuse_others: false,
            });
            checked.push(forward);
        }
        apply_error::check(&checked)?;
        Ok(warnings)
    }

    /// What a target leads to now. Services are not asked for.
    async fn ask(
        &self,
        target: &Target,
        failed: &mut impl FnMut(Failure),
    ) -> watch::Receiver<Arc<EndpointSet>> {
        let mut answers = match target {
            Target::Host(hosts) => Answers::new(hosts),
            Target::Service(..) => Answers::new(&[]),
        };
        answers.ask(&self.names).await;
        if let Some(failure) = answers.discovery.failure.take() {
            failed(failure);
        }
        watch::channel(Arc::new(answers.set())).1
    }

    /// Watches hosts. Addresses are known at once, names when they resolve.
    pub fn hosts(&self, hosts: &[Host]) -> watch::Receiver<Arc<EndpointSet>> {
        let mut answers = Answers::new(hosts);
        let first = answers.set();
        if answers.names().next().is_none() {
            return watch::channel(Arc::new(first)).1;
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| sender.strong_count() > 0);
        if let Some(sender) = watched.get(hosts).and_then(Weak::upgrade) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(Arc::new(first));
        let sender = Arc::new(sender);
        watched.insert(hosts.to_vec(), Arc::downgrade(&sender));
        // Ends by itself when nobody watches any more.
        tokio::spawn(self.clone().refresh(answers, sender));
        receiver
    }

    async fn refresh(self, mut answers: Answers, sender: Arc<Sets>) {
        let mut retry = FIRST_RETRY;
        loop {
            let (fresh_for, failed) = tokio::select! {
                asked = answers.ask(&self.names) => asked,
                () = sender.closed() => (Duration::ZERO, false),
            };
            let wait = if failed {
                retry.min(fresh_for)
            } else {
                fresh_for
            };
            retry = if failed {
                (retry * 2).min(LAST_RETRY)
            } else {
                FIRST_RETRY
            };
            let set = answers.set();
            sender.send_if_modified(|current| {
                let changed = **current != set;
                if changed {
                    info!(hosts = ?answers.hosts, endpoints = ?set.endpoints, "resolved");
                }
                // How it is known is news only to those who look.
                *current = Arc::new(set);
                changed
            });
            tokio::select! {
                () = sleep(wait) => {}
                () = sender.closed() => {}
            }
            // Under the lock, so that nobody subscribes in between.
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.is_closed() {
                drop(sender);
                drop(watched);
                return;
            }
        }
    }
}

fn lacks_credentials(spec: &ForwardSpec) -> impl Fn(TlsFilesError) -> ResolveError {
    |source| ResolveError::Tls {
        forward: spec.name.clone(),
        source: Box::new(source),
    }
}

/// The latest good answer for each host.
struct Answers {
    hosts: Hosts,
    addresses: Vec<Option<Vec<IpAddr>>>,
    /// Failures are told once, until there is an answer again.
    silent: Vec<bool>,
    discovery: Discovery,
}

impl Answers {
    fn new(hosts: &[Host]) -> Self {
        let literal = |host: &Host| Some(vec![host.name.parse().ok()?]);
        Self {
            hosts: hosts.to_vec(),
            addresses: hosts.iter().map(literal).collect(),
            silent: vec![false; hosts.len()],
            discovery: Discovery::default(),
        }
    }

    /// What must be asked for, with its place.
    fn names(&self) -> impl Iterator<Item = (usize, &str)> {
        let hosts = self.hosts.iter().map(|host| host.name.as_str()).enumerate();
        hosts.filter(|(_, host)| host.parse::<IpAddr>().is_err())
    }

    /// Asks for all names. Returns how long the answers are good for, and whether any is missing;
    /// in its place the previous answer stays.
    async fn ask(&mut self, names: &Names) -> (Duration, bool) {
        let asked: Vec<_> = self
            .names()
            .map(|(at, host)| (at, host.to_owned()))
            .collect();
        let answers = join_all(asked.iter().map(|(_, host)| names.resolve(host))).await;
        let (mut fresh_for, mut failed) = (names::LONGEST, false);
        self.discovery.failure = None;
        for ((at, host), answer) in asked.into_iter().zip(answers) {
            match answer {
                Ok((addresses, ttl)) => {
                    fresh_for = fresh_for.min(ttl);
                    self.addresses[at] = Some(addresses);
                    self.silent[at] = false;
                    self.discovery.answered = Some(SystemTime::now());
                }
                Err(error) => {
                    failed = true;
                    if self.silent[at] {
                        debug!(%host, %error, "resolve");
                    } else {
                        warn!(%host, %error, "resolve: retrying");
                    }
                    self.silent[at] = true;
                    self.discovery.failure = Some(Failure {
                        at: SystemTime::now(),
                        error: error.to_string(),
                    });
                }
            }
        }
        (fresh_for, failed)
    }

    fn set(&mut self) -> EndpointSet {
        let known = self.hosts.iter().zip(&self.addresses);
        let endpoints = known.flat_map(|(host, addresses)| {
            let addresses = addresses.iter().flatten();
            addresses.map(|address| (SocketAddr::new(*address, host.port), host.weight))
        });
        let set = EndpointSet::weighted(endpoints);
        EndpointSet {
            resolved: !set.endpoints.is_empty(),
            discovery: self.discovery.clone(),
            ..set
        }
    }
}
