//! What an idle flow costs in user memory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

mod support;
use support::*;

const INNER: &str = "NUNCIO_TEST_MEMORY_UPSTREAM";
const FLOWS: usize = 10_000;
/// With fewer, what the process needs once would count for too much.
const FEWEST: usize = 1_000;
/// Descriptors beside those of the flows, of which each has two in either process.
const OTHERS: u64 = 200;
const MOST: usize = 1 << 10;

/// The ambassador whose memory is looked at, in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by ten_thousand_idle_flows_are_small in a process of its own"]
async fn inner() -> Result<()> {
    let Ok(upstream) = std::env::var(INNER) else {
        return Ok(());
    };
    let (_ambassador, local) = running(tcp("idle", &[upstream.parse()?])).await?;
    println!("\nlistens {local}");
    let (mut stdin, mut rest) = (tokio::io::stdin(), Vec::new());
    stdin.read_to_end(&mut rest).await?;
    Ok(())
}

/// As many as this process, and those it starts, may open.
fn allowed_flows() -> Result<usize> {
    let wanted = 2 * FLOWS as u64 + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    let (allowed, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(FLOWS.min(usize::try_from(allowed.saturating_sub(OTHERS) / 2)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_flows_are_small() -> Result<()> {
    let count = allowed_flows()?;
    if count < FEWEST {
        println!("not tested: this user may open no more than {count} flows");
        return Ok(());
    }
    let upstream = TcpListener::bind("127.0.0.1:0")?;
    // Of accept, too.
    socket2::SockRef::from(&upstream).set_read_timeout(Some(PATIENCE))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["inner", "--exact", "--include-ignored", "--nocapture"])
        .env(INNER, upstream.local_addr()?.to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let local: SocketAddr = loop {
        let line = soon(lines.next_line()).await??.context("a line")?;
        if let Some(address) = line.strip_prefix("listens ") {
            break address.parse()?;
        }
    };
    let pid = child.id().context("it runs")?;
    // What the first flow needs once is not what each flow needs.
    drop(flow(local, &upstream)?);
    let before = private(pid)?;
    let flows = (0..count).map(|_| flow(local, &upstream));
    let flows = flows.collect::<Result<Vec<_>>>()?;
    // What making them took is given back once the last of them is not new any more.
    let mut each = usize::MAX;
    let settled = until("an idle flow is small", || {
        let now = private(pid).unwrap_or(usize::MAX);
        each = each.min(now.saturating_sub(before) / count);
        each <= MOST
    });
    let settled = settled.await;
    println!("{each} bytes of user memory for each of {count} idle flows");
    settled.with_context(|| format!("{each} bytes for an idle flow, more than {MOST}"))?;
    drop(flows);
    drop(child.stdin.take());
    ensure!(soon(child.wait()).await??.success());
    Ok(())
}

/// Both ends of a flow that has carried a byte each way.
fn flow(to: SocketAddr, upstream: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let mut client = TcpStream::connect(to)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"?")?;
    let (mut server, _) = upstream.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    server.read_exact(&mut byte)?;
    server.write_all(b"!")?;
    client.read_exact(&mut byte)?;
    ensure!(&byte == b"!");
    Ok((client, server))
}

/// Bytes of memory that a process has for itself.
fn private(pid: u32) -> Result<usize> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let dirty = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:")?.strip_suffix("kB"))
        .context("Private_Dirty")?;
    Ok(dirty.trim().parse::<usize>()? << 10)
}
