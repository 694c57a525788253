//! The PROXY protocol with those who made it, and with curl.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{AcceptProxy, Forward, ProxyVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::tool::{Server, output, tool};
use support::*;

/// HAProxy, listening on a port that was bound for it: whoever connects before it is up waits.
struct Haproxy {
    address: SocketAddr,
    _server: Server,
    _config: tempfile::NamedTempFile,
}

impl Haproxy {
    /// `bind` follows the word `bind`, `rules` make up the rest of a proxy in mode `mode`.
    fn start(mode: &str, bind: &str, rules: &str) -> Result<Self> {
        let listener = StdListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty())?;
        let fd = listener.as_raw_fd();
        let mut config = tempfile::NamedTempFile::new()?;
        write!(
            config,
            "defaults\n mode {mode}\n timeout client 1m\n timeout server 1m\n timeout connect 1m\n\
             listen it\n bind fd@{fd} {bind}\n{rules}\n"
        )?;
        let mut command = Command::new(tool("haproxy")?);
        command.arg("-db").arg("-f").arg(config.path());
        let server = Server::start(&mut command)?;
        Ok(Self {
            address,
            _server: server,
            _config: config,
        })
    }

    /// One that answers each request with whom it takes for the client, and what it connected to.
    fn that_tells() -> Result<Self> {
        let told = "%[src]:%[src_port] %[dst]:%[dst_port]";
        let rule =
            format!(" http-request return status 200 content-type text/plain lf-string \"{told}\"");
        Self::start("http", "accept-proxy", &rule)
    }

    fn that_sends(to: SocketAddr, how: &str) -> Result<Self> {
        let rules = format!(" unique-id-format %[rand]\n server it {to} {how}");
        Self::start("tcp", "", &rules)
    }
}

fn edges(mut forward: Forward, accept: bool, send: Option<ProxyVersion>) -> Forward {
    forward.edge.accept_proxy = accept.then(AcceptProxy::from_everybody);
    forward.edge.send_proxy = send;
    forward
}

/// What the server says to a request on this connection.
async fn ask(stream: &mut TcpStream) -> Result<String> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await??;
    let (_, body) = answer.split_once("\r\n\r\n").context("a head")?;
    Ok(body.to_owned())
}

const SENT: [(&str, ProxyVersion); 2] = [
    ("send-proxy", ProxyVersion::V1),
    ("send-proxy-v2", ProxyVersion::V2),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_is_told_who_the_client_is() -> Result<()> {
    let haproxy = Haproxy::that_tells()?;
    for (_, version) in SENT {
        let forward = edges(tcp("told", &[haproxy.address]), false, Some(version));
        let (_ambassador, local) = running(forward).await?;
        let mut client = TcpStream::connect(local).await?;
        let said = ask(&mut client).await?;
        let expected = format!("{} {local}", client.local_addr()?);
        ensure!(said == expected, "{version:?}: {said:?}, not {expected:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_tells_who_the_client_is() -> Result<()> {
    for (how, _) in SENT {
        let upstream = TcpListener::bind("127.0.0.1:0").await?;
        let forward = edges(tcp("tells", &[upstream.local_addr()?]), true, None);
        let (ambassador, local) = running(forward).await?;
        let haproxy = Haproxy::that_sends(local, how)?;
        let mut client = TcpStream::connect(haproxy.address).await?;
        client.write_all(b"payload").await?;
        let (mut server, _) = soon(upstream.accept()).await??;
        let mut came = [0; 7];
        soon(server.read_exact(&mut came)).await??;
        ensure!(&came == b"payload", "{how}: {came:?}");
        let flow = only(&ambassador)?;
        ensure!(flow.client == client.local_addr()?, "{how}: {flow:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_haproxies_nothing_is_lost() -> Result<()> {
    let last = Haproxy::that_tells()?;
    for (how, version) in [
        ("send-proxy", ProxyVersion::V2),
        ("send-proxy-v2", ProxyVersion::V1),
        // The last one verifies a checksum, if it is passed one.
        (
            "send-proxy-v2 proxy-v2-options crc32c,unique-id",
            ProxyVersion::V2,
        ),
    ] {
        let forward = edges(tcp("between", &[last.address]), true, Some(version));
        let (_ambassador, local) = running(forward).await?;
        let first = Haproxy::that_sends(local, how)?;
        let mut client = TcpStream::connect(first.address).await?;
        let said = ask(&mut client).await?;
        let expected = format!("{} {}", client.local_addr()?, first.address);
        ensure!(said == expected, "{how}: {said:?}, not {expected:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_tells_who_it_is() -> Result<()> {
    let haproxy = Haproxy::that_tells()?;
    let forward = edges(
        tcp("curl", &[haproxy.address]),
        true,
        Some(ProxyVersion::V2),
    );
    let (_ambassador, local) = running(forward).await?;
    let mut command = Command::new(tool("curl")?);
    let told = "\n%{local_ip}:%{local_port} %{remote_ip}:%{remote_port}";
    command.args([
        "--silent",
        "--show-error",
        "--haproxy-protocol",
        "--noproxy",
        "*",
    ]);
    command.args(["--write-out", told, &format!("http://{local}/")]);
    let output = output(command).await?;
    ensure!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout)?;
    let (answer, expected) = said.split_once('\n').context("two lines")?;
    ensure!(answer == expected, "{answer:?}, not {expected:?}");
    Ok(())
}
