//! What becomes of open flows whose endpoint leaves the set, with data under way.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{
    Ambassador, EndpointSet, EndpointState, Forward, OnRemove, Protocol, RelayMode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

mod support;
use support::*;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(150);

struct Flow {
    ambassador: Ambassador,
    local: SocketAddr,
    set: watch::Sender<Arc<EndpointSet>>,
    /// Where the flow goes, and the one that replaces it.
    first: SocketAddr,
    second: SocketAddr,
    client: TcpStream,
    server: TcpStream,
}

impl Flow {
    async fn open(mode: RelayMode, on_remove: OnRemove) -> Result<Self> {
        let upstream = TcpListener::bind("127.0.0.1:0").await?;
        let (first, second) = (upstream.local_addr()?, naming_server(b'b').await?);
        let set = live(&[first]);
        let listen = listen(Protocol::Tcp, "127.0.0.1:0");
        let mut forward = Forward::new("leaving", listen, set.subscribe());
        forward.limits.mode = mode;
        forward.balance.on_remove = on_remove;
        let (ambassador, local) = running(forward).await?;
        let client = TcpStream::connect(local).await?;
        let (server, _) = soon(upstream.accept()).await??;
        until("the flow is open", || ambassador.flows().len() == 1).await?;
        Ok(Self {
            ambassador,
            local,
            set,
            first,
            second,
            client,
            server,
        })
    }

    fn replace(&self) {
        let second = EndpointSet::known(vec![self.second]);
        self.set.send_replace(Arc::new(second));
    }

    fn state(&self) -> Option<EndpointState> {
        let views = self.ambassador.endpoints().pop()?.1;
        let first = views.into_iter().find(|view| view.address == self.first)?;
        Some(first.state)
    }

    /// Carries random bytes both ways, with the endpoint leaving in the midst of them, and ends.
    async fn carry_on(mut self) -> Result<()> {
        let (there, back) = (noise(1, 3 << 20), noise(2, 3 << 20));
        let (sent, received) = tokio::join!(
            exchange(&mut self.client, &there, &back),
            exchange(&mut self.server, &back, &there),
        );
        sent?;
        received?;
        self.client.shutdown().await?;
        self.server.shutdown().await?;
        ensure!(
            soon(self.client.read(&mut [0])).await?? == 0,
            "FIN, not RST"
        );
        until("it is forgotten", || self.state().is_none()).await
    }
}

/// Writes the one and must read the other.
async fn exchange(stream: &mut TcpStream, write: &[u8], expected: &[u8]) -> Result<()> {
    let (mut read_half, mut write_half) = stream.split();
    let mut received = vec![0; expected.len()];
    let both = async {
        tokio::try_join!(
            write_half.write_all(write),
            read_half.read_exact(&mut received)
        )
    };
    soon(both).await??;
    ensure!(received == expected, "other bytes");
    Ok(())
}

