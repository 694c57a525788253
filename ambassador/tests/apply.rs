//! A configuration is applied as a whole, and touches only what it changes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{
    Ambassador, ApplyError, EndpointSet, Forward, Options, Protocol, PutError, Resolver,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_is_not_touched_and_what_goes_keeps_its_flows() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let ambassador = Ambassador::new(Options::default());
    let (stays, goes) = (tcp("stays", &[upstream]), tcp("goes", &[upstream]));
    ambassador.apply(vec![stays.clone(), goes]).await?;
    let (stays_at, goes_at) = (local(&ambassador, 0), local(&ambassador, 1));
    let (_, mut first) = who(stays_at).await?;
    let (_, mut second) = who(goes_at).await?;

    ambassador
        .apply(vec![tcp("new", &[upstream]), stays])
        .await?;
    let names: Vec<_> = ambassador.listeners().into_iter().map(|l| l.name).collect();
    ensure!(names == ["new", "stays"]);
    ensure!(local(&ambassador, 1) == stays_at, "the same socket");
    let refused = TcpStream::connect(goes_at)
        .await
        .err()
        .map(|error| error.kind());
    ensure!(
        refused == Some(std::io::ErrorKind::ConnectionRefused),
        "closed on return"
    );
    ensure!(who(local(&ambassador, 0)).await?.0 == b'a');

    for stream in [&mut first, &mut second] {
        stream.write_all(b"still here").await?;
        stream.shutdown().await?;
        ensure!(soon(stream.read(&mut [0])).await?? == 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_are_exchanged_under_a_live_listener() -> Result<()> {
    let (first, second) = (naming_server(b'a').await?, naming_server(b'b').await?);
    let (ambassador, local) = running(tcp("same", &[first])).await?;
    ensure!(who(local).await?.0 == b'a');
    ambassador.apply(vec![tcp("same", &[second])]).await?;
    ensure!(who(local).await?.0 == b'b', "known when apply returns");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_may_be_renamed_on_its_address() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let listen = listen(protocol, &free.to_string());
        let named = |name: &str| Forward::new(name, listen, EndpointSet::fixed(vec![upstream]));
        let ambassador = Ambassador::new(Options::default());
        ambassador.apply(vec![named("old")]).await?;
        ambassador.apply(vec![named("new")]).await?;
        ensure!(ambassador.listeners()[0].name == "new");
        if protocol == Protocol::Tcp {
            ensure!(who(free).await?.0 == b'a');
        }
        // Gone and come again at once.
        ambassador.apply(Vec::new()).await?;
        ambassador.apply(vec![named("again")]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_stands_beside_every_address() -> Result<()> {
    let (narrow, wide) = (naming_server(b'n').await?, naming_server(b'w').await?);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let at = |address: &str, upstream| {
            let address = format!("{address}:{port}");
            let listen = listen(protocol, &address);
            Forward::new(address, listen, EndpointSet::fixed(vec![upstream]))
        };
        let one = || at("127.0.0.2", narrow);
        let every = || at("0.0.0.0", wide);
        for (first, second) in [(one(), every()), (every(), one())] {
            let ambassador = Ambassador::new(Options::default());
            ambassador.apply(vec![first.clone()]).await?;
            ambassador
                .apply(vec![first.clone(), second.clone()])
                .await?;
            if protocol == Protocol::Tcp {
                ensure!(who(format!("127.0.0.2:{port}").parse()?).await?.0 == b'n');
                ensure!(who(format!("127.0.0.3:{port}").parse()?).await?.0 == b'w');
            }
            ambassador.apply(Vec::new()).await?;
            ambassador.apply(vec![first, second]).await?;
            let stranger = Ambassador::new(Options::default());
            let error = stranger.apply(vec![one()]).await.err().context("refused")?;
            ensure!(error.kind() == "address-in-use", "{error}");
            ambassador.apply(Vec::new()).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_listener_cannot_be_had_nothing_changes() -> Result<()> {
    let upstream = naming_server(b'a').await?;
    let (ambassador, before) = running(tcp("before", &[upstream])).await?;
    let other = TcpListener::bind("127.0.0.1:0").await?;
    let taken = other.local_addr()?.to_string();
    let cases = [
        (taken.as_str(), "address-in-use", "Address already in use"),
        ("192.0.2.1:80", "address-not-local", "Cannot assign"),
    ];
    for (address, kind, errno) in cases {
        let listen = listen(Protocol::Tcp, address);
        let wrong = Forward::new("wrong", listen, EndpointSet::fixed(vec![upstream]));
        let wanted = vec![tcp("fine", &[upstream]), wrong];
        let error = ambassador.apply(wanted).await.err().context("refused")?;
        ensure!(
            (error.kind(), error.forward()) == (kind, Some("wrong")),
            "{error}"
        );
        let chain = format!("{:#}", anyhow::Error::from(error));
        ensure!(
            chain.contains(&format!("tcp://{address}")) && chain.contains(errno),
            "{chain}"
        );
        ensure!(ambassador.listeners().len() == 1);
        ensure!(who(before).await?.0 == b'a');
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contradictions_are_refused() -> Result<()> {
    let upstream = "127.0.0.1:9".parse()?;
    let at = |name: &str, address: &str, to: &str| -> Result<Forward> {
        let upstreams = EndpointSet::fixed(vec![to.parse()?]);
        Ok(Forward::new(
            name,
            listen(Protocol::Tcp, address),
            upstreams,
        ))
    };
    let ambassador = Ambassador::new(Options::default());
    let names = vec![tcp("a", &[upstream]), tcp("a", &[upstream])];
    let error = ambassador.apply(names).await.err();
    ensure!(
        matches!(error, Some(ApplyError::DuplicateName { .. })),
        "{error:?}"
    );
    let listens = vec![
        at("a", "127.0.0.1:7009", "127.0.0.1:9")?,
        at("b", "127.0.0.1:7009", "127.0.0.1:9")?,
    ];
    let error = ambassador.apply(listens).await.err();
    ensure!(
        matches!(error, Some(ApplyError::DuplicateListen { .. })),
        "{error:?}"
    );
    let circle = vec![
        at("a", "127.0.0.1:7009", "127.0.0.2:7010")?,
        at("b", "0.0.0.0:7010", "127.0.0.1:7009")?,
    ];
    let error = ambassador.apply(circle).await.err().context("refused")?;
    ensure!(error.to_string().contains("a -> b -> a"), "{error}");
    ensure!(ambassador.listeners().is_empty() && !ambassador.is_ready());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_turns_out_to_be_the_listener_itself_is_left_out() -> Result<()> {
    let set = live(&["127.0.0.1:9".parse()?]);
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let (_ambassador, local) = running(Forward::new("self", listen, set.subscribe())).await?;
    let other = naming_server(b'a').await?;
    set.send_replace(std::sync::Arc::new(EndpointSet::known(vec![local, other])));
    soon(async { while who(local).await.is_err() {} }).await?;
    for _ in 0..10 {
        ensure!(who(local).await?.0 == b'a');
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_refuses_newcomers_and_waits_for_flows() -> Result<()> {
    let (ambassador, local) = running(tcp("drains", &[naming_server(b'a').await?])).await?;
    let (_, mut stream) = who(local).await?;
    ensure!(ambassador.is_ready());
    ensure!(
        ambassador.drain(Duration::from_millis(50)).await == 1,
        "one flow is left"
    );
    ensure!(!ambassador.is_ready());
    ensure!(TcpStream::connect(local).await.is_err());
    let end = async {
        stream.shutdown().await?;
        stream.read(&mut [0]).await
    };
    let (left, end) = tokio::join!(ambassador.drain(PATIENCE), end);
    ensure!(left == 0 && end? == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_direct_may_not_get_around_an_edge() -> Result<()> {
    let upstream = "127.0.0.1:9";
    let ambassador = Ambassador::new(Options::default());
    for key in ["accept_proxy = true", "proxy_protocol = \"v1\"", "sni"] {
        let more = match key {
            "sni" => format!("[forward.sni]\n\"a.example.org\" = [\"{upstream}\"]"),
            key => key.to_owned(),
        };
        let config = format!(
            "[[forward]]\nname = \"both\"\nlisten = \"tcp://127.0.0.1:8\"\nto = [\"{upstream}\"]\n\
             direct = [\"/sys/fs/cgroup\"]\n{more}\n"
        );
        let specs = nuncio_ambassador::spec::from_toml("f".as_ref(), &config)?;
        let resolver = Resolver::new();
        let checked = match resolver.check(&specs).await {
            Err(PutError::Apply(error)) => Some(error),
            _ => None,
        };
        let applied = ambassador.apply(vec![resolver.forward(&specs[0])?]).await;
        for refused in [checked, applied.err()] {
            let refused = refused.context("one goes around the other")?;
            ensure!(refused.kind() == "direct-edge" && refused.forward() == Some("both"));
            let name = key.split(' ').next().context("a key")?;
            let message = format!("has both direct and {name};");
            ensure!(refused.to_string().contains(&message), "{refused}");
        }
    }
    Ok(())
}
