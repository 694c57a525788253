//! Opening, binding and serving.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, DatabaseError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::http::Uri;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};
use tracing::{error, info, warn};

use super::connection::Connection;
use super::disk;
use super::election_service::ElectionService;
use super::kv::{KvService, MAX_REQUEST};
use super::lease;
use super::lease_service::LeaseService;
use super::lock_service::LockService;
use super::member::MemberService;
use super::pb::etcdserverpb::cluster_server::ClusterServer;
use super::pb::etcdserverpb::kv_server::KvServer;
use super::pb::etcdserverpb::lease_server::LeaseServer;
use super::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use super::pb::etcdserverpb::watch_server::WatchServer;
use super::pb::v3electionpb::election_server::ElectionServer;
use super::pb::v3lockpb::lock_server::LockServer;
use super::rights::only_unlimited;
use super::store::Store;
use super::watch::WatchService;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory could not be made.
    #[error("create directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("registry {path} is in use by another process")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is unreadable or damaged.
    #[error("open registry {path}")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the store said.
        source: redb::Error,
    },
}

/// Why the server could not listen.
#[derive(Debug, thiserror::Error)]
#[error("listen for registry clients on {address}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Bytes of keys, values and history that there may be, as many as etcd allows by default.
const DEFAULT_QUOTA: u64 = 2 << 30;

/// A store that is open, and not yet served.
pub struct Server {
    store: Store,
    closed: oneshot::Receiver<()>,
}

/// A server that listens.
pub struct Bound {
    store: Store,
    closed: oneshot::Receiver<()>,
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Server {
    /// Opens the store in `dir`, or makes both. Blocks on the disk for a moment; after a crash, until what was
    /// interrupted is undone.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_with_quota(dir, DEFAULT_QUOTA)
    }

    /// [`Server::open`]; once keys, values and history have `quota` bytes nothing is added, until some are deleted.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file.
    pub fn open_with_quota(dir: &Path, quota: u64) -> Result<Self, OpenError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(|source| OpenError::Directory {
            path: dir.to_owned(),
            source,
        })?;
        let path = dir.join("registry.redb");
        let failed = |source| OpenError::Store {
            path: path.clone(),
            source,
        };
        let opened = match path.exists() {
            true => disk::open(&path),
            false => create(dir, &path),
        };
        let database = match opened {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(OpenError::InUse { path }),
            Err(error) => return Err(failed(error.into())),
        };
        let (store, closed) = Store::open(database, path.clone(), quota).map_err(failed)?;
        Ok(Self { store, closed })
    }

    /// Answers those who come in by `connections`, which somebody else accepts at `address` and knows, until `stop`; ends
    /// as [`Bound::serve`] does.
    pub async fn serve(
        self,
        address: SocketAddr,
        connections: mpsc::Receiver<Connection>,
        stop: CancellationToken,
    ) {
        let incoming = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
        let Self { store, closed } = self;
        run(
            (store, closed),
            format!("https://{address}"),
            incoming,
            stop,
        )
        .await;
    }

    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`BindError`] with the errno, such as for an address in use.
    pub async fn bind(self, address: SocketAddr) -> Result<Bound, BindError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = bound
            .await
            .map_err(|source| BindError { address, source })?;
        Ok(Bound {
            store: self.store,
            closed: self.closed,
            listener,
            local_addr,
        })
    }
}

/// Makes an empty store, which has its name once it is whole: what is killed on the way leaves none.
fn create(dir: &Path, path: &Path) -> Result<Database, DatabaseError> {
    let draft = dir.join(".new-registry.redb");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = disk::open(&draft)?;
    fs::rename(&draft, path)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(database)
}

impl Bound {
    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `stop`; then ends all streams, lets requests finish for a moment and closes the store.
    pub async fn serve(self, stop: CancellationToken) {
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let url = format!("http://{}", self.local_addr);
        run((self.store, self.closed), url, incoming, stop).await;
    }
}

async fn run<C>(
    (store, closed): (Store, oneshot::Receiver<()>),
    url: String,
    incoming: impl Stream<Item = io::Result<C>>,
    stop: CancellationToken,
) where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    /// Time for requests under way when stopping.
    const GRACE: Duration = Duration::from_secs(3);
    /// A peer that is silent for this long is asked, and for as long again given up.
    const PING: Duration = Duration::from_secs(10);
    // Ends with this function, however that ends.
    let running = stop.child_token();
    let _ended = running.clone().drop_guard();
    let expiry = tokio::spawn(lease::expire(store.clone(), running.clone()));
    info!(url, "embedded registry serves");
    let routes = routes(store, url, &running);
    let serve = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serve => if let Err(error) = served {
            let error: &dyn std::error::Error = &error;
            error!(error, "embedded registry");
        },
        () = deadline => warn!("clients held on, the embedded registry drops them"),
    }
    running.cancel();
    if let Err(error) = expiry.await {
        error!(%error, "lease expiry ended early");
    }
    if tokio::time::timeout(GRACE, closed).await.is_err() {
        warn!("the embedded registry's store is still in use");
    }
}

/// Larger messages are not read. A request may be [`MAX_REQUEST`], and one above that is told so by etcd's words.
const MAX_MESSAGE: usize = MAX_REQUEST + (512 << 10);

fn routes(store: Store, url: String, running: &CancellationToken) -> Routes {
    let member = MemberService {
        store: store.clone(),
        url,
    };
    let watch = WatchService {
        store: store.clone(),
        stop: running.clone(),
    };
    let lease = LeaseService {
        store: store.clone(),
        stop: running.clone(),
    };
    let election = ElectionService {
        store: store.clone(),
        stop: running.clone(),
    };
    let lock = LockService {
        store: store.clone(),
        stop: running.clone(),
    };
    let services =
        Routes::new(KvServer::new(KvService(store)).max_decoding_message_size(MAX_MESSAGE))
            .add_service(WatchServer::new(watch))
            .add_service(LeaseServer::new(lease))
            .add_service(ElectionServer::with_interceptor(election, only_unlimited))
            .add_service(LockServer::with_interceptor(lock, only_unlimited))
            .add_service(ClusterServer::new(member.clone()))
            .add_service(MaintenanceServer::new(member));
    let refused = |uri: Uri| async move { refusal(uri.path()).into_http::<tonic::body::Body>() };
    Routes::from(services.into_axum_router().fallback(refused))
}

/// Why there is nothing at `path`, which is that of a service and its method.
fn refusal(path: &str) -> Status {
    match path.strip_prefix("/etcdserverpb.Auth/") {
        // Clients that have a password go on without it after these words, as they do on an etcd without users.
        Some("Authenticate") => {
            Status::failed_precondition("etcdserver: authentication is not enabled")
        }
        Some(_) => Status::unimplemented(
            "the embedded registry has no users and roles, use an etcd cluster",
        ),
        None => Status::unimplemented(
            "the embedded registry has the services KV, Watch, Lease, Election, Lock, Cluster and Maintenance only",
        ),
    }
}
