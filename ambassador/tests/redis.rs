//! A real redis, through the relay.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use nuncio_ambassador::{Check, CheckKind, EndpointState};

mod support;
use support::*;

struct Redis {
    child: Child,
    socket: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// On a free port. It serves a unix socket too, to tell when it is up.
    async fn start() -> Result<(Self, SocketAddr)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.port().to_string()])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server (Debian package redis-server)")?;
        let redis = Self {
            child,
            socket,
            _directory: directory,
        };
        until("redis is up", || {
            std::os::unix::net::UnixStream::connect(&redis.socket).is_ok()
        })
        .await?;
        Ok((redis, port))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn cli(at: SocketAddr, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>> {
    let mut child = Command::new("redis-cli")
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start redis-cli (Debian package redis-tools)")?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let run = move || -> std::io::Result<Output> {
        stdin.write_all(&input)?;
        drop(stdin);
        child.wait_with_output()
    };
    let output = soon(tokio::task::spawn_blocking(run)).await???;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(output.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_does_not_notice() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let forward = limited(tcp("redis", &[server]), |limits| {
            limits.mode = mode;
        });
        let (ambassador, local) = running(forward).await?;
        ensure!(cli(local, &["ping"], Vec::new()).await? == b"PONG\n");
        ensure!(cli(local, &["set", "key", "value"], Vec::new()).await? == b"OK\n");
        ensure!(cli(server, &["get", "key"], Vec::new()).await? == b"value\n");
        let value: Vec<u8> = noise(9, 10_000_000)
            .iter()
            .map(|byte| b'a' + byte % 26)
            .collect();
        let set = cli(local, &["-x", "set", "large"], value.clone()).await?;
        ensure!(set == b"OK\n", "{mode:?}");
        let mut got = cli(local, &["get", "large"], Vec::new()).await?;
        ensure!(
            got.pop() == Some(b'\n') && got == value,
            "{mode:?}: the value has changed"
        );
        until("the flows have ended", || ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_asked_whether_it_is_well() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    let mut check = Check::new(CheckKind::SendExpect {
        send: b"PING\r\n".to_vec(),
        expect: b"+PONG\r\n".to_vec(),
    });
    check.interval = std::time::Duration::from_millis(20);
    // Redis keeps a connection open that it has refused, and might say more.
    check.timeout = std::time::Duration::from_millis(500);
    let mut forward = tcp("redis", &[server]);
    forward.balance.check = Some(check);
    let (ambassador, local) = running(forward).await?;
    let view = || {
        ambassador
            .endpoints()
            .pop()
            .and_then(|(_, views)| views.into_iter().next())
    };
    let state = || view().map(|view| view.state);
    // It is up whether asked or not; that it was asked is seen by its going down.
    let password = ["config", "set", "requirepass", "secret"];
    ensure!(cli(server, &password, Vec::new()).await? == b"OK\n");
    until("it is down", || state() == Some(EndpointState::Down)).await?;
    let fault = view().and_then(|view| view.last_check_failure);
    let fault = fault.context("why it is down")?.error;
    ensure!(
        fault.contains("NOAUTH") && fault.contains("+PONG"),
        "{fault}"
    );
    // The last one is used nevertheless.
    let get = ["-a", "secret", "--no-auth-warning", "ping"];
    ensure!(cli(local, &get, Vec::new()).await? == b"PONG\n");
    let open = [
        "-a",
        "secret",
        "--no-auth-warning",
        "config",
        "set",
        "requirepass",
        "",
    ];
    ensure!(cli(server, &open, Vec::new()).await? == b"OK\n");
    until("it is up", || state() == Some(EndpointState::Up)).await
}
