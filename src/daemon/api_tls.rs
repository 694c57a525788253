//! The API over TCP: by TLS 1.3, for those alone who show a certificate.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use nuncio_ambassador::Identity;
use nuncio_mesh::Home;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::audit::Peer;
use super::container::locked;
use super::mesh::{ApiTls, Mesh};
use super::strangers::meet_all;
use super::subject::common_name;
use crate::cli::daemon::DaemonOptions;
use crate::cli::host::Host;
use crate::cli::tls::TlsFiles;

const HTTP: &[u8] = b"http/1.1";
/// Connections that have shown a certificate, and wait to be served.
const WAITING: usize = 64;

const OPEN_TO_ALL: &str = "-H tcp://: without certificates everybody who reaches it would be root here: give --tlsverify --tlscacert CA --tlscert CERT --tlskey KEY, or make this host part of a mesh (nuncio init, nuncio join)";

/// Refuses, before anything is begun, what could not be served over TCP, or only to everybody.
pub(super) fn check(options: &DaemonOptions) -> anyhow::Result<()> {
    let is_far = |host: &Host| matches!(host, Host::Tcp { .. });
    if !options.hosts.iter().any(is_far) {
        return Ok(());
    }
    match &options.tls {
        Some(files) => of_files(files).map(drop),
        None => match Home::open(&options.data_root)? {
            Some(_) => Ok(()),
            None => bail!(OPEN_TO_ALL),
        },
    }
}

/// Whose certificates are shown and asked for.
#[derive(Clone)]
pub(super) enum Papers {
    /// What `--tlscacert`, `--tlscert` and `--tlskey` name, read for each connection, so that they may be renewed.
    Files(TlsFiles),
    /// This host's own in its mesh; operators' are asked for.
    Mesh(ApiTls),
}

/// What was served by last.
type Last = Mutex<Option<Arc<ServerConfig>>>;

/// Connections whose peers have shown certificates.
pub(crate) struct ApiListener {
    known: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    address: SocketAddr,
}

impl Papers {
    /// What `-H tcp://` is served by.
    pub(super) fn choose(files: Option<&TlsFiles>, mesh: Option<&Mesh>) -> anyhow::Result<Self> {
        match (files, mesh) {
            (Some(files), _) => Ok(Self::Files(files.clone())),
            (None, Some(mesh)) => Ok(Self::Mesh(mesh.api_tls())),
            (None, None) => bail!(OPEN_TO_ALL),
        }
    }

    fn config(&self) -> anyhow::Result<ServerConfig> {
        let mut config = match self {
            Self::Files(files) => of_files(files)?,
            Self::Mesh(mesh) => mesh.config()?,
        };
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(config)
    }

    /// What is served by now. Files that are of no use, as while they are replaced, change nothing.
    fn current(&self, last: &Last) -> anyhow::Result<Arc<ServerConfig>> {
        match (self.config(), self) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *locked(last) = Some(Arc::clone(&config));
                Ok(config)
            }
            (Err(error), Self::Files(_)) => {
                let told = format!("{error:#}");
                tracing::warn!(
                    error = told,
                    "certificates for the API: those of before are used"
                );
                locked(last).clone().ok_or(error)
            }
            (Err(error), Self::Mesh(_)) => Err(error),
        }
    }

    async fn meet(
        self,
        last: &Last,
        stream: TcpStream,
        address: SocketAddr,
    ) -> anyhow::Result<Option<(TlsStream<TcpStream>, Peer)>> {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(self.current(last)?);
        let stream = match acceptor.accept(stream).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            accepted => accepted.context("TLS handshake")?,
        };
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = shown.first().context("no certificate was shown")?;
        let name = match self {
            Self::Mesh(_) => Identity::of(certificate)?.to_string(),
            Self::Files(_) => common_name(certificate).unwrap_or_else(|| "unnamed".to_owned()),
        };
        Ok(Some((stream, Peer::Certificate { name, address })))
    }
}

impl ApiListener {
    /// Listens at `address` until `stop`.
    pub(super) async fn open(
        address: &str,
        papers: Papers,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let last = Arc::new(Mutex::new(papers.config().ok().map(Arc::new)));
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listen on tcp://{address}"))?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "serving the API to those who show a certificate");
        let (sender, known) = mpsc::channel(WAITING);
        let meet = move |stream, peer| {
            let (papers, last) = (papers.clone(), Arc::clone(&last));
            async move { papers.meet(&last, stream, peer).await }
        };
        let refused = "not let into the API";
        tokio::spawn(meet_all(listener, stop.clone(), refused, sender, meet));
        Ok(Self { known, address })
    }
}

impl axum::serve::Listener for ApiListener {
    type Io = TlsStream<TcpStream>;
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

fn of_files(files: &TlsFiles) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        let added = roots.add(authority);
        added.with_context(|| format!("--tlscacert {}", files.ca.display()))?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let clients = clients.build().context("--tlscacert")?;
    let key = PrivateKeyDer::from_pem_file(&files.key);
    let key = key.with_context(|| format!("--tlskey {}: no key in PEM", files.key.display()))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&files.cert)?, key);
    config.with_context(|| {
        let (cert, key) = (files.cert.display(), files.key.display());
        format!("--tlscert {cert} and --tlskey {key} do not belong together")
    })
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        read.with_context(|| format!("read certificates from {}", path.display()))?;
    if certificates.is_empty() {
        bail!("{} has no certificate in PEM", path.display());
    }
    Ok(certificates)
}
