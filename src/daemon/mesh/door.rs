//! The port at which the mesh's manager is reached: members get to the registry, holders of a token become members, and
//! all others get nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use nuncio_ambassador::{Identity, TlsSide};
use nuncio_mesh::{ALPN, Authority, Membership};
use nuncio_registry::embedded::{Client, Connection};
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use super::super::strangers::meet_all;
use super::{Current, HTTP2, tls};

pub(super) struct Door {
    pub(super) membership: Membership,
    pub(super) authority: Arc<Authority>,
    pub(super) credentials: Current,
}

impl Door {
    /// Accepts until `stop`, and hands members' connections on to the registry.
    pub(super) async fn keep(
        self,
        listener: TcpListener,
        connections: mpsc::Sender<Connection>,
        stop: CancellationToken,
    ) {
        let door = Arc::new(self);
        let meet = move |stream, peer| {
            let door = door.clone();
            async move { door.meet(stream, peer).await }
        };
        meet_all(listener, stop, "not let into the mesh", connections, meet).await;
    }

    /// The connection of a member, or `None` for who became one by it.
    async fn meet(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> anyhow::Result<Option<Connection>> {
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
                .answer(stream.context("TLS handshake")?, peer.ip())
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
