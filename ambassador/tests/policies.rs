//! How newcomers are spread, and what is told of endpoints.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{Ambassador, Control, EndpointState, Options, Policy, Resolver, spec};
use tokio::io::AsyncReadExt;

mod support;
use support::*;

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
