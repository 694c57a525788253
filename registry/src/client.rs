//! The connection to the registry, and the calls all operations are made of.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::backoff::Backoff;
use crate::connect::{self, ConnectError, ConnectOptions};
use crate::era::{ERA, Seen, Where};
use crate::failover::Failover;
use crate::secure::User;
use crate::wire::Record;

/// Keys fetched per call when a prefix is listed, unless that is more than a message may have.
const PAGE: i64 = 500;
/// As many of the greatest values as fit a message.
const LEAST_PAGE: i64 = 2;

/// A connection to the registry. Clones share it.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    failover: Failover,
    place: Where,
    timeout: Duration,
    /// Who is still to be let in, once the registry is there.
    _login: Option<Arc<AbortOnDropHandle<()>>>,
}

/// Why a call had no result. Whether a change took effect is then unknown.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("{operation}: the registry did not answer within {after:?}")]
    Timeout {
        /// What was attempted.
        operation: &'static str,
        /// The time allowed.
        after: Duration,
    },
    /// The registry or the way to it failed.
    #[error("{operation}")]
    Rpc {
        /// What was attempted.
        operation: &'static str,
        /// As told by the client library, or by the transport below it with its errno.
        source: Cause,
    },
}

impl CallError {
    /// Whether the answer has more bytes than this end takes.
    fn is_too_long(&self) -> bool {
        let Self::Rpc { source, .. } = self else {
            return false;
        };
        let status = source.downcast_ref::<tonic::Status>();
        status.is_some_and(|status| {
            status.code() == tonic::Code::OutOfRange && status.message().contains("too large")
        })
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("options", &self.options())
            .finish_non_exhaustive()
    }
}

/// What lies below a failed call.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The library's error type has no source; that of the status within it leads to the errno.
pub(crate) fn cause(error: etcd_client::Error) -> Cause {
    match error {
        etcd_client::Error::GRpcStatus(status) => Box::new(status),
        other => Box::new(other),
    }
}

/// A key and its value as stored.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) lease: i64,
    pub(crate) modified: i64,
}

impl From<&etcd_client::KeyValue> for Entry {
    fn from(kv: &etcd_client::KeyValue) -> Self {
        Self {
            key: String::from_utf8_lossy(kv.key()).into_owned(),
            value: kv.value().to_vec(),
            lease: kv.lease(),
            modified: kv.mod_revision(),
        }
    }
}

/// All entries under a prefix as of one revision.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) revision: i64,
    pub(crate) entries: Vec<Entry>,
}

/// What a transaction did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    pub(crate) revision: i64,
    /// For each get of the branch taken, in order, what it found.
    pub(crate) found: Vec<Vec<Entry>>,
}

