//! An endpoint's process is killed while flows are open to it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

mod support;
use support::program::{line_with, lines};
use support::*;

const INNER: &str = "NUNCIO_TEST_ENDPOINT";
const LISTENS: &str = "listens on ";
/// Tells the endpoint not to read any more.
const STALL: u8 = b's';
const FLOWS: usize = 20;

/// An endpoint in a process of its own, which tells its name and sends back each byte.
async fn endpoint(name: char) -> Result<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["inner", "--exact", "--include-ignored", "--nocapture"])
        .env(INNER, name.to_string())
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut printed = lines(child.stdout.take().context("its output")?);
    let line = line_with(&mut printed, LISTENS)
        .await?
        .context("it listens")?;
    let (_, address) = line.split_once(LISTENS).context("an address")?;
    Ok((child, address.parse()?))
}

#[test]
#[ignore = "run by the other tests in a process of its own, until it is killed"]
fn inner() -> Result<()> {
    let Ok(name) = std::env::var(INNER) else {
        return Ok(());
    };
    let listener = StdListener::bind("127.0.0.1:0")?;
    println!("{LISTENS}{}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept()?;
        let name = name.clone();
        std::thread::spawn(move || -> std::io::Result<()> {
            stream.write_all(name.as_bytes())?;
            let mut byte = [0];
            while stream.read(&mut byte)? > 0 {
                if byte == [STALL] {
                    // The stream stays open, unread, until the process is killed.
                    std::thread::park_timeout(PATIENCE * 10);
                }
                stream.write_all(&byte)?;
            }
            Ok(())
        });
    }
}

/// Flows of which `first` at least go to the endpoint `a`, parted by endpoint. None is closed
/// meanwhile, or the balancer would send all newcomers where there are fewest.
async fn flows(local: SocketAddr, first: usize) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
    let (mut to_first, mut others) = (Vec::new(), Vec::new());
    while to_first.len() < first {
        ensure!(others.len() < 1_000, "nobody is sent to the first");
        match who(local).await? {
            (b'a', stream) => to_first.push(stream),
            (_, stream) => others.push(stream),
        }
    }
    Ok((to_first, others))
}

/// Asks and is answered until the flow ends. A half of an exchange is an end as well.
async fn until_it_ends(mut stream: TcpStream) -> Result<()> {
    let mut byte = [b'?'];
    loop {
        if stream.write_all(&byte).await.is_err() {
            return Ok(());
        }
        match soon(stream.read(&mut byte)).await? {
            Ok(1) => {}
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

/// Writes until nothing more is taken, and says how the flow ended.
async fn blocked_until_it_ends(mut stream: TcpStream) -> Result<Option<ErrorKind>> {
    stream.write_all(&[STALL]).await?;
    let chunk = vec![0; 64 << 10];
    loop {
        match stream.write(&chunk).await {
            Ok(_) => {}
            Err(error) => return Ok(Some(error.kind())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_flows_end_and_newcomers_go_elsewhere() -> Result<()> {
    let ((mut first, a), (_second, b)) = (endpoint('a').await?, endpoint('b').await?);
    let (ambassador, local) = running(tcp("two", &[a, b])).await?;
    let (mut to_first, mut survivors) = flows(local, 2 * FLOWS).await?;
    let (mut busy, mut blocked) = (JoinSet::new(), JoinSet::new());
    for stream in to_first.drain(..FLOWS) {
        busy.spawn(until_it_ends(stream));
    }
    for stream in to_first {
        blocked.spawn(blocked_until_it_ends(stream));
    }
    let carried = || {
        let flows = ambassador.flows();
        let to_first = flows.iter().filter(|flow| flow.upstream == a);
        let (mut asked, mut full) = (0, 0);
        for flow in to_first {
            asked += usize::from(flow.bytes_out > 100);
            full += usize::from(flow.bytes_in > 64 << 10);
        }
        asked >= FLOWS && full >= FLOWS
    };
    until("all flows are under load", carried).await?;

    first.kill().await?;
    // None hangs. What the endpoint had not read makes the kernel reset, and so does the relay.
    while let Some(ended) = soon(blocked.join_next()).await? {
        let end = ended??;
        ensure!(end == Some(ErrorKind::ConnectionReset), "{end:?}");
    }
    while let Some(ended) = soon(busy.join_next()).await? {
        ended??;
    }
    // Whoever comes now is served, the first included that meets the refusal.
    for _ in 0..50 {
        ensure!(who(local).await?.0 == b'b');
    }
    for survivor in &mut survivors {
        survivor.write_all(b"!").await?;
        let answer = soon(survivor.read_u8()).await??;
        ensure!(answer == b'!', "the others' flows go on");
    }
    until("nothing is left of the first", || {
        !ambassador.flows().iter().any(|flow| flow.upstream == a)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_one_is_used_again_when_it_is_back() -> Result<()> {
    let (mut child, address) = endpoint('a').await?;
    let (_ambassador, local) = running(tcp("one", &[address])).await?;
    let (_, flow) = who(local).await?;
    child.kill().await?;
    until_it_ends(flow).await?;
    let refused = soon(who(local)).await?;
    ensure!(refused.is_err(), "refused, not held for ever");
    // Another process on the address that the first one left.
    let listener = tokio::net::TcpListener::bind(address).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"c").await;
        }
    });
    soon(async {
        // The last endpoint is never ejected for good.
        while who(local).await.map_or(0, |(name, _)| name) != b'c' {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
