//! A server to test against, on a free loopback port and a directory of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::Client;
use nuncio_registry::{ConnectOptions, Registry, embedded};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Embedded,
    Etcd,
}

/// A server that can be taken down and brought back on the same port and data.
pub(crate) struct Backend {
    kind: Kind,
    dir: TempDir,
    address: SocketAddr,
    running: Running,
}

enum Running {
    Embedded {
        stop: CancellationToken,
        task: JoinHandle<()>,
    },
    Etcd(Child),
    Down,
}

impl Backend {
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut backend = Self {
            kind,
            dir,
            address,
            running: Running::Down,
        };
        for _ in 0..5 {
            backend
                .address
                .set_port(if kind == Kind::Etcd { free_port()? } else { 0 });
            match backend.up().await {
                Ok(()) => return Ok(backend),
                // Another test took the port between choosing and binding it.
                Err(error) if kind == Kind::Etcd && !missing(&error) => backend.down().await,
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for etcd in five attempts")
    }

    /// Starts on the data there is.
    pub(crate) async fn up(&mut self) -> Result<()> {
        self.running = match self.kind {
            Kind::Embedded => {
                let server = embedded::Server::open(self.dir.path())?;
                let bound = server.bind(self.address).await?;
                self.address = bound.local_addr();
                let stop = CancellationToken::new();
                let task = tokio::spawn(bound.serve(stop.clone()));
                Running::Embedded { stop, task }
            }
            Kind::Etcd => Running::Etcd(self.spawn_etcd()?),
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Running::Etcd(child) = &mut self.running
                && let Some(status) = child.try_wait()?
            {
                bail!("etcd exited with {status}");
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
        match std::mem::replace(&mut self.running, Running::Down) {
            Running::Embedded { stop, task } => {
                stop.cancel();
                task.await.unwrap();
            }
            Running::Etcd(mut child) => child.kill().await.unwrap(),
            Running::Down => {}
        }
    }

    fn spawn_etcd(&self) -> Result<Child> {
        let client = format!("http://{}", self.address);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        Command::new("etcd")
            .arg("--data-dir")
            .arg(self.dir.path().join("data")) // etcd makes it, and private
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("default={peer}"),
                "--logger",
                "zap",
            ])
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start etcd: install it with `apt-get install etcd-server`")
    }

    pub(crate) fn options(&self) -> ConnectOptions {
        let endpoints = vec![format!("http://{}", self.address)];
        ConnectOptions {
            endpoints,
            ..ConnectOptions::default()
        }
    }

    pub(crate) async fn registry(&self) -> Result<Registry> {
        Ok(Registry::connect(&self.options()).await?)
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client::connect([format!("http://{}", self.address)], None).await?)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Running::Embedded { stop, .. } = &self.running {
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

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Waits for `what`, failing the test by name if it does not come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, future)
        .await
        .with_context(|| format!("waiting for {what}"))
}
