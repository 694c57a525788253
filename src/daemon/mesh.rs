//! This host as a member of a mesh: its certificate, and who else is let in if this host decides that.

mod door;
mod members;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nuncio_ambassador::{Credentials, Tls, TlsFiles, TlsSide};
use nuncio_mesh::{Authority, Home, Membership, MeshId};
use nuncio_registry::{Dialer, embedded};
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use members::NewToken;

/// What is spoken to the registry.
const HTTP2: &[u8] = b"h2";
/// Connections that were let in and wait for the registry to take them.
const WAITING: usize = 64;

/// This host's certificate, as it is now; `None` while there is none that is good.
type Current = watch::Receiver<Option<Arc<Credentials>>>;

/// TLS with the mesh's operators.
#[derive(Clone)]
pub(super) struct ApiTls {
    credentials: Current,
    operators: String,
}

impl ApiTls {
    pub(super) fn config(&self) -> anyhow::Result<rustls::ServerConfig> {
        Ok(tls(&self.credentials, TlsSide::Terminate, &self.operators)?.server_config()?)
    }
}

/// A mesh that this host is in.
pub(super) struct Mesh {
    membership: Membership,
    /// Where this host is the manager.
    authority: Option<Arc<Authority>>,
    credentials: Current,
    files: TlsFiles,
    /// Renews them.
    _renewal: AbortOnDropHandle<()>,
}

impl Mesh {
    /// The mesh that `nuncio init` or `nuncio join` made this host a member of, if so.
    pub(super) fn open(data_root: &Path) -> anyhow::Result<Option<Self>> {
        let Some(home) = Home::open(data_root).context("membership of a mesh")? else {
            return Ok(None);
        };
        let authority = home.authority().context("the mesh's authority")?;
        let authority = authority.map(Arc::new);
        let membership = home.membership().clone();
        if authority.is_none() && membership.node == membership.manager {
            bail!(
                "this node is the mesh's manager, and its authority is not there: put it back from a backup"
            );
        }
        let loaded = load(&home)
            .inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "this node's certificate is of no use: having it renewed"
                );
            })
            .ok();
        let (identity, bundle) = home.files();
        let files = TlsFiles {
            certificate: identity.clone(),
            key: identity,
            bundle,
        };
        let (sender, credentials) = watch::channel(loaded);
        let renewal = tokio::spawn(renew(home, authority.clone(), sender));
        Ok(Some(Self {
            membership,
            authority,
            credentials,
            files,
            _renewal: AbortOnDropHandle::new(renewal),
        }))
    }

    /// Where other hosts reach this one, if that was said when it joined.
    pub(super) fn advertise(&self) -> Option<IpAddr> {
        self.membership.advertise
    }

    pub(super) fn id(&self) -> MeshId {
        self.membership.mesh
    }

    /// How a host is called in its certificate; `None` if it can have none.
    pub(super) fn identity_of(&self, node: &str) -> Option<String> {
        Some(self.membership.mesh.member(&node.parse().ok()?))
    }

    /// Where this host's certificate and key are, which change as they are renewed.
    pub(super) fn files(&self) -> TlsFiles {
        self.files.clone()
    }

    /// How the API is served to the mesh's operators.
    pub(super) fn api_tls(&self) -> ApiTls {
        ApiTls {
            credentials: self.credentials.clone(),
            operators: self.membership.mesh.operators(),
        }
    }

    /// TLS by this host's certificate with who has an identity, or one of those that `allow` stands for.
    pub(super) fn peer_tls(&self, side: TlsSide, allow: &str) -> io::Result<Tls> {
        tls(&self.credentials, side, allow)
    }

    /// Refuses to be another node than the certificate says.
    pub(super) fn require(&self, node: &str) -> anyhow::Result<()> {
        if self.membership.node.as_str() != node {
            let member = &self.membership.node;
            bail!(
                "node.json says that this is node {node}, its certificate is that of {member}: put the right file back, or join again"
            );
        }
        Ok(())
    }

    pub(super) fn is_manager(&self) -> bool {
        self.authority.is_some()
    }

    pub(super) fn registry_url(&self) -> String {
        format!("https://{}", self.membership.registry)
    }

    /// Connects to the registry, and to nobody who is not its keeper.
    pub(super) fn dialer(&self) -> Dialer {
        let manager = self.membership.mesh.member(&self.membership.manager);
        let current = self.credentials.clone();
        dialer(manager, move || now(&current))
    }

    /// Serves the registry to members, and lets in those who have a token.
    pub(super) async fn serve(
        &self,
        registry: embedded::Server,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let (Some(authority), Some(address)) = (&self.authority, self.membership.listen) else {
            bail!("this node is not the mesh's manager");
        };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("the mesh's registry cannot listen on {address}, as `nuncio init` was told")
        })?;
        tracing::info!(%address, mesh = %self.membership.mesh, "serving the registry to members of the mesh");
        let (connections, incoming) = mpsc::channel(WAITING);
        let door = door::Door {
            membership: self.membership.clone(),
            authority: authority.clone(),
            credentials: self.credentials.clone(),
        };
        tokio::spawn(door.keep(listener, connections, stop.clone()));
        tokio::spawn(registry.serve(address, incoming, stop.clone()));
        Ok(())
    }
}

