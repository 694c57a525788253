//! Endpoints that are asked whether they are well, and go down, and come up again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use nuncio_ambassador::{
    Ambassador, Check, CheckKind, EndpointSet, EndpointState, EndpointView, Forward, Protocol,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

mod support;
use support::*;

/// Often, but patiently: how fast this machine is decides nothing.
fn check(kind: CheckKind) -> Check {
    let mut check = Check::new(kind);
    check.interval = Duration::from_millis(20);
    check.timeout = PATIENCE;
    check
}

fn checked(mut forward: Forward, check: Check) -> Forward {
    forward.balance.check = Some(check);
    forward
}

fn view(ambassador: &Ambassador, endpoint: SocketAddr) -> Option<EndpointView> {
    let views = ambassador.endpoints().pop()?.1;
    views.into_iter().find(|view| view.address == endpoint)
}

async fn is(ambassador: &Ambassador, endpoint: SocketAddr, state: EndpointState) -> Result<()> {
    let holds = || view(ambassador, endpoint).is_some_and(|view| view.state == state);
    until(state.name(), holds).await
}

/// Sends its name to each who comes, until dropped. `comers` counts them.
async fn server(
    at: SocketAddr,
    name: u8,
    comers: &Arc<AtomicUsize>,
) -> Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind(at).await?;
    let local = listener.local_addr()?;
    let comers = comers.clone();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            comers.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(&[name]).await;
        }
    });
    Ok((local, AbortOnDropHandle::new(task)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_takes_no_connections_is_down_until_it_does() -> Result<()> {
    let comers = Arc::default();
    // An address that no other connection here has, so that its port stays free.
    let (local_a, a) = server("127.71.0.1:0".parse()?, b'a', &comers).await?;
    let b = naming_server(b'b').await?;
    let forward = checked(tcp("tcp", &[local_a, b]), check(CheckKind::Tcp));
    let (ambassador, local) = running(forward).await?;
    is(&ambassador, local_a, EndpointState::Up).await?;

    drop(a);
    is(&ambassador, local_a, EndpointState::Down).await?;
    let down = view(&ambassador, local_a).context("a")?;
    let fault = down.last_check_failure.context("why")?.error;
    ensure!(
        fault.contains("connect to 127.71.0.1") && fault.contains("os error 111"),
        "{fault}"
    );
    let tried = down.failures;
    for _ in 0..20 {
        ensure!(who(local).await?.0 == b'b');
    }
    let down = view(&ambassador, local_a).context("a")?;
    ensure!(
        !down.usable && down.failures == tried,
        "no newcomer has tried it"
    );

    let (_, _a) = server(local_a, b'a', &comers).await?;
    is(&ambassador, local_a, EndpointState::Up).await?;
    soon(async {
        while who(local).await?.0 != b'a' {}
        anyhow::Ok(())
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_answers_500_is_down_until_it_answers_200() -> Result<()> {
    let status = Arc::new(AtomicU16::new(200));
    let hosts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let health = {
        let (status, hosts) = (status.clone(), hosts.clone());
        move |headers: HeaderMap| async move {
            let host = headers.get(header::HOST).cloned();
            hosts.lock().expect("nobody panics").push(host);
            StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap_or_default()
        }
    };
    let router = axum::Router::new().route("/health", get(health));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let asked = listener.local_addr()?;
    let _server = AbortOnDropHandle::new(tokio::spawn(axum::serve(listener, router).into_future()));

    // What is forwarded to is another port of the same host.
    let serving = naming_server(b'a').await?;
    let http = |path: &str| CheckKind::Http {
        path: path.to_owned(),
        host: Some("well.example".to_owned()),
        status: 200..=299,
    };
    let mut forward = checked(tcp("http", &[serving]), check(http("/health")));
    forward.balance.check.as_mut().context("a check")?.port = asked.port().try_into().ok();
    let (ambassador, local) = running(forward.clone()).await?;
    until("it was asked", || {
        !hosts.lock().expect("nobody panics").is_empty()
    })
    .await?;
    is(&ambassador, serving, EndpointState::Up).await?;

    status.store(500, Ordering::Relaxed);
    is(&ambassador, serving, EndpointState::Down).await?;
    let down = view(&ambassador, serving).context("the endpoint")?;
    let fault = down.last_check_failure.context("why")?.error;
    ensure!(
        fault == "HTTP status 500 is not within 200 to 299",
        "{fault}"
    );
    ensure!(down.usable, "all are down: all are used");
    ensure!(who(local).await?.0 == b'a');
    status.store(204, Ordering::Relaxed);
    is(&ambassador, serving, EndpointState::Up).await?;
    let asked_for = hosts.lock().expect("nobody panics").pop().flatten();
    ensure!(asked_for.is_some_and(|host| host == "well.example"));

    // Another path, which it does not have; then no check any more.
    let check = forward.balance.check.as_mut().context("a check")?;
    check.kind = http("/missing");
    ambassador.apply(vec![forward.clone()]).await?;
    is(&ambassador, serving, EndpointState::Down).await?;
    forward.balance.check = None;
    ambassador.apply(vec![forward]).await?;
    ensure!(view(&ambassador, serving).is_some_and(|view| view.state == EndpointState::Up));
    Ok(())
}

/// Waits for ten more checks of what goes on, and fails if what has ended was checked meanwhile.
async fn ends(ended: &AtomicUsize, goes_on: &AtomicUsize) -> Result<()> {
    let before = ended.load(Ordering::Relaxed);
    let seen = goes_on.load(Ordering::Relaxed);
    until("the other is checked", || {
        goes_on.load(Ordering::Relaxed) > seen + 10
    })
    .await?;
    // One that was under way may still have come.
    ensure!(ended.load(Ordering::Relaxed) <= before + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_end_with_their_endpoint_and_with_their_forward() -> Result<()> {
    let [comers, others, more] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let (first, _first) = server(any, b'a', &comers).await?;
    let (second, _second) = server(any, b'b', &others).await?;
    let (third, _third) = server(any, b'c', &more).await?;
    let set = live(&[first]);
    let listen = listen(Protocol::Tcp, "127.0.0.1:0");
    let ends_soon = Forward::new("ends", listen, set.subscribe());
    let ends_soon = checked(ends_soon, check(CheckKind::Tcp));
    let stays = checked(tcp("stays", &[second]), check(CheckKind::Tcp));
    let (ambassador, _) = running(stays.clone()).await?;
    ambassador.apply(vec![stays.clone(), ends_soon]).await?;
    until("it is checked", || comers.load(Ordering::Relaxed) > 2).await?;
    set.send_replace(Arc::new(EndpointSet::known(vec![third])));
    until("it has left", || view(&ambassador, first).is_none()).await?;
    ends(&comers, &others).await?;
    until("the new one is checked", || {
        more.load(Ordering::Relaxed) > 2
    })
    .await?;
    ambassador.apply(vec![stays]).await?;
    ends(&more, &others).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_endpoint_is_down_and_a_talkative_one_is_cut_short() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let talkative = TcpListener::bind("127.0.0.1:0").await?;
    let endpoints = [silent.local_addr()?, talkative.local_addr()?];
    let _talk = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut stream, _)) = talkative.accept().await {
            while stream.write_all(&[b'.'; 1000]).await.is_ok() {}
        }
    }));
    let short = Duration::from_millis(100);
    let cases = [(short, "no result within"), (PATIENCE, "within 4096 bytes")];
    for (endpoint, (timeout, fault)) in endpoints.into_iter().zip(cases) {
        let mut check = check(CheckKind::SendExpect {
            send: Vec::new(),
            expect: b"+OK".to_vec(),
        });
        check.timeout = timeout;
        let (ambassador, _) = running(checked(tcp("silent", &[endpoint]), check)).await?;
        is(&ambassador, endpoint, EndpointState::Down).await?;
        let down = view(&ambassador, endpoint).context("the endpoint")?;
        let failure = down.last_check_failure.context("why")?.error;
        ensure!(failure.contains(fault), "{failure}");
    }
    Ok(())
}
