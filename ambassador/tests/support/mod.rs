//! What the tests of the ambassador share: one on a free port, and peers that do as they are told.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the module"
)]

pub mod admin;
pub mod log;
pub mod openmetrics;
pub mod tls;
pub mod tool;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{
    Ambassador, Control, EndpointSet, Flow, Forward, Limits, Listen, Options, Protocol, RelayMode,
};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub mod program;

/// No step of a test takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const MODES: [RelayMode; 3] = [RelayMode::Auto, RelayMode::Copy, RelayMode::Splice];

/// Fails rather than hangs.
pub async fn soon<T>(what: impl Future<Output = T>) -> Result<T> {
    timeout(PATIENCE, what)
        .await
        .context("nothing happens any more")
}

/// Waits for a condition that no event tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let poll = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll)
        .await
        .with_context(|| format!("waiting until {what}"))
}

pub fn listen(protocol: Protocol, address: &str) -> Listen {
    let address = address.parse().expect("an address and port");
    Listen {
        protocol,
        address,
        only_v6: false,
    }
}

pub fn tcp(name: &str, upstreams: &[SocketAddr]) -> Forward {
    let fixed = EndpointSet::fixed(upstreams.to_vec());
    Forward::new(name, listen(Protocol::Tcp, "127.0.0.1:0"), fixed)
}

pub fn udp(name: &str, upstreams: &[SocketAddr]) -> Forward {
    let fixed = EndpointSet::fixed(upstreams.to_vec());
    Forward::new(name, listen(Protocol::Udp, "127.0.0.1:0"), fixed)
}

/// A set that the test changes.
pub fn live(endpoints: &[SocketAddr]) -> watch::Sender<Arc<EndpointSet>> {
    watch::channel(Arc::new(EndpointSet::known(endpoints.to_vec()))).0
}

/// An ambassador with one forward, and where it listens.
pub async fn running(forward: Forward) -> Result<(Ambassador, SocketAddr)> {
    running_with(Options::default(), forward).await
}

pub async fn running_with(options: Options, forward: Forward) -> Result<(Ambassador, SocketAddr)> {
    let ambassador = Ambassador::new(options);
    ambassador.apply(vec![forward]).await?;
    let local = local(&ambassador, 0);
    Ok((ambassador, local))
}

pub fn local(ambassador: &Ambassador, index: usize) -> SocketAddr {
    ambassador.listeners()[index].local
}

pub fn limited(mut forward: Forward, change: impl FnOnce(&mut Limits)) -> Forward {
    change(&mut forward.limits);
    forward
}

/// A flow's both ends, with the ambassador between them.
pub struct Pair {
    pub ambassador: Ambassador,
    pub client: TcpStream,
    pub server: TcpStream,
}

pub async fn pair(mode: RelayMode) -> Result<Pair> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let forward = limited(tcp("pair", &[upstream.local_addr()?]), |limits| {
        limits.mode = mode;
    });
    let (ambassador, local) = running(forward).await?;
    let client = TcpStream::connect(local).await?;
    let (server, _) = soon(upstream.accept()).await??;
    Ok(Pair {
        ambassador,
        client,
        server,
    })
}

/// Closes with RST.
pub fn reset(stream: TcpStream) -> Result<()> {
    let stream = socket2::Socket::from(stream.into_std()?);
    stream.set_linger(Some(Duration::ZERO))?;
    Ok(())
}

/// Bytes that the kernel on the other side has not acknowledged.
pub fn unsent(stream: &TcpStream) -> i32 {
    #![allow(unsafe_code, reason = "no safe wrapper has SIOCOUTQ")]
    use std::os::fd::AsRawFd;
    nix::ioctl_read_bad!(outq, nix::libc::TIOCOUTQ, nix::libc::c_int);
    let mut bytes = 0;
    // SAFETY: the stream is open, and the call writes one int.
    unsafe { outq(stream.as_raw_fd(), &raw mut bytes) }.expect("a TCP socket has a send queue");
    bytes
}

/// An address where nobody listens. Held open but not listening, so that nobody takes the port.
pub fn refusing(address: &str) -> Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&address.parse::<SocketAddr>()?.into())?;
    let local = socket.local_addr()?.as_socket().context("an IP address")?;
    Ok((socket, local))
}

/// Sends one byte, by which it is known, to each who comes.
pub async fn naming_server(name: u8) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let local = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                stream.write_all(&[name]).await?;
                stream.read_to_end(&mut Vec::new()).await
            });
        }
    });
    Ok(local)
}

/// Which naming server answers at `address`, and the connection.
pub async fn who(address: SocketAddr) -> Result<(u8, TcpStream)> {
    let mut stream = TcpStream::connect(address).await?;
    let name = soon(stream.read_u8()).await??;
    Ok((name, stream))
}

pub fn only(ambassador: &Ambassador) -> Result<Flow> {
    let mut flows = ambassador.flows();
    ensure!(flows.len() == 1, "one flow, not {flows:?}");
    flows.pop().context("one flow")
}

/// Waits until a forward has turned away so many newcomers for this cause.
pub async fn turned_away(
    control: &Arc<Control>,
    forward: &str,
    cause: &str,
    count: u64,
) -> Result<()> {
    let labels = format!("{{forward=\"{forward}\",cause=\"{cause}\"}}");
    counts(control, &format!("edge_refused_total{labels}"), count).await
}

/// Waits until a figure is `count`: a peer may see its end before it is counted.
pub async fn counts(control: &Arc<Control>, begin: &str, count: u64) -> Result<()> {
    let reach = async {
        loop {
            let now = figure(control, begin).await?;
            ensure!(now <= count, "{begin}: {now}, not {count}");
            if now == count {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(PATIENCE, reach).await;
    reached.with_context(|| format!("{begin} is not {count}"))?
}

/// One line of the metrics, which begins so after the prefix of all.
async fn figure(control: &Arc<Control>, begin: &str) -> Result<u64> {
    use tokio::io::AsyncWriteExt;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stream = TcpStream::connect(listener.local_addr()?).await?;
    let server = tokio::spawn(
        axum::serve(listener, nuncio_ambassador::admin::router(control.clone())).into_future(),
    );
    let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await??;
    server.abort();
    let begin = format!("nuncio_ambassador_{begin} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&begin));
    Ok(count.with_context(|| text.clone())?.parse()?)
}

/// Bytes that look random and are the same each time.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .take(length)
        .collect()
}
