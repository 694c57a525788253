//! Several workers behind one port behave as one listener.

use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, EndpointSet, Forward, Options, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

fn workers(workers: usize) -> Options {
    Options {
        workers,
        ..Options::default()
    }
}

fn at(name: &str, address: SocketAddr, upstream: SocketAddr) -> Forward {
    let listen = listen(Protocol::Tcp, &address.to_string());
    Forward::new(name, listen, EndpointSet::fixed(vec![upstream]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_not_shared_with_strangers() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    for shares in [false, true] {
        let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        stranger.set_reuse_address(true)?;
        stranger.set_reuse_port(shares)?;
        stranger.bind(&"127.0.0.1:0".parse::<SocketAddr>()?.into())?;
        stranger.listen(1)?;
        let taken = stranger.local_addr()?.as_socket().context("an address")?;
        let ambassador = Ambassador::new(workers(4));
        let refused = ambassador.apply(vec![at("a", taken, upstream)]).await;
        let error = refused.err().context("refused")?;
        ensure!(error.kind() == "address-in-use", "{error}");
    }
    // Two ambassadors are strangers to each other too.
    let (_first, local) = running_with(workers(4), tcp("a", &[upstream])).await?;
    let second = Ambassador::new(workers(4));
    let refused = second.apply(vec![at("a", local, upstream)]).await;
    ensure!(refused.is_err_and(|error| error.kind() == "address-in-use"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_is_swapped_for_another_that_overlaps() -> Result<()> {
    let (first, second) = (naming_server(b'a').await?, naming_server(b'b').await?);
    let ambassador = Ambassador::new(workers(2));
    ambassador.apply(vec![tcp("one", &[first])]).await?;
    let one = local(&ambassador, 0);
    let any = SocketAddr::from(([0, 0, 0, 0], one.port()));
    let other = SocketAddr::from(([127, 0, 0, 2], one.port()));
    let (_, mut held) = who(one).await?;

    ambassador.apply(vec![at("one", one, first)]).await?;
    ambassador.apply(vec![at("any", any, second)]).await?;
    ensure!(who(one).await?.0 == b'b' && who(other).await?.0 == b'b');
    ambassador.apply(vec![at("one", one, first)]).await?;
    ensure!(who(one).await?.0 == b'a');
    ensure!(TcpStream::connect(other).await.is_err(), "closed on return");

    // Beside one that stays, too, which is the more exact.
    let both = vec![at("one", one, first), at("any", any, second)];
    ambassador.apply(both).await?;
    ensure!(who(one).await?.0 == b'a' && who(other).await?.0 == b'b');
    tokio::io::AsyncWriteExt::shutdown(&mut held).await?;
    ensure!(soon(held.read(&mut [0])).await?? == 0, "not a reset");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_served_although_the_listener_closes() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let ambassador = Ambassador::new(workers(2));
    for _ in 0..20 {
        ambassador.apply(vec![tcp("closes", &[upstream])]).await?;
        let local = local(&ambassador, 0);
        // Each is in the backlog when its connect returns; some are accepted by then.
        let clients = (0..40).map(|_| std::net::TcpStream::connect(local));
        let clients = clients.collect::<Result<Vec<_>, _>>()?;
        ambassador.apply(Vec::new()).await?;
        for mut client in clients {
            client.set_read_timeout(Some(PATIENCE))?;
            let mut name = [0];
            client.read_exact(&mut name)?;
            ensure!(name == [b'a']);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_is_that_of_all_workers_together() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let forward = limited(tcp("bounded", &[upstream]), |l| l.max_connections = 3);
    let (ambassador, local) = running_with(workers(4), forward).await?;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(TcpStream::connect(local).await?);
    }
    let mut served = 0;
    while !clients.is_empty() {
        until("the bound is reached", || {
            ambassador.flows().len() == 3.min(clients.len())
        })
        .await?;
        // One of those that were let in leaves, and makes room for one that waits.
        let (name, client) = soon(first_named(&mut clients)).await??;
        ensure!(name == b'a');
        drop(client);
        served += 1;
        ensure!(ambassador.flows().len() <= 3);
    }
    ensure!(served == 12);
    Ok(())
}

/// The first of `clients` that its server has greeted.
async fn first_named(clients: &mut Vec<TcpStream>) -> Result<(u8, TcpStream)> {
    loop {
        for index in 0..clients.len() {
            let mut name = [0];
            if clients[index]
                .try_read(&mut name)
                .is_ok_and(|read| read == 1)
            {
                return Ok((name[0], clients.swap_remove(index)));
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_it_ends_the_flows_of_all_workers() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let (ambassador, local) =
        running_with(workers(4), tcp("many", &[upstream.local_addr()?])).await?;
    let mut ends = Vec::new();
    for _ in 0..64 {
        let client = TcpStream::connect(local).await?;
        ends.push((client, soon(upstream.accept()).await??));
    }
    until("all are open", || ambassador.flows().len() == 64).await?;
    drop(ambassador);
    for (mut client, _) in ends {
        let end = soon(client.read(&mut [0])).await?;
        let kind = end.err().map(|error| error.kind());
        ensure!(
            kind == Some(std::io::ErrorKind::ConnectionReset),
            "{kind:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_that_lasts_has_keepalive_on_both_sides() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let (upstream_port, forward) = {
        let address = upstream.local_addr()?;
        (address.port(), tcp("lasts", &[address]))
    };
    let (_ambassador, local) = running_with(workers(1), forward).await?;
    let client = TcpStream::connect(local).await?;
    let (server, peer) = soon(upstream.accept()).await??;
    // Nothing is ever sent: no event of the flow helps.
    let client_port = client.local_addr()?.port();
    until("both are watched", || {
        has_keepalive(local.port(), client_port) && has_keepalive(peer.port(), upstream_port)
    })
    .await?;
    drop((client, server));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_given_up_in_time() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let options = Options {
        user_timeout: Duration::from_secs(1),
        ..workers(1)
    };
    let forward = tcp("stalls", &[upstream.local_addr()?]);
    let (ambassador, local) = running_with(options, forward).await?;
    let mut client = TcpStream::connect(local).await?;
    let (server, _) = soon(upstream.accept()).await??;
    let bytes = noise(1, 1 << 20);
    // Until there is no room left on the way, and then until it is over.
    soon(async { while client.write_all(&bytes).await.is_ok() {} }).await?;
    until("the flow has ended", || ambassador.flows().is_empty()).await?;
    drop(server);
    Ok(())
}

/// Whether the kernel's keepalive timer runs for the socket between these ports.
fn has_keepalive(local: u16, remote: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let port = |address: &str| {
        let (_, port) = address.split_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.len() > 5
            && port(fields[1]) == Some(local)
            && port(fields[2]) == Some(remote)
            && fields[5].starts_with("02:")
    })
}
