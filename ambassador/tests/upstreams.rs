//! Which upstream a newcomer gets, and what becomes of it when upstreams change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{
    Ambassador, Control, EndpointSet, EndpointState, Forward, Options, Policy, Protocol, RelayMode,
    Resolver, spec,
};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_of_a_file_are_kept() -> Result<()> {
    let (heavy, light) = (naming_server(b'h').await?, naming_server(b'l').await?);
    let text = format!(
        "[[forward]]\nlisten = 'tcp://127.0.0.1:0'\nbalance = 'round_robin'\nto = ['{heavy} weight=3', '{light}']"
    );
    let control = Control::new(
        Arc::new(Ambassador::new(Options::default())),
        Resolver::new(),
    );
    let specs = spec::from_toml("f.toml".as_ref(), &text)?;
    control.put(specs).await?;
    let local = local(control.ambassador(), 0);
    let mut names = Vec::new();
    for _ in 0..8 {
        names.push(who(local).await?.0);
    }
    for four in names.chunks(4) {
        let heavy = four.iter().filter(|name| **name == b'h').count();
        ensure!(heavy == 3, "{}", names.escape_ascii());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_to_its_endpoint() -> Result<()> {
    let mut servers = Vec::new();
    for name in b'a'..=b'd' {
        servers.push(naming_server(name).await?);
    }
    let mut forward = tcp("hash", &servers);
    forward.balance.policy = Policy::SourceHash;
    let (_ambassador, local) = running(forward).await?;
    let mut names = std::collections::HashSet::new();
    for client in 1..=32 {
        let mut own = std::collections::HashSet::new();
        for _ in 0..3 {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(([127, 0, 0, client], 0).into())?;
            let mut stream = socket.connect(local).await?;
            own.insert(soon(stream.read_u8()).await??);
        }
        ensure!(own.len() == 1, "127.0.0.{client} got {own:?}");
        names.extend(own);
    }
    ensure!(names.len() == 4, "of four only {names:?} are used");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_endpoints_is_told() -> Result<()> {
    let (_held, refusing) = refusing("127.0.0.1:0")?;
    let answering = naming_server(b'a').await?;
    let mut forward = tcp("told", &[refusing, answering]);
    forward.balance.eject.first = Duration::from_secs(3600);
    forward.balance.eject.longest = Duration::from_secs(3600);
    let (ambassador, local) = running(forward).await?;
    let view = |address| {
        let (forward, views) = ambassador.endpoints().pop().expect("one forward");
        assert_eq!(forward, "told");
        let mut views = views.into_iter();
        views
            .find(|view| view.address == address)
            .expect("it is told of")
    };
    ensure!(view(refusing).last_failure.is_none() && view(refusing).usable);
    let mut held = Vec::new();
    soon(async {
        while view(refusing).failures == 0 {
            held.push(who(local).await?);
        }
        anyhow::Ok(())
    })
    .await??;
    let bad = view(refusing);
    ensure!(
        matches!(bad.state, EndpointState::Ejected { .. }) && !bad.usable,
        "{bad:?}"
    );
    let more = bad
        .ejected_until
        .expect("an end")
        .duration_since(std::time::SystemTime::now())?;
    ensure!((3500..=3600).contains(&more.as_secs()), "{more:?}");
    let failure = bad.last_failure.expect("a failure");
    ensure!(failure.error.contains("os error 111"), "{failure:?}");
    ensure!(failure.at >= bad.first_seen && bad.connect_time.is_none());
    let good = view(answering);
    ensure!(good.state == EndpointState::Up && good.usable, "{good:?}");
    ensure!(good.active == held.len() && good.failures == 0);
    ensure!(good.connect_time.is_some() && good.last_failure.is_none());
    Ok(())
}

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