/// Writes and reads until it cannot. Returns why.
async fn end_of(stream: &mut TcpStream) -> Result<ErrorKind> {
    let (mut read_half, mut write_half) = stream.split();
    let data = noise(3, 64 << 10);
    // Whichever comes first is told of the reset, and the other one sees only that it is over.
    let write = async {
        loop {
            if let Err(error) = write_half.write_all(&data).await {
                return error.kind();
            }
        }
    };
    let mut buffer = vec![0; 64 << 10];
    let read = async {
        loop {
            match read_half.read(&mut buffer).await {
                Ok(0) => return ErrorKind::UnexpectedEof,
                Ok(_) => {}
                Err(error) => return error.kind(),
            }
        }
    };
    soon(async {
        tokio::select! {
            end = write => end,
            end = read => end,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_flows_go_on() -> Result<()> {
    for mode in MODES {
        let flow = Flow::open(mode, OnRemove::Keep).await?;
        flow.replace();
        let gone = Some(EndpointState::Leaving { until: None });
        until("it is leaving", || flow.state() == gone).await?;
        ensure!(who(flow.local).await?.0 == b'b', "newcomers go elsewhere");
        flow.carry_on().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_flows_go_on_while_they_may() -> Result<()> {
    for mode in MODES {
        let flow = Flow::open(mode, OnRemove::Drain(HOUR)).await?;
        flow.replace();
        let draining = |state| matches!(state, Some(EndpointState::Leaving { until: Some(_) }));
        until("it is draining", || draining(flow.state())).await?;
        ensure!(who(flow.local).await?.0 == b'b', "newcomers go elsewhere");
        flow.carry_on().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_flows_are_reset_when_their_time_is_over() -> Result<()> {
    for mode in MODES {
        let mut flow = Flow::open(mode, OnRemove::Drain(SHORT)).await?;
        let begun = Instant::now();
        flow.replace();
        let ends = tokio::join!(end_of(&mut flow.client), end_of(&mut flow.server));
        ensure!(begun.elapsed() >= SHORT, "too early: {:?}", begun.elapsed());
        ensure!(ends.0? == ErrorKind::ConnectionReset);
        ensure!(ends.1? == ErrorKind::ConnectionReset);
        until("the flow has ended", || flow.ambassador.flows().is_empty()).await?;
        ensure!(who(flow.local).await?.0 == b'b');
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_flows_are_reset_at_once_and_no_others() -> Result<()> {
    for mode in MODES {
        let mut flow = Flow::open(mode, OnRemove::Reset).await?;
        let both = EndpointSet::known(vec![flow.first, flow.second]);
        flow.set.send_replace(Arc::new(both));
        let known = || {
            flow.ambassador
                .endpoints()
                .iter()
                .any(|(_, views)| views.len() == 2)
        };
        until("both are known", known).await?;
        // The first one's listener is closed, so that it refuses.
        let (name, mut other) = who(flow.local).await?;
        ensure!(name == b'b');
        flow.replace();
        let ends = tokio::join!(end_of(&mut flow.client), end_of(&mut flow.server));
        ensure!(ends.0? == ErrorKind::ConnectionReset);
        ensure!(ends.1? == ErrorKind::ConnectionReset);
        other.write_all(b"still here").await?;
        other.shutdown().await?;
        ensure!(soon(other.read(&mut [0])).await?? == 0, "not its endpoint");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_back_in_time_keeps_its_flows() -> Result<()> {
    let flow = Flow::open(RelayMode::Auto, OnRemove::Drain(HOUR)).await?;
    flow.replace();
    until("it is draining", || flow.state() != Some(EndpointState::Up)).await?;
    let first = EndpointSet::known(vec![flow.first]);
    flow.set.send_replace(Arc::new(first));
    until("it is back", || flow.state() == Some(EndpointState::Up)).await?;
    let Flow {
        mut client,
        mut server,
        ..
    } = flow;
    let data = noise(4, 100_000);
    let (sent, received) = tokio::join!(
        exchange(&mut client, &data, b"well"),
        exchange(&mut server, b"well", &data),
    );
    sent.and(received)
}

/// Answers each datagram with its name.
async fn udp_naming_server(name: u8) -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let local = socket.local_addr()?;
    tokio::spawn(async move {
        while let Ok((_, client)) = socket.recv_from(&mut [0; 16]).await {
            let _ = socket.send_to(&[name], client).await;
        }
    });
    Ok(local)
}

/// Who answers this client now.
async fn ask(client: &UdpSocket) -> Result<u8> {
    let mut name = [0];
    let asking = async {
        loop {
            client.send(b"?").await?;
            // A session that ends takes what is under way with it.
            match tokio::time::timeout(SHORT, client.recv(&mut name)).await {
                Ok(received) => return received,
                Err(_) => continue,
            }
        }
    };
    soon(asking).await??;
    Ok(name[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_sessions_stay_only_while_they_are_drained() -> Result<()> {
    let (first, second) = (
        udp_naming_server(b'a').await?,
        udp_naming_server(b'b').await?,
    );
    for on_remove in [
        OnRemove::Keep,
        OnRemove::Reset,
        OnRemove::Drain(SHORT),
        OnRemove::Drain(HOUR),
    ] {
        let set = live(&[first]);
        let listen = listen(Protocol::Udp, "127.0.0.1:0");
        let mut forward = Forward::new("leaving", listen, set.subscribe());
        forward.balance.on_remove = on_remove;
        let (ambassador, local) = running(forward).await?;
        let client = UdpSocket::bind("127.0.0.1:0").await?;
        client.connect(local).await?;
        ensure!(ask(&client).await? == b'a');
        let begun = Instant::now();
        set.send_replace(Arc::new(EndpointSet::known(vec![second])));
        let views = || ambassador.endpoints().pop().map(|(_, views)| views);
        let known = |views: Vec<_>| {
            let mut views = views.into_iter();
            views.any(|view: nuncio_ambassador::EndpointView| view.address == second)
        };
        until("the set is known", || views().is_some_and(known)).await?;
        if on_remove == OnRemove::Drain(HOUR) {
            for _ in 0..20 {
                ensure!(ask(&client).await? == b'a', "its session goes on");
            }
            let newcomer = UdpSocket::bind("127.0.0.1:0").await?;
            newcomer.connect(local).await?;
            ensure!(ask(&newcomer).await? == b'b');
            continue;
        }
        soon(async {
            while ask(&client).await? != b'b' {}
            anyhow::Ok(())
        })
        .await?
        .context("re-picked")?;
        if let OnRemove::Drain(most) = on_remove {
            ensure!(begun.elapsed() >= most, "too early: {:?}", begun.elapsed());
        }
    }
    Ok(())
}
