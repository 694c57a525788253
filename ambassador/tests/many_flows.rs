//! Ten thousand flows, each with a message of its own, and as many at once as a process may have.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{ChildStdin, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

mod support;
use support::program::{line_with, lines};
use support::*;

const INNER: &str = "NUNCIO_TEST_PEERS";
const FLOWS: u64 = 10_000;
/// Descriptors that are none of a flow's.
const OTHERS: u64 = 200;
/// Connections under way at once, less than any backlog.
const AT_ONCE: usize = 100;
const BACKLOG: u32 = 1024;
const LISTENS: &str = "listens on ";
const OPEN: &str = "flows are open";
const CLOSED: &str = "flows are closed";

/// How many flows a process may have at once, be it the relay or all their peers: two descriptors
/// each.
fn at_once() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((hard.saturating_sub(OTHERS) / 2).min(FLOWS))
}

async fn tell(child: &mut ChildStdin, line: String) -> Result<()> {
    child.write_all(line.as_bytes()).await?;
    Ok(child.flush().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_flows_carries_its_message() -> Result<()> {
    let most = at_once()?;
    ensure!(most > 0, "a process may have hardly any descriptors");
    let mut peers = Command::new(std::env::current_exe()?)
        .args(["inner", "--exact", "--include-ignored", "--nocapture"])
        .env(INNER, "1")
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ask = peers.stdin.take().context("its input")?;
    let mut printed = lines(peers.stdout.take().context("its output")?);
    let line = line_with(&mut printed, LISTENS).await?;
    let line = line.context("the server listens")?;
    let (_, server) = line.split_once(LISTENS).context("an address")?;

    let (ambassador, local) = running(tcp("many", &[server.parse()?])).await?;
    let mut done = 0;
    while done < FLOWS {
        let wave = most.min(FLOWS - done);
        tell(&mut ask, format!("{local} {done} {wave}\n")).await?;
        line_with(&mut printed, OPEN)
            .await?
            .context("all carry their message")?;
        let open = ambassador.flows().len() as u64;
        ensure!(open == wave, "{open} of {wave} flows are open");
        tell(&mut ask, "close\n".to_owned()).await?;
        line_with(&mut printed, CLOSED)
            .await?
            .context("all end orderly")?;
        soon(ambassador.idle()).await?;
        done += wave;
    }
    drop(ask);
    let status = soon(peers.wait()).await??;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// All clients, and their server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other test in a process of its own"]
async fn inner() -> Result<()> {
    if std::env::var_os(INNER).is_none() {
        return Ok(());
    }
    println!("{LISTENS}{}", echo().await?);
    let mut asked = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = asked.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        let [to, first, count] = words.as_slice() else {
            anyhow::bail!("{line:?} is no wave of flows");
        };
        let first: u64 = first.parse()?;
        let flows = open(to.parse()?, first..first + count.parse::<u64>()?).await?;
        println!("{count} {OPEN}");
        asked.next_line().await?.context("being told to close")?;
        close(flows).await?;
        println!("{count} {CLOSED}");
    }
    Ok(())
}

/// Sends each message back, for as long as its sender wants.
async fn echo() -> Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut message = [0; 8];
                while stream.read_exact(&mut message).await.is_ok() {
                    stream.write_all(&message).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    Ok(local)
}

async fn say(stream: &mut TcpStream, number: u64) -> Result<()> {
    let (message, mut answer) = (number.to_le_bytes(), [0; 8]);
    stream.write_all(&message).await?;
    soon(stream.read_exact(&mut answer)).await??;
    ensure!(
        answer == message,
        "flow {number} got the message of another"
    );
    Ok(())
}

/// On a busy machine all of them together may take longer than anything should.
fn tell_progress(flows: u64) {
    if flows.is_multiple_of(200) {
        println!("{flows} so far");
    }
}

async fn open(to: SocketAddr, numbers: std::ops::Range<u64>) -> Result<Vec<TcpStream>> {
    let (turns, mut opening) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for number in numbers {
        let turn = turns.clone().acquire_owned().await?;
        tell_progress(number);
        opening.spawn(async move {
            let mut stream = soon(TcpStream::connect(to)).await??;
            say(&mut stream, number).await?;
            drop(turn);
            anyhow::Ok(stream)
        });
    }
    let mut flows = Vec::new();
    while let Some(opened) = opening.join_next().await {
        flows.push(opened??);
    }
    Ok(flows)
}

async fn close(mut flows: Vec<TcpStream>) -> Result<()> {
    for stream in &mut flows {
        stream.shutdown().await?;
    }
    for (number, stream) in flows.iter_mut().enumerate() {
        let end = soon(stream.read(&mut [0])).await?;
        ensure!(matches!(end, Ok(0)), "a flow ended with {end:?}");
        tell_progress(number as u64);
    }
    Ok(())
}
