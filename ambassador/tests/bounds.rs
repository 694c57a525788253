//! How many may come, wait and be tried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{EndpointSet, EndpointState, Forward, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

mod support;
use support::*;

/// Comes, and returns who has answered, or none if it was reset.
async fn come(local: SocketAddr) -> Result<Option<u8>> {
    // The reset may be there before the connection is looked at.
    match soon(async { TcpStream::connect(local).await?.read_u8().await }).await? {
        Ok(name) => Ok(Some(name)),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_beyond_the_queue_are_refused() -> Result<()> {
    let set = watch::channel(Arc::new(EndpointSet::default())).0;
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let forward = limited(Forward::new("queue", listen, set.subscribe()), |limits| {
        limits.max_pending = 2;
    });
    let (_ambassador, local) = running(forward).await?;
    // Whichever of them it is that comes last.
    let three = (0..3).map(|_| tokio::spawn(come(local)));
    let (first, _, waiting) = soon(futures_util::future::select_all(three)).await?;
    ensure!(first??.is_none(), "refused");
    let known = EndpointSet::known(vec![naming_server(b'a').await?]);
    set.send_replace(Arc::new(known));
    for comer in waiting {
        ensure!(soon(comer).await??? == Some(b'a'));
    }
    // Who is connected waits no more.
    ensure!(who(local).await?.0 == b'a');
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_endpoints_are_full_newcomers_wait() -> Result<()> {
    let servers = [naming_server(b'a').await?, naming_server(b'b').await?];
    let forward = limited(tcp("full", &servers), |limits| limits.max_per_endpoint = 1);
    let (ambassador, local) = running(forward).await?;
    let (first, mut held) = who(local).await?;
    let (second, _second) = who(local).await?;
    ensure!(first != second, "both have one");
    let full = |view: &nuncio_ambassador::EndpointView| view.state == EndpointState::Full;
    ensure!(ambassador.endpoints()[0].1.iter().all(full));
    let mut third = TcpStream::connect(local).await?;
    let waits = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
    ensure!(waits.is_err() && ambassador.flows().len() == 2);
    held.shutdown().await?;
    ensure!(
        soon(third.read_u8()).await?? == first,
        "the one that was freed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_wait_no_longer_than_for_a_connection() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let forward = limited(tcp("full", &[upstream]), |limits| {
        limits.max_per_endpoint = 1;
        limits.connect_timeout = Duration::from_millis(500);
    });
    let (_ambassador, local) = running(forward).await?;
    let (_, mut held) = who(local).await?;
    ensure!(come(local).await?.is_none());
    held.shutdown().await?;
    ensure!(soon(held.read(&mut [0])).await?? == 0);
    ensure!(who(local).await?.0 == b'a');
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_retries_a_failure_is_passed_on() -> Result<()> {
    let (_held, refusing) = refusing("127.0.0.1:0")?;
    let answering = naming_server(b'a').await?;
    for retries in [0, 1] {
        let forward = limited(tcp("once", &[refusing, answering]), |limits| {
            limits.retries = retries;
        });
        let (ambassador, local) = running(forward).await?;
        let failures = || {
            ambassador.endpoints()[0]
                .1
                .iter()
                .any(|view| view.failures > 0)
        };
        let mut refused = 0;
        soon(async {
            while !failures() {
                refused += usize::from(come(local).await?.is_none());
            }
            anyhow::Ok(())
        })
        .await??;
        ensure!(
            refused == usize::from(retries == 0),
            "{refused} with {retries} retries"
        );
    }
    Ok(())
}