impl Registry {
    /// Connects, and checks that one of the endpoints answers as a registry. If its contents have moved, goes there.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] names the endpoint and the errno.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let registry = Self::connect_here(options).await?;
        let found = registry.entry("connect", ERA).await;
        let heeded = match found {
            Ok(entry) => registry.heed(Seen(entry.map(|entry| entry.value))).await,
            Err(error) => Err(error),
        };
        match heeded {
            Ok(_) => Ok(registry),
            Err(source) => {
                let endpoints = options.endpoints.join(",");
                Err(ConnectError::NotUsed { endpoints, source })
            }
        }
    }

    /// [`Registry::connect`], but stays also where the contents have moved, or are still being brought.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn connect_here(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let (mut client, failover) = connect::client(options).await?;
        connect::probe(options).await?;
        if let Some(user) = &options.user {
            log_in(&mut client, user, options.timeout)
                .await
                .map_err(|source| ConnectError::Login {
                    endpoints: options.endpoints.join(","),
                    user: user.name.clone(),
                    source,
                })?;
        }
        let registry = Self {
            client,
            failover,
            place: Where::new(options.clone()),
            timeout: options.timeout,
            _login: None,
        };
        let endpoints = options.endpoints.join(",");
        match registry.check_version().await {
            Ok(Ok(())) => {}
            Ok(Err(found)) => return Err(ConnectError::TooOld { endpoints, found }),
            Err(source) => return Err(ConnectError::NoRegistry { endpoints, source }),
        }
        match registry.entry("connect", crate::keys::ROOT).await {
            Ok(_) => Ok(registry),
            Err(source) => Err(ConnectError::NoRegistry { endpoints, source }),
        }
    }

    /// Prepares a connection without asking whether anybody answers, to start from a snapshot.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if an endpoint cannot be understood or its name not be resolved.
    pub async fn connect_lazy(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let (client, failover) = connect::client(options).await?;
        let login = options.user.clone().map(|user| {
            let login = log_in_once_there(client.clone(), user, options.timeout);
            Arc::new(AbortOnDropHandle::new(tokio::spawn(login)))
        });
        Ok(Self {
            client,
            failover,
            place: Where::new(options.clone()),
            timeout: options.timeout,
            _login: login,
        })
    }

    /// How it is reached now.
    pub(crate) fn options(&self) -> Arc<ConnectOptions> {
        self.place.options()
    }

    /// The endpoints at which it is reached now, which change when its contents are moved.
    pub fn endpoints(&self) -> Vec<String> {
        self.options().endpoints.clone()
    }

    /// Whether its contents have moved since it was connected to.
    pub fn has_moved(&self) -> bool {
        self.place.moved()
    }

    pub(crate) fn place(&self) -> &Where {
        &self.place
    }

    pub(crate) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// Tells a registry that it has not spoken to before who this is.
    pub(crate) async fn log_in_again(&self, options: ConnectOptions) -> Result<(), ConnectError> {
        let Some(user) = &options.user else {
            return Ok(());
        };
        let told = log_in(&mut self.client(), user, self.timeout).await;
        told.map_err(|source| ConnectError::Login {
            endpoints: options.endpoints.join(","),
            user: user.name.clone(),
            source,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs `call` for at most the time-out.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, CallError> {
        self.call_within(self.timeout, operation, call).await
    }

    /// Runs `call` for at most `after`. If it does not end well for want of a member that answers, or of a leader, another
    /// member is sought.
    pub(crate) async fn call_within<T>(
        &self,
        after: Duration,
        operation: &'static str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(after, call).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if is_the_members(&error) {
                    self.failover.doubt();
                }
                let source = cause(error);
                Err(CallError::Rpc { operation, source })
            }
            Err(_) => {
                self.failover.doubt();
                Err(CallError::Timeout { operation, after })
            }
        }
    }

    /// Has the member that is spoken to asked how it is, for one of its streams said nothing or ended.
    pub(crate) fn doubt(&self) {
        self.failover.doubt();
    }

    pub(crate) async fn entry(
        &self,
        operation: &'static str,
        key: impl Into<Vec<u8>>,
    ) -> Result<Option<Entry>, CallError> {
        let mut kv = self.client.kv_client();
        let response = self.call(operation, kv.get(key, None)).await?;
        Ok(response.kvs().first().map(Entry::from))
    }

    /// Everything under `prefix`, page by page at the revision of the first one. Pages are smaller where values are great.
    pub(crate) async fn list(
        &self,
        operation: &'static str,
        prefix: &str,
    ) -> Result<Listing, CallError> {
        let mut kv = self.client.kv_client();
        let end = prefix_end(prefix);
        let mut listing = Listing {
            revision: 0,
            entries: Vec::new(),
        };
        let (mut from, mut limit) = (prefix.to_owned(), PAGE);
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(limit)
                .with_revision(listing.revision);
            let page = self
                .call(operation, kv.get(from.clone(), Some(options)))
                .await;
            let page = match page {
                Err(error) if error.is_too_long() && limit > LEAST_PAGE => {
                    limit = (limit / 4).max(LEAST_PAGE);
                    continue;
                }
                page => page?,
            };
            if listing.revision == 0 {
                listing.revision = page
                    .header()
                    .map_or(0, etcd_client::ResponseHeader::revision);
            }
            listing.entries.extend(page.kvs().iter().map(Entry::from));
            match listing.entries.last() {
                Some(last) if page.more() => from = format!("{}\0", last.key),
                _ => return Ok(listing),
            }
        }
    }

    /// The records under `prefix`; values that cannot be read are logged and left out.
    pub(crate) async fn records<R: Record>(
        &self,
        operation: &'static str,
        prefix: &str,
    ) -> Result<Vec<R>, CallError> {
        let listing = self.list(operation, prefix).await?;
        Ok(listing.entries.iter().filter_map(readable).collect())
    }

    /// A transaction that is based on nothing that was read before.
    pub(crate) async fn txn(
        &self,
        operation: &'static str,
        when: Vec<Compare>,
        then: Vec<TxnOp>,
    ) -> Result<Outcome, CallError> {
        let seen = self.place.seen();
        self.txn_as_of(&seen, operation, when, then).await
    }

    /// A transaction that succeeds only in the registry, and the era of it, that `seen` is of.
    pub(crate) async fn txn_as_of(
        &self,
        seen: &Seen,
        operation: &'static str,
        mut when: Vec<Compare>,
        then: Vec<TxnOp>,
    ) -> Result<Outcome, CallError> {
        when.push(seen.holds());
        let kv = self.client.kv_client();
        let else_ = vec![TxnOp::get(ERA, None)];
        let txn = Txn::new().when(when).and_then(then).or_else(else_);
        let outcome = self.commit(operation, kv, txn).await?;
        let era = outcome.found.first().and_then(|found| found.first());
        if !outcome.succeeded && era.map(|entry| &entry.value) != seen.0.as_ref() {
            return Err(CallError::Rpc {
                operation,
                source: "the registry has moved meanwhile".into(),
            });
        }
        Ok(outcome)
    }

    /// A transaction that only reads.
    pub(crate) async fn read(
        &self,
        operation: &'static str,
        gets: Vec<TxnOp>,
    ) -> Result<Outcome, CallError> {
        let txn = Txn::new().and_then(gets);
        self.commit(operation, self.client.kv_client(), txn).await
    }

    async fn commit(
        &self,
        operation: &'static str,
        mut kv: KvClient,
        txn: Txn,
    ) -> Result<Outcome, CallError> {
        let response = self.call(operation, kv.txn(txn)).await?;
        let found = response
            .op_responses()
            .iter()
            .filter_map(|op| match op {
                TxnOpResponse::Get(get) => Some(get.kvs().iter().map(Entry::from).collect()),
                _ => None,
            })
            .collect();
        Ok(Outcome {
            succeeded: response.succeeded(),
            revision: response
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision),
            found,
        })
    }
}

