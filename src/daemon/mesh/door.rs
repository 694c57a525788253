//! The port at which the mesh's manager is reached: members get to the registry, holders of a token become members, and
//! all others get nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use nuncio_ambassador::{Identity, TlsSide};
use nuncio_mesh::{ALPN, Authority, Membership};
use nuncio_registry::embedded::{Client, Connection};
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Current, HTTP2, tls};

/// Those who have not yet shown who they are, at once; more wait to be accepted.
const STRANGERS: usize = 256;
/// How long each of them has for that.
const PATIENCE: Duration = Duration::from_secs(10);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

pub(super) struct Door {
    pub(super) membership: Membership,
    pub(super) authority: Arc<Authority>,
    pub(super) credentials: Current,
    /// To the registry.
    pub(super) connections: mpsc::Sender<Connection>,
}

impl Door {
    /// Accepts until `stop`.
    pub(super) async fn keep(self, listener: TcpListener, stop: CancellationToken) {
        let (door, room) = (Arc::new(self), Arc::new(Semaphore::new(STRANGERS)));
        let serve = async {
            loop {
                let permit = room.clone().acquire_owned().await;
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let door = door.clone();
                        tokio::spawn(async move {
                            door.open(stream, peer).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        // Such as EMFILE: it passes.
                        tracing::warn!(%error, "accept at the mesh's port");
                        sleep(ACCEPT_BACKOFF).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve => {}
        }
    }

    async fn open(&self, stream: TcpStream, peer: SocketAddr) {
        let met = timeout(PATIENCE, self.meet(stream)).await;
        let met = met.unwrap_or_else(|_| Err(anyhow::anyhow!("nothing within {PATIENCE:?}")));
        match met {
            // An error: the registry is ending.
            Ok(Some(connection)) => drop(self.connections.send(connection).await),
            Ok(None) => {}
            Err(error) => {
                tracing::info!(%peer, error = format!("{error:#}"), "not let into the mesh");
            }
        }
    }

    /// The connection of a member, or `None` for who became one by it.
    async fn meet(&self, stream: TcpStream) -> anyhow::Result<Option<Connection>> {
        stream.set_nodelay(true)?;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let start = match start.await {
            // Who looks whether somebody listens here says nothing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            start => start.context("TLS is not what was spoken")?,
        };
        let wants_papers = start
            .client_hello()
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN));
        if wants_papers {
            let stream = start.into_stream(self.authority.server_config()?).await;
            self.authority
                .answer(stream.context("TLS handshake")?)
                .await?;
            return Ok(None);
        }
        let mesh = self.membership.mesh;
        let mut config =
            tls(&self.credentials, TlsSide::Terminate, &mesh.members())?.server_config()?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let stream = start
            .into_stream(Arc::new(config))
            .await
            .context("TLS handshake")?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = shown.first().context("no certificate was shown")?;
        let identity = Identity::of(certificate)?.to_string();
        let node = mesh
            .node_of(&identity)
            .context("it is the certificate of no node")?;
        let ended = self.authority.admit(&node, certificate);
        let ended = ended.with_context(|| {
            format!("node {node} is not in the mesh any more, or has an older key")
        })?;
        let client = Client {
            unlimited: node == self.membership.manager,
            node: node.to_string(),
            ended,
        };
        Ok(Some(Connection::new(stream, client)))
    }
}
