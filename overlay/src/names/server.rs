use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::interval};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::{
    NamesDocument,
    counts::{Counts, NameStats},
    listener::{Asker, Listener, Shared},
    lookup::Table,
    upstreams::Late,
};
use crate::OpenNetNsError;

/// How soon the sockets follow a namespace that went or came back without a new document.
const SWEEP: Duration = Duration::from_secs(2);

/// DNS at 127.0.0.11 in every subscriber's network namespace, over UDP and TCP.
pub struct NameServer {
    inner: Arc<Inner>,
    _sweeper: AbortOnDropHandle<()>,
}

struct Inner {
    table: Shared,
    late: Late,
    counts: Counts,
    listeners: Mutex<BTreeMap<String, Listener>>,
    /// What was last told of those that are tried again in silence.
    told: std::sync::Mutex<BTreeMap<String, String>>,
}

/// Why one container has no name server.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its namespace cannot be opened.
    #[error(transparent)]
    NetNs(#[from] OpenNetNsError),
    /// Its sockets cannot be opened.
    #[error("listen on {address} in {}", netns.display())]
    Bind {
        /// The server's address.
        address: SocketAddr,
        /// The container's namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The containers that have no name server; all others have the new names.
#[derive(Debug)]
pub struct ApplyNamesError {
    /// By id. Never empty.
    pub failures: BTreeMap<String, ListenError>,
}

impl fmt::Display for ApplyNamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (id, failure)) in self.failures.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}no name server for {id}: {failure}")?;
            let mut source = std::error::Error::source(failure);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

/// The sources stand in the message, one for each container.
impl std::error::Error for ApplyNamesError {}

impl NameServer {
    /// A server without names or containers.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        let inner = Arc::new(Inner {
            table: Arc::new(RwLock::new(Arc::new(Table::default()))),
            late: Late::default(),
            counts: Counts::default(),
            listeners: Mutex::new(BTreeMap::new()),
            told: std::sync::Mutex::default(),
        });
        let sweeper = tokio::spawn(sweep(inner.clone()));
        Self {
            inner,
            _sweeper: AbortOnDropHandle::new(sweeper),
        }
    }

    /// What was answered so far.
    #[must_use]
    pub fn stats(&self) -> NameStats {
        self.inner.counts.stats()
    }

    /// Replaces all names at once, and opens and closes sockets where containers came and went.
    ///
    /// # Errors
    ///
    /// The containers whose sockets could not be opened. They are tried again by and by.
    pub async fn apply(&self, document: NamesDocument) -> Result<(), ApplyNamesError> {
        let table = Arc::new(Table::new(document));
        *self
            .inner
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner) = table;
        let failures = self.inner.follow().await;
        if failures.is_empty() {
            Ok(())
        } else {
            Err(ApplyNamesError { failures })
        }
    }
}

impl Default for NameServer {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Opens and closes sockets so that they are where the table's subscribers are.
    async fn follow(&self) -> BTreeMap<String, ListenError> {
        let mut listeners = self.listeners.lock().await;
        let table = self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let gone = listeners.extract_if(.., |id, listener| {
            let subscriber = table.subscriber(id);
            !subscriber.is_some_and(|subscriber| listener.is_of(subscriber))
        });
        let gone: Vec<_> = gone.collect();
        for (_, listener) in gone {
            listener.close().await; // first of all: a newcomer may want the same namespace
        }
        let mut failures = BTreeMap::new();
        for subscriber in table.subscribers() {
            if listeners.contains_key(&subscriber.id) {
                continue;
            }
            let asker = Asker::new(
                &subscriber.id,
                self.table.clone(),
                self.late.clone(),
                self.counts.clone(),
            );
            match Listener::open(asker, subscriber).await {
                Ok(listener) => {
                    listeners.insert(subscriber.id.clone(), listener);
                }
                // Nobody's start waits for it; it is tried again by and by.
                Err(error) if subscriber.listen.is_some() => self.tell(&subscriber.id, &error),
                Err(error) => {
                    failures.insert(subscriber.id.clone(), error);
                }
            }
        }
        failures
    }
}

impl Inner {
    /// Tells of a failure once, and not with each attempt.
    fn tell(&self, id: &str, error: &ListenError) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(id) != Some(&text) {
            warn!(subscriber = id, error = text, "names are not served here");
            told.insert(id.to_owned(), text);
        }
    }
}

/// A socket keeps its namespace alive, so those of a container that went must not stay.
async fn sweep(inner: Arc<Inner>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        for (container, error) in inner.follow().await {
            debug!(container, %error, "no name server");
        }
    }
}