/// Has the registry say who this is from now on. One without users is content with anybody.
async fn log_in(client: &mut Client, user: &User, timeout: Duration) -> Result<(), Cause> {
    let account = (user.name.clone(), user.password.reveal().to_owned());
    match tokio::time::timeout(timeout, client.update_user(Some(account))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.to_string().contains("authentication is not enabled") => Ok(()),
        Ok(Err(error)) => Err(cause(error)),
        Err(late) => Err(Box::new(late)),
    }
}

async fn log_in_once_there(mut client: Client, user: User, timeout: Duration) {
    let mut backoff = Backoff::outage();
    while let Err(error) = log_in(&mut client, &user, timeout).await {
        warn!(
            user = user.name,
            error, "cannot log in to the registry, trying again"
        );
        backoff.wait().await;
    }
}

/// Whether an error is that of the member or the way to it, rather than of what it was asked.
fn is_the_members(error: &etcd_client::Error) -> bool {
    use tonic::Code::{DeadlineExceeded, Unavailable, Unknown};
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            [DeadlineExceeded, Unavailable, Unknown].contains(&status.code())
        }
        etcd_client::Error::TransportError(_) => true,
        _ => false,
    }
}

/// The record in `entry`, or `None` and a line in the log.
pub(crate) fn readable<R: Record>(entry: &Entry) -> Option<R> {
    R::decode(&entry.value)
        .inspect_err(|error| {
            let error: &(dyn std::error::Error + 'static) = error;
            warn!(key = entry.key, error, "set aside");
        })
        .ok()
}

/// The first key after all those that begin with `prefix`, which ends in a slash.
pub(crate) fn prefix_end(prefix: &str) -> String {
    let stem = prefix.strip_suffix('/').unwrap_or(prefix);
    format!("{stem}0") // '0' follows '/' in ASCII
}
