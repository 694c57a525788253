//! Which upstream a newcomer gets, and what becomes of it when upstreams change.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{EndpointSet, Forward, Protocol, RelayMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

mod support;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_endpoint_takes_what_one_refuses() -> Result<()> {
    let (_held, refusing) = refusing("127.0.0.1:0")?;
    let answering = naming_server(b'a').await?;
    let (_ambassador, local) = running(tcp("retry", &[refusing, answering])).await?;
    for _ in 0..20 {
        ensure!(who(local).await?.0 == b'a');
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_swallows_the_syn_leaves_time_for_another() -> Result<()> {
    // A full backlog drops SYNs.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>()?.into())?;
    full.listen(0)?;
    let swallowing = full.local_addr()?.as_socket().expect("an IP address");
    let mut fillers = Vec::new();
    let pause = Duration::from_millis(200);
    while let Ok(filler) = tokio::time::timeout(pause, TcpStream::connect(swallowing)).await {
        fillers.push(filler?);
    }
    let answering = naming_server(b'a').await?;
    let forward = limited(tcp("slow", &[swallowing, answering]), |limits| {
        limits.connect_timeout = Duration::from_secs(1);
    });
    let (_ambassador, local) = running(forward).await?;
    for _ in 0..4 {
        ensure!(who(local).await?.0 == b'a');
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_endpoint_is_used_again() -> Result<()> {
    let (held, address) = refusing("127.0.0.1:0")?;
    let other = naming_server(b'b').await?;
    let (_ambassador, local) = running(tcp("back", &[address, other])).await?;
    // Until it was tried once, and ejected.
    for _ in 0..10 {
        ensure!(who(local).await?.0 == b'b');
    }
    held.listen(16)?;
    held.set_nonblocking(true)?;
    let listener = TcpListener::from_std(held.into())?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"a").await;
        }
    });
    soon(async {
        while who(local).await?.0 != b'a' {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_set_is_for_newcomers() -> Result<()> {
    let (first, second) = (naming_server(b'a').await?, naming_server(b'b').await?);
    let set = live(&[first]);
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let (ambassador, local) = running(Forward::new("live", listen, set.subscribe())).await?;
    let (name, mut old) = who(local).await?;
    ensure!(name == b'a');
    set.send_replace(Arc::new(EndpointSet::known(vec![second])));
    soon(async {
        while who(local).await?.0 != b'b' {}
        anyhow::Ok(())
    })
    .await??;
    // Discovery that loses everything is no news.
    set.send_replace(Arc::new(EndpointSet::known(Vec::new())));
    tokio::task::yield_now().await;
    ensure!(who(local).await?.0 == b'b');
    // The old flow goes on, and ends as its peers want.
    old.shutdown().await?;
    ensure!(soon(old.read(&mut [0])).await?? == 0);
    until("all have ended", || ambassador.flows().is_empty()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_are_held_until_discovery_answers() -> Result<()> {
    let set = watch::channel(Arc::new(EndpointSet::default())).0;
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let (_ambassador, local) = running(Forward::new("held", listen, set.subscribe())).await?;
    let mut early = TcpStream::connect(local).await?;
    early.write_all(b"hello").await?;
    let nothing = tokio::time::timeout(Duration::from_millis(100), early.read_u8()).await;
    ensure!(nothing.is_err(), "held, not refused");
    set.send_replace(Arc::new(EndpointSet::known(vec![
        naming_server(b'a').await?,
    ])));
    ensure!(soon(early.read_u8()).await?? == b'a');
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_not_held_for_ever() -> Result<()> {
    let set = watch::channel(Arc::new(EndpointSet::default())).0;
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let options = nuncio_ambassador::Options {
        hold: Duration::from_millis(50),
        ..Default::default()
    };
    let forward = Forward::new("held", listen, set.subscribe());
    let (_ambassador, local) = running_with(options, forward).await?;
    let mut early = TcpStream::connect(local).await?;
    let end = soon(early.read_u8()).await?;
    let end = end.err().map(|error| error.kind());
    ensure!(end == Some(std::io::ErrorKind::ConnectionReset), "{end:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomers_beyond_the_bound_wait() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let forward = limited(tcp("bounded", &[upstream]), |limits| {
        limits.max_connections = 2;
    });
    let (ambassador, local) = running(forward).await?;
    let (_, mut first) = who(local).await?;
    let _second = who(local).await?;
    let mut third = TcpStream::connect(local).await?;
    let waits = tokio::time::timeout(Duration::from_millis(100), third.read_u8()).await;
    ensure!(waits.is_err() && ambassador.flows().len() == 2);
    first.shutdown().await?;
    ensure!(soon(third.read_u8()).await?? == b'a');
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_flows_are_all_alive() -> Result<()> {
    // Each has four descriptors in this process.
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.0;
    let many = usize::try_from(limit / 5)?.min(2_000);
    let upstream = naming_server(b'a').await?;
    let forward = limited(tcp("many", &[upstream]), |limits| {
        limits.mode = RelayMode::Splice;
    });
    let (ambassador, local) = running(forward).await?;
    let mut flows = Vec::new();
    for _ in 0..many {
        flows.push(who(local).await?.1);
    }
    ensure!(
        ambassador.flows().len() == many,
        "{}",
        ambassador.flows().len()
    );
    for flow in &mut flows {
        flow.shutdown().await?;
    }
    for flow in &mut flows {
        ensure!(soon(flow.read(&mut [0])).await?? == 0);
    }
    soon(ambassador.idle()).await
}
