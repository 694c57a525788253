//! A server to test against, on a free loopback port and a directory of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::Client;
use nuncio_registry::{ConnectOptions, Registry, embedded};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Embedded,
    Etcd,
    /// Three etcds that are one cluster.
    ThreeEtcds,
}

/// A server that can be taken down and brought back on the same port and data.
pub(crate) struct Backend {
    dir: TempDir,
    running: Running,
}

enum Running {
    Embedded {
        address: SocketAddr,
        served: Option<(CancellationToken, JoinHandle<()>)>,
    },
    Etcd(Cluster),
}

impl Backend {
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        let members = match kind {
            Kind::Embedded => 0,
            Kind::Etcd => 1,
            Kind::ThreeEtcds => 3,
        };
        let mut failure = None;
        for _ in 0..5 {
            let dir = tempfile::tempdir()?;
            let running = match members {
                0 => Running::Embedded {
                    address: (Ipv4Addr::LOCALHOST, 0).into(),
                    served: None,
                },
                count => Running::Etcd(Cluster::new(dir.path(), count)?),
            };
            let mut backend = Self { dir, running };
            match backend.up().await {
                Ok(()) => return Ok(backend),
                // Another test took a port between choosing and binding it.
                Err(error) if members > 0 && !missing(&error) => failure = Some(error),
                Err(error) => return Err(error),
            }
            backend.down().await;
        }
        Err(failure.context("no attempt")?).context("etcd does not start, in five attempts")
    }

    /// Starts on the data there is.
    pub(crate) async fn up(&mut self) -> Result<()> {
        match &mut self.running {
            Running::Embedded { address, served } => {
                let server = embedded::Server::open(self.dir.path())?;
                let bound = server.bind(*address).await?;
                *address = bound.local_addr();
                let stop = CancellationToken::new();
                *served = Some((stop.clone(), tokio::spawn(bound.serve(stop))));
            }
            Running::Etcd(cluster) => cluster.start()?,
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Running::Etcd(cluster) = &mut self.running {
                cluster.check()?;
            }
            match Registry::connect(&self.options()).await {
                Ok(_) => return Ok(()),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Takes it down: the embedded server by its token, etcd by SIGKILL.
    pub(crate) async fn down(&mut self) {
        match &mut self.running {
            Running::Embedded { served, .. } => {
                if let Some((stop, task)) = served.take() {
                    stop.cancel();
                    task.await.unwrap();
                }
            }
            Running::Etcd(cluster) => cluster.kill_all().await.unwrap(),
        }
    }

    /// Takes one member down and brings it back, `luck` says which: of one there is but that.
    pub(crate) async fn strike(&mut self, luck: usize) -> Result<()> {
        match &mut self.running {
            Running::Etcd(cluster) if cluster.len() > 1 => {
                let index = luck % cluster.len();
                cluster.kill(index).await?;
                // The others have to go on without it.
                let mut others = cluster.endpoints();
                others.remove(index);
                let options = ConnectOptions {
                    endpoints: others,
                    ..ConnectOptions::default()
                };
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while let Err(error) = Registry::connect(&options).await {
                    if tokio::time::Instant::now() > deadline {
                        bail!(error);
                    }
                }
                cluster.start_one(index)
            }
            _ => {
                self.down().await;
                self.up().await
            }
        }
    }

    fn endpoints(&self) -> Vec<String> {
        match &self.running {
            Running::Embedded { address, .. } => vec![format!("http://{address}")],
            Running::Etcd(cluster) => cluster.endpoints(),
        }
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            endpoints: self.endpoints(),
            ..ConnectOptions::default()
        }
    }

    pub(crate) async fn registry(&self) -> Result<Registry> {
        Ok(Registry::connect(&self.options()).await?)
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        const BEAT: Duration = Duration::from_secs(5);
        let options = etcd_client::ConnectOptions::new().with_keep_alive(BEAT, BEAT);
        Ok(Client::connect(self.endpoints(), Some(options)).await?)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Running::Embedded { served, .. } = &self.running
            && let Some((stop, _)) = served
        {
            stop.cancel();
        }
    }
}

fn missing(error: &anyhow::Error) -> bool {
    let not_found = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(not_found)
}

/// Waits for `what`, failing the test by name if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("waiting for {what}"))
}
