//! UDP where a test needs a network of its own: ICMP errors, a small MTU, very many sessions.
//!
//! Each test runs itself again in a process with a new network namespace, which needs root, or a
//! kernel that lets users make namespaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nuncio_ambassador::Options;
use tokio::net::UdpSocket;

mod support;
use support::*;

const INNER: &str = "NUNCIO_TEST_APART";

/// Whether this is the process in the namespace; else runs `test` there, `shell` having prepared
/// it and `wrapper` before the command.
fn is_apart(test: &str, shell: &str, wrapper: &str) -> Result<bool> {
    if std::env::var_os(INNER).is_some() {
        return Ok(true);
    }
    let binary = std::env::current_exe()?;
    let script = format!(
        "set -e; ip link set lo up; {shell} exec {wrapper} \"$0\" --exact {test} --nocapture"
    );
    let mut command = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        command.arg("--map-root-user");
    }
    let status = command
        .args(["--net", "sh", "-c", &script])
        .arg(binary)
        .env(INNER, "1")
        .status()
        .context("unshare, of util-linux")?;
    ensure!(status.success(), "in a network of its own: {status}");
    Ok(false)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// An address where no socket is; in a fresh network nobody else takes the port.
async fn unused(ip: &str) -> Result<SocketAddr> {
    Ok(UdpSocket::bind((ip, 0)).await?.local_addr()?)
}

/// Sends until the socket has an error, and returns that.
async fn error_of(client: &UdpSocket) -> Result<std::io::Error> {
    soon(async {
        loop {
            if let Err(error) = client.send(b"?").await {
                return Ok(error);
            }
            let pause = Duration::from_millis(20);
            match tokio::time::timeout(pause, client.recv(&mut [0; 10])).await {
                Ok(Ok(_)) => bail!("an answer"),
                Ok(Err(error)) => return Ok(error),
                Err(_) => {}
            }
        }
    })
    .await?
}

async fn connected(from: &str, to: SocketAddr) -> Result<UdpSocket> {
    let client = UdpSocket::bind((from, 0)).await?;
    client.connect(to).await?;
    Ok(client)
}

