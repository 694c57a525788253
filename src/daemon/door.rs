//! Where the API is served: unix sockets that root and a group may use, and TCP for who shows a certificate.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::caller::Caller;
use super::state_file;
use crate::papers::Papers;

/// The group whose members may use the sockets if no other is named.
const GROUP: &str = "nuncio";
/// Those who have not yet shown who they are, at once; more wait to be accepted.
const STRANGERS: usize = 256;
/// How long each of them has for that.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that were let in and wait to be served.
const WAITING: usize = 16;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A unix socket.
pub(super) struct Local(UnixListener);

/// A port of TCP, where TLS is spoken.
pub(super) struct Far {
    address: SocketAddr,
    connections: mpsc::Receiver<(TlsStream<TcpStream>, Caller)>,
    _door: AbortOnDropHandle<()>,
}

impl Local {
    /// Listens in place of a socket that nobody serves any more. It is root's and that group's, by number.
    pub(super) fn listen(path: &Path, group: u32) -> anyhow::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!(
                "{} is served by another daemon: stop it, or give this one another -H",
                path.display()
            );
        }
        state_file::remove(path)?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("make {}", directory.display()))?;
        }
        let socket =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        chown(path, Some(0), Some(group))
            .with_context(|| format!("give {} to its group", path.display()))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(Self(socket))
    }
}

/// The number of the group whose the sockets are: of the one that is named, else of nuncio's or, where there is none, root's.
pub(super) fn group(name: Option<&str>) -> anyhow::Result<u32> {
    let Some(name) = name else {
        return Ok(group_id(GROUP)?.unwrap_or(0));
    };
    let missing = || format!("--group {name}: /etc/group has no such group");
    group_id(name)?.with_context(missing)
}

/// The number of a group, or of what is a number already; `None` if there is none of that name.
fn group_id(name: &str) -> anyhow::Result<Option<u32>> {
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    // Not by the C library, which is linked statically and could load no name services.
    let groups = state_file::read_bytes(Path::new("/etc/group")).context("read /etc/group")?;
    let groups = String::from_utf8_lossy(&groups.unwrap_or_default()).into_owned();
    Ok(groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    }))
}

impl Listener for Local {
    type Io = UnixStream;
    type Addr = Caller;

    async fn accept(&mut self) -> (UnixStream, Caller) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let peer = Caller::of_process(stream.peer_cred());
                    return (stream, peer);
                }
                Err(error) => refrain(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller::Unknown)
    }
}

impl Connected<IncomingStream<'_, Local>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Local>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Far {
    /// Listens for who shows a certificate that `papers` make good.
    pub(super) async fn listen(address: &str, papers: Papers) -> anyhow::Result<Self> {
        let config = papers.server_config().context("--tlsverify")?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on tcp://{address}"))?;
        let address = listener.local_addr()?;
        let (sender, connections) = mpsc::channel(WAITING);
        let door = tokio::spawn(keep(listener, papers, Arc::new(config), sender));
        Ok(Self {
            address,
            connections,
            _door: AbortOnDropHandle::new(door),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Listener for Far {
    type Io = TlsStream<TcpStream>;
    type Addr = Caller;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, Caller) {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await, // the door has been closed
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller::Unknown)
    }
}

impl Connected<IncomingStream<'_, Far>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Far>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Accepts, and lets in who shows a certificate, as the files are at that moment.
async fn keep(
    listener: TcpListener,
    papers: Papers,
    mut config: Arc<ServerConfig>,
    connections: mpsc::Sender<(TlsStream<TcpStream>, Caller)>,
) {
    let room = Arc::new(Semaphore::new(STRANGERS));
    loop {
        let permit = room.clone().acquire_owned().await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                refrain(&error).await;
                continue;
            }
        };
        match papers.server_config() {
            Ok(current) => config = Arc::new(current),
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    error,
                    "the certificate for the API: that of before is shown"
                );
            }
        }
        let (config, connections) = (config.clone(), connections.clone());
        tokio::spawn(async move {
            let shaken = timeout(PATIENCE, shake_hands(stream, address, config)).await;
            drop(permit);
            let late = || anyhow::anyhow!("nothing within {PATIENCE:?}");
            match shaken.map_err(|_| late()).flatten() {
                Ok(connection) => drop(connections.send(connection).await),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::info!(%address, error, "not let in to the API");
                }
            }
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
) -> anyhow::Result<(TlsStream<TcpStream>, Caller)> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = shown.first().context("no certificate was shown")?;
    let peer = Caller::of_certificate(certificate, address);
    Ok((stream, peer))
}

/// After an error such as EMFILE, which passes.
async fn refrain(error: &io::Error) {
    tracing::warn!(%error, "accept a connection to the API");
    sleep(ACCEPT_BACKOFF).await;
}
