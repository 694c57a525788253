//! What is asked of the embedded server alone: it survives SIGKILL, and etcdctl works on it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod disk;
mod etcdctl;
mod rights;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command as Blocking;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Client, Compare, CompareOp, Error, Txn};
use nuncio_registry::embedded::{OpenError, Server};
use nuncio_registry::{ConnectError, ConnectOptions, Registry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A server in this process, stopped when dropped.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(dir: &Path) -> Result<Self> {
        let bound = Server::open(dir)?.bind(loopback()).await?;
        let (address, stop) = (bound.local_addr(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_open_is_refused_until_the_first_is_closed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    // A client that stays connected must not keep the file open after the stop.
    let mut client = Client::connect([server.address.to_string()], None).await?;
    let mut watch = client.watch("k", None).await?;
    watch.message().await?;
    match Server::open(dir.path()) {
        Err(OpenError::InUse { path }) => assert_eq!(path, dir.path().join("registry.redb")),
        Err(other) => bail!(other),
        Ok(_) => bail!("it was opened twice"),
    }
    server.stop().await?;
    Served::start(dir.path()).await?.stop().await
}

/// A process that was killed as it made the store has not kept the next one from making it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_half_made_is_made_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let draft = dir.path().join(".new-registry.redb");
    std::fs::write(&draft, vec![0; 1 << 20])?;
    Served::start(dir.path()).await?.stop().await?;
    assert!(!draft.exists());
    Served::start(dir.path()).await?.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_file_is_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("registry.redb");
    std::fs::write(
        &path,
        "somebody else's file, and long enough to be looked at".repeat(200),
    )?;
    let before = std::fs::read(&path)?;
    assert!(matches!(
        Server::open(dir.path()),
        Err(OpenError::Store { .. })
    ));
    assert_eq!(std::fs::read(&path)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_large_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let mut client = Client::connect([server.address.to_string()], None).await?;
    match client.put("k", vec![0; 3 << 19], None).await.unwrap_err() {
        Error::GRpcStatus(status) => {
            assert_eq!(status.message(), "etcdserver: request is too large");
            assert_eq!(i32::from(status.code()), 3);
        }
        other => bail!("{other:?}"),
    }
    assert!(client.put("k", vec![0; 8 << 20], None).await.is_err());
    client.put("k", vec![0; 1 << 20], None).await?;
    let found = Compare::version("k", CompareOp::Equal, 1);
    assert!(client.txn(Txn::new().when([found])).await?.succeeded());
    server.stop().await
}

#[tokio::test]
async fn an_unreachable_registry_is_named_with_its_error() -> Result<()> {
    let listener = std::net::TcpListener::bind(loopback())?;
    let free = listener.local_addr()?;
    drop(listener);
    let options = |endpoint: String| ConnectOptions {
        endpoints: vec![endpoint],
        timeout: Duration::from_millis(500),
        ..ConnectOptions::default()
    };
    let error = Registry::connect(&options(format!("http://{free}")))
        .await
        .unwrap_err();
    let expected = format!("no registry at http://{free}: Connection refused (os error 111)");
    assert_eq!(error.to_string(), expected);

    // Somebody who accepts and never says anything.
    let mute = std::net::TcpListener::bind(loopback())?;
    let error = Registry::connect(&options(mute.local_addr()?.to_string()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NoRegistry { .. }),
        "{error:?}"
    );

    let error = Registry::connect(&options("10.0.0.1".to_owned()))
        .await
        .unwrap_err();
    let expected = "registry endpoint \"10.0.0.1\" is not of the form http://HOST:PORT";
    assert_eq!(error.to_string(), expected);
    Ok(())
}

#[test]
fn the_example_runs() -> Result<()> {
    let target = std::env::current_exe()?; // target/debug/deps/embedded-…
    let built = target
        .ancestors()
        .nth(2)
        .context("target directory")?
        .join("examples/discover");
    let output = Blocking::new(&built)
        .output()
        .with_context(|| format!("run {}: `cargo build --examples` makes it", built.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(text.contains("redis answers at 10.0.0.2:6379"), "{text}");
    Ok(())
}