#[test]
fn a_connected_client_learns_that_the_port_is_unreachable() -> Result<()> {
    let test = "a_connected_client_learns_that_the_port_is_unreachable";
    if !is_apart(test, "", "")? {
        return Ok(());
    }
    runtime()?.block_on(async {
        // Also through a socket for both families, and at another address than the first.
        for (at, to, from) in [
            ("127.0.0.1:0", "127.0.0.1", "127.0.0.1"),
            ("[::1]:0", "::1", "::1"),
            ("0.0.0.0:0", "127.0.0.9", "127.0.0.1"),
            ("[::]:0", "127.0.0.9", "127.0.0.1"),
            ("[::]:0", "::1", "::1"),
        ] {
            for upstream in ["127.0.0.1", "::1"] {
                let fixed = nuncio_ambassador::EndpointSet::fixed(vec![unused(upstream).await?]);
                let listen = listen(nuncio_ambassador::Protocol::Udp, at);
                let forward = nuncio_ambassador::Forward::new("gone", listen, fixed);
                let (_ambassador, local) = running(forward).await?;
                let to = SocketAddr::new(to.parse()?, local.port());
                let client = connected(from, to).await?;
                // As it is directly: one datagram, one error.
                client.send(b"?").await?;
                let Err(error) = soon(client.recv(&mut [0; 10])).await? else {
                    bail!("{at}: an answer");
                };
                let refused = std::io::ErrorKind::ConnectionRefused;
                ensure!(error.kind() == refused, "{at} to {upstream}: {error}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_client_is_told_only_when_no_endpoint_is_left() -> Result<()> {
    let test = "a_client_is_told_only_when_no_endpoint_is_left";
    if !is_apart(test, "", "")? {
        return Ok(());
    }
    runtime()?.block_on(async {
        let answering = UdpSocket::bind("127.0.0.1:0").await?;
        let upstreams = [unused("127.0.0.1").await?, answering.local_addr()?];
        let (_ambassador, local) = running(udp("half", &upstreams)).await?;
        let echo = tokio::spawn(async move {
            while let Ok((_, from)) = answering.recv_from(&mut [0; 10]).await {
                let _ = answering.send_to(b"!", from).await;
            }
        });
        for _ in 0..10 {
            let client = connected("127.0.0.1", local).await?;
            soon(async {
                let mut answer = [0; 10];
                loop {
                    client.send(b"?").await?;
                    let pause = Duration::from_millis(20);
                    // What was sent to the one that is gone may be lost, but without an error.
                    if let Ok(answered) =
                        tokio::time::timeout(pause, client.recv(&mut answer)).await
                    {
                        return anyhow::Ok(answered?);
                    }
                }
            })
            .await??;
        }
        echo.abort();
        let _ = echo.await;
        let client = connected("127.0.0.1", local).await?;
        let error = error_of(&client).await?;
        ensure!(
            error.kind() == std::io::ErrorKind::ConnectionRefused,
            "{error}"
        );
        Ok(())
    })
}

#[test]
fn without_the_capability_there_is_silence() -> Result<()> {
    let test = "without_the_capability_there_is_silence";
    if !is_apart(
        test,
        "",
        "setpriv --bounding-set=-net_raw --inh-caps=-net_raw",
    )? {
        return Ok(());
    }
    runtime()?.block_on(async {
        let (ambassador, local) = running(udp("mute", &[unused("127.0.0.1").await?])).await?;
        let client = connected("127.0.0.1", local).await?;
        for _ in 0..3 {
            client.send(b"?").await?;
            until("the session has ended", || ambassador.flows().is_empty()).await?;
        }
        ensure!(
            client
                .try_recv(&mut [0; 10])
                .is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        );
        Ok(())
    })
}

/// The kernel does not cut what would have to be fragmented afterwards, so it goes one by one.
#[test]
fn datagrams_larger_than_the_mtu_pass() -> Result<()> {
    let test = "datagrams_larger_than_the_mtu_pass";
    if !is_apart(test, "ip link set lo mtu 1500;", "")? {
        return Ok(());
    }
    runtime()?.block_on(async {
        let upstream = UdpSocket::bind("127.0.0.1:0").await?;
        let (_ambassador, local) = running(udp("large", &[upstream.local_addr()?])).await?;
        let client = connected("127.0.0.1", local).await?;
        let mut buffer = vec![0; 65_536];
        for round in 0..20 {
            let sizes = [
                4_000, 4_000, 4_000, 1_400, 1_400, 60_000, 1_472, 1_473, 1_473,
            ];
            let datagrams: Vec<_> = sizes.iter().map(|size| noise(round, *size)).collect();
            for datagram in &datagrams {
                client.send(datagram).await?;
            }
            for datagram in &datagrams {
                let (bytes, session) = soon(upstream.recv_from(&mut buffer)).await??;
                ensure!(
                    buffer[..bytes] == *datagram,
                    "{bytes}, not {}",
                    datagram.len()
                );
                upstream.send_to(datagram, session).await?;
            }
            for datagram in &datagrams {
                let bytes = soon(client.recv(&mut buffer)).await??;
                ensure!(
                    buffer[..bytes] == *datagram,
                    "{bytes} back, not {}",
                    datagram.len()
                );
            }
        }
        Ok(())
    })
}

/// What `/proc/self/status` has under `key`, in KiB.
fn status(key: &str) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {key}"))?.parse()?)
}

fn descriptors() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// All clients in one socket, which sends from any address of 127.0.0.0/8.
struct Crowd(UdpSocket);

impl Crowd {
    fn ask(&self, number: u32, to: SocketAddr) -> Result<()> {
        use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
        use std::os::fd::AsRawFd;
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
        let info = nix::libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: nix::libc::in_addr {
                s_addr: u32::from_ne_bytes(from.octets()),
            },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let bytes = number.to_be_bytes();
        let parts = [std::io::IoSlice::new(&bytes)];
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrStorage::from(to);
        let fd = self.0.as_raw_fd();
        sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }

    /// Lets clients ask, and each have its answer, as many at once as queues can hold.
    async fn ask_all(&self, mut numbers: Range<u32>, to: SocketAddr) -> Result<()> {
        while !numbers.is_empty() {
            let some: Vec<_> = numbers.by_ref().take(50).collect();
            for number in &some {
                self.ask(*number, to)?;
            }
            let mut answered = Vec::new();
            while answered.len() < some.len() {
                let mut number = [0; 4];
                soon(self.0.recv(&mut number)).await??;
                answered.push(u32::from_be_bytes(number));
            }
            answered.sort_unstable();
            ensure!(answered == some);
        }
        Ok(())
    }
}

#[test]
fn sessions_by_the_ten_thousand_are_affordable() -> Result<()> {
    let test = "sessions_by_the_ten_thousand_are_affordable";
    let ports = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range;";
    if !is_apart(test, ports, "")? {
        return Ok(());
    }
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = 50_500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may ask for more than it has.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted.max(hard));
    raised.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))?;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let most = u32::try_from(limit.min(wanted))? - 500;
    runtime()?.block_on(many_sessions(most))
}

async fn many_sessions(most: u32) -> Result<()> {
    let upstream = UdpSocket::bind("127.0.0.1:0").await?;
    let forward = limited(udp("many", &[upstream.local_addr()?]), |limits| {
        limits.max_connections = most as usize;
        limits.idle = Duration::from_secs(3_600);
    });
    tokio::spawn(async move {
        let mut bytes = [0; 4];
        while let Ok((_, from)) = upstream.recv_from(&mut bytes).await {
            let _ = upstream.send_to(&bytes, from).await;
        }
    });
    let (ambassador, local) = running_with(Options::default(), forward).await?;
    let crowd = Crowd(UdpSocket::bind("0.0.0.0:0").await?);
    // The buffers of the threads, and what else is made once.
    crowd.ask_all(0..100, local).await?;
    let before = (status("RssAnon:")?, descriptors()?);
    let begun = Instant::now();
    crowd.ask_all(100..most, local).await?;
    let filled = begun.elapsed();
    let sessions = (most - 100) as usize;
    let memory = (status("RssAnon:")? - before.0) * 1_024 / sessions;
    let opened = descriptors()? - before.1;
    // At the bound each newcomer evicts one, and each finds its answer.
    let begun = Instant::now();
    let newcomers = 2_000;
    crowd.ask_all(most..most + newcomers, local).await?;
    let evicted = begun.elapsed();
    println!(
        "{most} sessions: {memory} bytes and {:.2} descriptors each; begun in {:?} each, \
         at the bound in {:?}",
        opened as f64 / sessions as f64,
        filled / (most - 100),
        evicted / newcomers,
    );
    ensure!(
        opened == sessions,
        "one descriptor each, not {opened} for {sessions}"
    );
    ensure!(memory < 4_096, "{memory} bytes each");
    let all = most as usize;
    until("the evicted have gone", || ambassador.flows().len() == all).await?;
    // Those who came first have gone first.
    let oldest = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + newcomers);
    let first = ambassador.flows()[0].client.ip();
    ensure!(first == IpAddr::from(oldest), "{first}, not {oldest}");
    Ok(())
}
