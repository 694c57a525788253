//! What a client process does: one order a line, one answer a line.
//!
//! It is the test's own program, started anew, since only another process is in another cgroup.

use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nuncio_ambassador::direct::{Rewriter, Scope, ServiceKey, probe};
use nuncio_ambassador::{Ambassador, EndpointSet, Forward, Listen, Options, Protocol};

/// Long enough to be a failure.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    udp: Option<UdpSocket>,
    held: Vec<TcpStream>,
    rewriter: Option<Rewriter>,
    ambassador: Option<(tokio::runtime::Runtime, Ambassador)>,
}

/// Serves orders until there are no more. Does nothing if this is no client process.
#[expect(clippy::print_stderr, reason = "libtest has standard output")]
pub(crate) fn main() -> Result<()> {
    let Some(cgroup) = std::env::var_os("NUNCIO_TEST_CLIENT") else {
        return Ok(());
    };
    if !cgroup.is_empty() {
        let procs = std::path::Path::new(&cgroup).join("cgroup.procs");
        std::fs::write(&procs, "0").with_context(|| procs.display().to_string())?;
    }
    eprintln!("ready");
    let mut state = State::default();
    for order in std::io::stdin().lock().lines() {
        let order = order?;
        let words: Vec<_> = order.split(' ').collect();
        match state.obey(&words) {
            Ok(answer) => eprintln!("{answer}"),
            Err(error) => eprintln!("error: {error:#}"),
        }
    }
    Ok(())
}

impl State {
    fn obey(&mut self, words: &[&str]) -> Result<String> {
        match *words {
            ["tcp", address] => {
                let (name, stream) = tcp(address)?;
                Ok(format!("{name} {}", stream.peer_addr()?))
            }
            ["hold", address] => {
                let (name, stream) = tcp(address)?;
                self.held.push(stream);
                Ok(name.to_string())
            }
            ["many", count, address] => (0..count.parse::<u32>()?)
                .map(|_| Ok(tcp(address)?.0))
                .collect(),
            ["udp", address] => {
                let address: SocketAddr = address.parse()?;
                let socket = bound(any(address))?;
                socket.connect(address)?;
                socket.send(b"?")?;
                Ok(format!("{} {}", answer(&socket)?, socket.peer_addr()?))
            }
            ["open", local] => {
                self.udp = Some(bound(local.parse()?)?);
                Ok("open".to_owned())
            }
            ["send", address] => {
                let socket = self.udp.as_ref().context("open first")?;
                socket.send_to(b"?", address)?;
                answer(socket)
            }
            ["connect", address] => {
                let socket = self.udp.as_ref().context("open first")?;
                socket.connect(address)?;
                Ok(socket.peer_addr()?.to_string())
            }
            ["own", cgroup, service, endpoint] => {
                let cgroup = std::path::Path::new(cgroup);
                let (rewriter, scope) = (Rewriter::load()?, Scope::of(cgroup)?);
                rewriter.attach(cgroup, scope)?;
                let service = ServiceKey::new(Protocol::Tcp, service.parse()?)?;
                rewriter.set(scope, service, &[(endpoint.parse()?, 1)])?;
                self.rewriter = Some(rewriter);
                Ok("owns".to_owned())
            }
            ["ambassador", cgroup, service, endpoint] => {
                drop_capabilities()?;
                let runtime = tokio::runtime::Runtime::new()?;
                let ambassador = runtime.block_on(ambassador(cgroup, service, endpoint))?;
                let report = ambassador.direct().pop().context("a report")?;
                let (_, ambassador) = self.ambassador.insert((runtime, ambassador));
                anyhow::ensure!(ambassador.listeners().len() == 1, "it listens");
                Ok(report.reason().to_owned())
            }
            ["flows"] => {
                let (_, ambassador) = self.ambassador.as_ref().context("ambassador first")?;
                Ok(ambassador.flows().len().to_string())
            }
            ["probe", "without", "capabilities"] => {
                drop_capabilities()?;
                probe()?;
                Ok("can".to_owned())
            }
            _ => bail!("unknown order {words:?}"),
        }
    }
}

async fn ambassador(cgroup: &str, service: &str, endpoint: &str) -> Result<Ambassador> {
    let listen = Listen {
        protocol: Protocol::Tcp,
        address: service.parse()?,
        only_v6: false,
    };
    let upstreams = EndpointSet::fixed(vec![endpoint.parse()?]);
    let mut forward = Forward::new("unprivileged", listen, upstreams);
    forward.direct = vec![cgroup.into()];
    let ambassador = Ambassador::new(Options::default());
    ambassador.apply(vec![forward]).await?;
    Ok(ambassador)
}

fn drop_capabilities() -> Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    Ok(set_capabilities(None, sets)?)
}

fn tcp(address: &str) -> Result<(char, TcpStream)> {
    let mut stream = TcpStream::connect_timeout(&address.parse()?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut name = [0];
    stream.read_exact(&mut name)?;
    Ok((name[0].into(), stream))
}

fn any(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    }
}

fn bound(local: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn answer(socket: &UdpSocket) -> Result<String> {
    let mut name = [0];
    let (_, from) = socket.recv_from(&mut name)?;
    Ok(format!("{} {from}", char::from(name[0])))
}
