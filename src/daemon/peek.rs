//! What hosts tell each other of what happens on them: events, figures, logs and the map, which can be read and not changed.
//!
//! In a mesh by TLS 1.3, in which both sides show the certificates of members, and on a port of its own. Elsewhere hosts have
//! nothing by which to know each other, and it is told to nobody but by `daemon --insecure-peek`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::serve::Listener;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nuncio_ambassador::{Identity, TlsSide};
use nuncio_registry::{NodeRecord, PeekRecord};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::api_connection::Connection;
use super::audit::Peer;
use super::mesh::Mesh;
use super::refusal::Refusal;
use super::strangers::meet_all;
use crate::cli::daemon::DaemonOptions;

/// What is spoken there: HTTP/1.1, under a name that no other port of a mesh answers to.
const ALPN: &[u8] = b"nuncio-peek/1";
/// Connections of other hosts at once; further ones are closed.
const GUESTS: usize = 128;
/// Questions to other hosts that are under way at once; further ones are refused.
pub(super) const UNDER_WAY: usize = 512;
/// How long another host may take to be reached.
const REACHED: Duration = Duration::from_secs(3);
/// How long it may take to begin its answer.
const BEGUN: Duration = Duration::from_secs(6);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection of another host, which has shown who it is.
pub(crate) struct Guest {
    stream: Box<dyn Stream>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Other hosts that have shown who they are.
pub(crate) struct PeekListener {
    known: mpsc::Receiver<(Connection<Guest>, Peer)>,
    address: SocketAddr,
}

impl Listener for PeekListener {
    type Io = Connection<Guest>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        match self.known.recv().await {
            Some(known) => known,
            None => std::future::pending().await, // it is ending
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Certificate {
            name: String::new(),
            address: self.address,
        })
    }
}

/// Refuses flags that contradict what this host is.
pub(super) fn check(options: &DaemonOptions, mesh: Option<&Mesh>) -> anyhow::Result<()> {
    if options.insecure_peek && mesh.is_some() {
        bail!(
            "--insecure-peek: this host is in a mesh, whose members know each other by certificates: leave it out"
        );
    }
    if options.insecure_peek && options.peek_port == 0 {
        bail!("--insecure-peek with --peek-port 0: leave one of the two out");
    }
    Ok(())
}

/// An answer of another host, whose connection ends with it.
pub(crate) struct Told {
    body: Incoming,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
}

impl Daemon {
    /// Where other hosts are told what happens here; `None` if they are not.
    pub(super) fn peek_record(&self) -> Option<PeekRecord> {
        let told = self.mesh.is_some() || self.options.insecure_peek;
        (told && self.options.peek_port != 0).then_some(PeekRecord {
            port: self.options.peek_port,
            plain: self.mesh.is_none(),
        })
    }

    /// Listens for other hosts until `stop`; `None` if they are told nothing.
    pub(super) async fn open_peek(
        self: &Arc<Self>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<PeekListener>> {
        let Some(record) = self.peek_record() else {
            return Ok(None);
        };
        let address = SocketAddr::new(self.node.address, record.port);
        let listener = TcpListener::bind(address).await;
        let listener =
            listener.with_context(|| format!("listen on {address}, as --peek-port says"))?;
        if record.plain {
            tracing::warn!(%address, "--insecure-peek: everybody who reaches it reads events, figures and logs");
        }
        let (sender, known) = mpsc::channel(GUESTS);
        let room = Arc::new(Semaphore::new(GUESTS));
        let daemon = Arc::downgrade(self);
        let meet = move |stream, peer| meet(Weak::clone(&daemon), Arc::clone(&room), stream, peer);
        let refused = "not told what happens here";
        tokio::spawn(meet_all(listener, stop.clone(), refused, sender, meet));
        Ok(Some(PeekListener { known, address }))
    }

    /// Asks another host, by its id or name. `None` if that is this one.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if there is no such host, or none that tells; else why it could not be asked in time.
    pub(crate) async fn peek(
        &self,
        host: &str,
        path_and_query: &str,
    ) -> anyhow::Result<Option<Response<Told>>> {
        let node = self.node_named(host)?;
        if node.id == self.node.id {
            return Ok(None);
        }
        let place = Arc::clone(&self.peeks).try_acquire_owned();
        let place = place.map_err(|_| {
            Refusal::conflict(format!(
                "{UNDER_WAY} questions to other hosts are under way: try again when some have ended"
            ))
        })?;
        let reached = timeout(REACHED, self.reach(&node)).await;
        let stream = reached
            .unwrap_or_else(|_| bail!("not reached within {REACHED:?}"))
            .with_context(|| format!("host {}", node.name))?;
        let asked = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // What breaks it breaks the answer too, which is where it is told.
            tokio::spawn(connection);
            let request = Request::get(path_and_query).header(HOST, "nuncio");
            let request = request.body(Empty::<Bytes>::new().boxed())?;
            anyhow::Ok(sender.send_request(request).await?)
        };
        let answer = timeout(BEGUN, asked).await;
        let answer = answer
            .unwrap_or_else(|_| bail!("no answer within {BEGUN:?}"))
            .with_context(|| format!("host {}", node.name))?;
        Ok(Some(answer.map(|body| Told {
            body,
            _place: place,
        })))
    }

