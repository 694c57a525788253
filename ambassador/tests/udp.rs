//! Datagrams find their way there and back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{Ambassador, Datapath, EndpointSet, Forward, Options, Protocol};
use tokio::net::UdpSocket;

mod support;
use support::*;

/// Sends each datagram back, with its name before it.
async fn echo(name: u8) -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let local = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = vec![name; 70_000];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer[1..]).await {
            let _ = socket.send_to(&buffer[..=bytes], from).await;
        }
    });
    Ok(local)
}

async fn client(to: SocketAddr) -> Result<UdpSocket> {
    let any = if to.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// A connected client takes replies only from the address it sent to.
async fn ask(client: &UdpSocket, question: &[u8]) -> Result<Vec<u8>> {
    client.send(question).await?;
    let mut answer = vec![0; 70_000];
    let bytes = soon(client.recv(&mut answer)).await??;
    answer.truncate(bytes);
    Ok(answer)
}

/// As [`ask`], again and again until an answer comes: datagrams may be lost, as the one that
/// learns of a refusal is.
async fn ask_until(client: &UdpSocket, expected: &[u8]) -> Result<()> {
    let mut answer = [0; 100];
    soon(async {
        loop {
            let _ = client.send(b"?").await;
            let pause = Duration::from_millis(20);
            if let Ok(Ok(bytes)) = tokio::time::timeout(pause, client.recv(&mut answer)).await
                && &answer[..bytes] == expected
            {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_a_session() -> Result<()> {
    let (ambassador, local) = running(udp("echo", &[echo(b'a').await?])).await?;
    let clients = [
        client(local).await?,
        client(local).await?,
        client(local).await?,
    ];
    for (number, client) in clients.iter().enumerate() {
        let question = noise(number as u64, 1_000 * number);
        for _ in 0..3 {
            let answer = ask(client, &question).await?;
            ensure!(answer[0] == b'a' && answer[1..] == question);
        }
    }
    let flows = ambassador.flows();
    ensure!(flows.len() == 3);
    ensure!(flows.iter().all(|flow| flow.datapath == Datapath::Udp));
    until("all is counted", || {
        let flow = &ambassador.flows()[2];
        (flow.bytes_in, flow.bytes_out) == (6_000, 6_003)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_datagram_passes() -> Result<()> {
    let (_ambassador, local) = running(udp("large", &[echo(b'a').await?])).await?;
    let question = noise(1, 65_506);
    let answer = ask(&client(local).await?, &question).await?;
    ensure!(answer[1..] == question);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_from_the_address_that_was_asked() -> Result<()> {
    let upstream = echo(b'a').await?;
    for any in ["0.0.0.0:0", "[::]:0"] {
        let fixed = EndpointSet::fixed(vec![upstream]);
        let forward = Forward::new("any", listen(Protocol::Udp, any), fixed);
        let (ambassador, local) = running(forward).await?;
        let mut addresses: Vec<IpAddr> = vec!["127.0.0.1".parse()?, "127.0.0.2".parse()?];
        if local.is_ipv6() {
            addresses.push("::1".parse()?);
        }
        for address in &addresses {
            let client = client((*address, local.port()).into()).await?;
            ensure!(ask(&client, b"?").await? == b"a?", "{address}");
        }
        ensure!(ambassador.flows().len() == addresses.len());
        let mapped =
            |flow: &nuncio_ambassador::Flow| flow.client.ip() != flow.client.ip().to_canonical();
        ensure!(!ambassador.flows().iter().any(mapped));
    }
    // One client, two local addresses: two sessions.
    let fixed = EndpointSet::fixed(vec![upstream]);
    let forward = Forward::new("two", listen(Protocol::Udp, "0.0.0.0:0"), fixed);
    let (ambassador, local) = running(forward).await?;
    let client = UdpSocket::bind("127.0.0.1:0").await?;
    for address in ["127.0.0.2", "127.0.0.3"] {
        let to = SocketAddr::new(address.parse()?, local.port());
        client.send_to(b"?", to).await?;
        let (_, from) = soon(client.recv_from(&mut [0; 10])).await??;
        ensure!(from == to, "{from} answers for {to}");
    }
    ensure!(ambassador.flows().len() == 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_used_least_recently_makes_room() -> Result<()> {
    let forward = limited(udp("bounded", &[echo(b'a').await?]), |limits| {
        limits.max_connections = 2;
    });
    let (ambassador, local) = running(forward).await?;
    let (a, b, c) = (
        client(local).await?,
        client(local).await?,
        client(local).await?,
    );
    for client in [&a, &b, &a, &c] {
        ask(client, b"?").await?;
    }
    let alive = |clients: [&UdpSocket; 2]| {
        let wanted: Vec<_> = clients
            .iter()
            .map(|client| client.local_addr().ok())
            .collect();
        let flows = ambassador.flows();
        flows.len() == 2 && flows.iter().all(|flow| wanted.contains(&Some(flow.client)))
    };
    until("b has gone, a and c are left", || alive([&a, &c])).await?;
    ask(&b, b"?").await?;
    until("a has gone, c and b are left", || alive([&c, &b])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_stay_within_the_bound() -> Result<()> {
    let forward = limited(udp("flood", &[echo(b'a').await?]), |limits| {
        limits.max_connections = 50;
    });
    let (ambassador, local) = running(forward).await?;
    for _ in 0..1_000 {
        let client = client(local).await?;
        ensure!(ask(&client, b"?").await? == b"a?");
    }
    until("the evicted have gone", || ambassador.flows().len() == 50).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_session_but_either_direction_keeps_it() -> Result<()> {
    let upstream = UdpSocket::bind("127.0.0.1:0").await?;
    let forward = limited(udp("idle", &[upstream.local_addr()?]), |limits| {
        limits.idle = Duration::from_millis(400);
    });
    let (ambassador, local) = running(forward).await?;
    let client = client(local).await?;
    client.send(b"subscribe").await?;
    let (_, session) = soon(upstream.recv_from(&mut [0; 20])).await??;
    let first = only(&ambassador)?.id;
    // A stream one way, three times as long as silence may last.
    for _ in 0..24 {
        upstream.send_to(b"news", session).await?;
        soon(client.recv(&mut [0; 20])).await??;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(only(&ambassador)?.id == first, "kept by what comes back");
    for _ in 0..24 {
        client.send(b"report").await?;
        soon(upstream.recv(&mut [0; 20])).await??;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(
        only(&ambassador)?.id == first,
        "kept by what the client sends"
    );
    until("silence has ended it", || ambassador.flows().is_empty()).await
}

/// A client that only listens is not the first to go when sessions are short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_back_is_spared_by_newcomers() -> Result<()> {
    let upstream = UdpSocket::bind("127.0.0.1:0").await?;
    let forward = limited(udp("stream", &[upstream.local_addr()?]), |limits| {
        limits.max_connections = 4;
    });
    let (ambassador, local) = running(forward).await?;
    let listener = client(local).await?;
    listener.send(b"subscribe").await?;
    let (_, session) = soon(upstream.recv_from(&mut [0; 20])).await??;
    let first = only(&ambassador)?.id;
    let begun = std::time::Instant::now();
    let mut others = Vec::new();
    // Longer than an answer would take.
    while begun.elapsed() < Duration::from_secs(3) {
        upstream.send_to(b"news", session).await?;
        soon(listener.recv(&mut [0; 20])).await??;
        if begun.elapsed() > Duration::from_secs(2) {
            let newcomer = client(local).await?;
            newcomer.send(b"?").await?;
            soon(upstream.recv(&mut [0; 20])).await??;
            others.push(newcomer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(others.len() > 4, "more than there is room for");
    ensure!(ambassador.flows().iter().any(|flow| flow.id == first));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_finds_the_same_endpoint_everywhere() -> Result<()> {
    let names = *b"abcde";
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(echo(name).await?);
    }
    let (_one, first) = running(udp("one", &upstreams)).await?;
    upstreams.reverse();
    let (_other, second) = running(udp("other", &upstreams)).await?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let client = UdpSocket::bind("127.0.0.1:0").await?;
        client.connect(first).await?;
        let answer = ask(&client, b"?").await?;
        client.connect(second).await?;
        ensure!(ask(&client, b"?").await? == answer);
        seen.insert(answer);
    }
    // That 40 clients leave one of five out happens once in 1,500 times, all but one never.
    ensure!(seen.len() > 1, "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_ends_the_session_and_another_endpoint_is_chosen() -> Result<()> {
    let gone = UdpSocket::bind("127.0.0.1:0").await?;
    let refusing = gone.local_addr()?;
    drop(gone);
    let (_ambassador, local) = running(udp("two", &[refusing, echo(b'b').await?])).await?;
    for _ in 0..8 {
        ask_until(&client(local).await?, b"b?").await?;
    }
    let (ambassador, local) = running(udp("one", &[refusing])).await?;
    let client = client(local).await?;
    client.send(b"?").await?;
    until("the session has ended", || ambassador.flows().is_empty()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_choose_again_when_their_endpoint_leaves() -> Result<()> {
    let (first, second) = (echo(b'a').await?, echo(b'b').await?);
    let set = live(&[first]);
    let listen = listen(Protocol::Udp, "127.0.0.1:0");
    let (_ambassador, local) = running(Forward::new("live", listen, set.subscribe())).await?;
    let client = client(local).await?;
    ensure!(ask(&client, b"?").await? == b"a?");
    set.send_replace(Arc::new(EndpointSet::known(vec![second])));
    ask_until(&client, b"b?").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_their_forward_but_take_no_newcomers() -> Result<()> {
    let upstream = echo(b'a').await?;
    let free = UdpSocket::bind("127.0.0.1:0").await?.local_addr()?;
    let listen = listen(Protocol::Udp, &free.to_string());
    let forward = Forward::new("goes", listen, EndpointSet::fixed(vec![upstream]));
    let ambassador = Ambassador::new(Options::default());
    ambassador.apply(vec![forward.clone()]).await?;
    let (old, new) = (client(free).await?, client(free).await?);
    ask(&old, b"?").await?;
    ambassador.apply(Vec::new()).await?;
    new.send(b"?").await?;
    ensure!(ask(&old, b"still").await? == b"astill");
    ensure!(ambassador.flows().len() == 1);
    // The address can be had again at once.
    ambassador.apply(vec![forward]).await?;
    ask_until(&new, b"a?").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_are_held_until_discovery_answers() -> Result<()> {
    let set = tokio::sync::watch::channel(Arc::new(EndpointSet::default())).0;
    let listen = listen(Protocol::Udp, "127.0.0.1:0");
    let (_ambassador, local) = running(Forward::new("held", listen, set.subscribe())).await?;
    let client = client(local).await?;
    client.send(b"early").await?;
    set.send_replace(Arc::new(EndpointSet::known(vec![echo(b'a').await?])));
    let mut answer = [0; 10];
    let bytes = soon(client.recv(&mut answer)).await??;
    ensure!(&answer[..bytes] == b"aearly");
    Ok(())
}