/// Connects to the registry as who has the `credentials` at the time, and to nobody but `manager`.
pub(crate) fn dialer(
    manager: String,
    credentials: impl Fn() -> io::Result<Arc<Credentials>> + Send + Sync + 'static,
) -> Dialer {
    Dialer::new(move |address| {
        let tls = credentials().and_then(|shown| tls_with(shown, TlsSide::Originate, &manager));
        async move {
            let mut config = tls?.client_config().map_err(io::Error::other)?;
            config.alpn_protocols = vec![HTTP2.to_vec()];
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let connector = TlsConnector::from(Arc::new(config));
            // An address is not sent, and nothing is made of it: the identity is what counts.
            connector
                .connect(ServerName::from(address.ip()), stream)
                .await
        }
    })
}

/// The credentials that a home holds.
pub(crate) fn load(home: &Home) -> anyhow::Result<Arc<Credentials>> {
    let (identity, authority) = home.credentials()?;
    Ok(Arc::new(Credentials::from_pem(
        &identity, &identity, &authority,
    )?))
}

/// What is shown and who is trusted in one handshake.
fn tls(current: &Current, side: TlsSide, allow: &str) -> io::Result<Tls> {
    tls_with(now(current)?, side, allow)
}

fn now(current: &Current) -> io::Result<Arc<Credentials>> {
    let credentials = current.borrow().clone();
    credentials.ok_or_else(|| {
        io::Error::other("this node's certificate is out of date, and could not be renewed yet")
    })
}

fn tls_with(credentials: Arc<Credentials>, side: TlsSide, allow: &str) -> io::Result<Tls> {
    Ok(Tls {
        side,
        credentials: watch::channel(credentials).1,
        server_name: None,
        allow: Arc::new([allow.parse().map_err(io::Error::other)?]),
    })
}

/// Has the certificate renewed at half of its life, and tries again until it is.
async fn renew(
    mut home: Home,
    authority: Option<Arc<Authority>>,
    sender: watch::Sender<Option<Arc<Credentials>>>,
) {
    /// The clock is looked at this often, for it may be set.
    const LOOK: Duration = Duration::from_secs(60);
    const FIRST_RETRY: Duration = Duration::from_secs(1);
    let mut retry = FIRST_RETRY;
    loop {
        let due = home.renewal();
        if !due.is_zero() && sender.borrow().is_some() {
            tokio::time::sleep(due.min(LOOK)).await;
            continue;
        }
        let renewed = async {
            home.renew(authority.as_deref()).await?;
            load(&home)
        };
        match renewed.await {
            Ok(credentials) => {
                tracing::info!(identity = %credentials.identity(), "this node's certificate is renewed");
                sender.send_replace(Some(credentials));
                retry = FIRST_RETRY;
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, again = ?retry, "renew this node's certificate");
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LOOK);
            }
        }
    }
}