    fn node_named(&self, wanted: &str) -> anyhow::Result<Arc<NodeRecord>> {
        let catalog = self.catalog();
        if let Some(node) = catalog.nodes.get(wanted) {
            return Ok(Arc::clone(node));
        }
        let mut named = catalog.nodes.values().filter(|node| node.name == wanted);
        let node = named.next().cloned();
        let missing = || Refusal::not_found(format!("No such host: {wanted}"));
        node.ok_or_else(missing).map_err(Into::into)
    }

    async fn reach(&self, node: &NodeRecord) -> anyhow::Result<Box<dyn Stream>> {
        let Some(peek) = &node.peek else {
            let message = match self.mesh {
                Some(_) => "it tells others nothing (--peek-port 0), or its daemon is too old to",
                None => {
                    "hosts tell each other what happens on them in a mesh, where they know each other by certificates: make one with `nuncio init` and `nuncio join`, or start all daemons with --insecure-peek"
                }
            };
            bail!(Refusal::conflict(message));
        };
        let address = SocketAddr::new(node.address, peek.port);
        let mesh = match (&self.mesh, peek.plain) {
            (Some(mesh), false) => mesh,
            (None, true) if self.options.insecure_peek => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            (None, true) => bail!(Refusal::conflict(
                "it tells everybody, without certificates: to ask it, start this daemon with --insecure-peek too"
            )),
            _ => bail!(Refusal::conflict(
                "one of the two is in a mesh, and the other is not"
            )),
        };
        let identity = mesh.identity_of(&node.id);
        let identity = identity.context("its id can be in no certificate")?;
        let mut config = mesh
            .peer_tls(TlsSide::Originate, &identity)?
            .client_config()?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        // An address is not sent, and nothing is made of it: the identity is what counts.
        let name = ServerName::from(address.ip());
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// Who has connected; an error tells why that is nobody who is told anything.
async fn meet(
    daemon: Weak<Daemon>,
    room: Arc<Semaphore>,
    stream: TcpStream,
    address: SocketAddr,
) -> anyhow::Result<Option<(Connection<Guest>, Peer)>> {
    let daemon = daemon.upgrade().context("this daemon is ending")?;
    let place = room.try_acquire_owned();
    let place = place.with_context(|| format!("{GUESTS} others read here already"))?;
    stream.set_nodelay(true)?;
    let Some(mesh) = &daemon.mesh else {
        let guest = Guest {
            stream: Box::new(stream),
            _place: place,
        };
        let peer = Peer::Certificate {
            name: "nobody in particular".to_owned(),
            address,
        };
        return Ok(Some((Connection::new(guest), peer)));
    };
    let members = mesh.id().members();
    let mut config = mesh
        .peer_tls(TlsSide::Terminate, &members)?
        .server_config()?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let stream = match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
        // Who looks whether somebody listens here says nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        accepted => accepted.context("TLS handshake")?,
    };
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        bail!("it does not speak what is spoken here");
    }
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = shown.first().context("no certificate was shown")?;
    let name = Identity::of(certificate)?.to_string();
    let node = mesh.id().node_of(&name);
    let node = node
        .context("it is the certificate of no node")?
        .to_string();
    if !daemon.catalog().nodes.contains_key(&node) {
        bail!("node {node} is not in the mesh any more");
    }
    let guest = Guest {
        stream: Box::new(stream),
        _place: place,
    };
    let connection = Connection::new(guest);
    tokio::spawn(cut_when_removed(
        daemon.catalog_changes.clone(),
        node,
        connection.cut(),
        connection.ended(),
    ));
    Ok(Some((connection, Peer::Certificate { name, address })))
}

/// Who is removed from the mesh hears no more from then on.
async fn cut_when_removed(
    mut catalog: tokio::sync::watch::Receiver<Arc<nuncio_registry::Catalog>>,
    node: String,
    cut: CancellationToken,
    ended: CancellationToken,
) {
    tokio::select! {
        () = ended.cancelled() => {}
        _ = catalog.wait_for(|catalog| !catalog.nodes.contains_key(&node)) => cut.cancel(),
    }
}
