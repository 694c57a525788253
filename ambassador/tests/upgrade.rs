//! A successor takes over the listeners, and nobody who comes notices.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nuncio_ambassador::{Ambassador, Forward, Heritage, Options, Successors};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

mod support;
use support::*;

const ROLE: &str = "NUNCIO_TEST_UPGRADE";
const DOOR: &str = "NUNCIO_TEST_UPGRADE_DOOR";
const UPSTREAM: &str = "NUNCIO_TEST_UPGRADE_UPSTREAM";

/// An ambassador in a process of its own, which does what its role says.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, door: &Path, upstream: SocketAddr) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["inner", "--exact", "--include-ignored", "--nocapture"])
            .env(ROLE, role)
            .env(DOOR, door)
            .env(UPSTREAM, upstream.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        Ok(Self { child, lines })
    }

    /// What follows `word` on the line that begins with it.
    async fn says(&mut self, word: &str) -> Result<String> {
        let line = async {
            while let Some(line) = self.lines.next_line().await? {
                if let Some(rest) = line.strip_prefix(word) {
                    return Ok(rest.trim().to_owned());
                }
            }
            bail!("it ended before it said {word:?}");
        };
        soon(line).await?
    }

    async fn ends(&mut self) -> Result<bool> {
        // What it waits for, unless that has happened already.
        drop(self.child.stdin.take());
        Ok(soon(self.child.wait()).await??.success())
    }
}

fn forwards(upstream: SocketAddr) -> Vec<Forward> {
    let short = limited(udp("datagrams", &[upstream]), |l| {
        l.idle = Duration::from_millis(200);
    });
    vec![tcp("echo", &[upstream]), short]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other tests in processes of their own"]
async fn inner() -> Result<()> {
    let Some(role) = std::env::var_os(ROLE) else {
        return Ok(());
    };
    let door = std::env::var_os(DOOR).context("a door")?;
    let (door, upstream) = (Path::new(&door), std::env::var(UPSTREAM)?.parse()?);
    let ambassador = Arc::new(Ambassador::new(Options {
        workers: 2,
        ..Options::default()
    }));
    if role == "first" {
        ambassador.apply(forwards(upstream)).await?;
        let successors = Successors::bind(door)?;
        println!(
            "\nlistens {} {}",
            local(&ambassador, 0),
            local(&ambassador, 1)
        );
        successors.serve(&ambassador).await;
        println!("\nstopped");
        ambassador.idle().await;
        return Ok(());
    }
    let mut heritage = Heritage::claim(door).await?;
    ambassador.inherit(&mut heritage);
    if role == "vanishes" {
        std::process::exit(3);
    }
    if role == "cannot" {
        let mut more = forwards(upstream);
        // Where the upstream itself listens.
        let taken = listen(nuncio_ambassador::Protocol::Tcp, &upstream.to_string());
        more.push(Forward::new("taken", taken, more[0].upstreams.clone()));
        let refused = ambassador.apply(more).await;
        ensure!(refused.is_err_and(|error| error.forward() == Some("taken")));
        return Ok(());
    }
    ambassador.apply(forwards(upstream)).await?;
    let successors = Successors::bind(door)?;
    println!(
        "\nlistens {} {}",
        local(&ambassador, 0),
        local(&ambassador, 1)
    );
    heritage.take_over().await?;
    println!("\naccepts");
    let mut rest = Vec::new();
    let mut stdin = tokio::io::stdin();
    tokio::select! {
        () = successors.serve(&ambassador) => {}
        read = stdin.read_to_end(&mut rest) => { read?; }
    }
    ambassador.idle().await;
    Ok(())
}

/// Sends back what it gets, over TCP and UDP.
async fn echo_server() -> Result<SocketAddr> {
    let (listener, socket) = loop {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // The same port may be taken for UDP.
        if let Ok(socket) = UdpSocket::bind(listener.local_addr()?).await {
            break (listener, socket);
        }
    };
    let local = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 100];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..bytes], from).await;
        }
    });
    Ok(local)
}

/// Connects, is echoed, and closes, again and again.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (stop, done) = (stop.clone(), done.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let stream = TcpStream::connect(address).await.context("connect")?;
                    soon(echo(stream)).await??;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self { stop, done, tasks }
    }

    /// Waits for so many more that went well.
    async fn goes_on(&mut self, more: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + more;
        tokio::select! {
            gone = until("the load goes on", || self.done.load(Ordering::Relaxed) >= goal) => gone,
            Some(failed) = self.tasks.join_next() => failed?.context("one of the load"),
        }
    }

    async fn ends(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?.context("one of the load")?;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let (question, mut answer) = ([7; 100], [0; 100]);
    stream.write_all(&question).await.context("write")?;
    stream.read_exact(&mut answer).await.context("read")?;
    ensure!(answer == question);
    stream.shutdown().await.context("shutdown")?;
    ensure!(stream.read(&mut answer).await.context("FIN")? == 0);
    Ok(())
}

fn addresses(said: &str) -> Result<(SocketAddr, SocketAddr)> {
    let (tcp, udp) = said.split_once(' ').context("two addresses")?;
    Ok((tcp.parse()?, udp.parse()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_or_reset_while_the_process_changes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (door, upstream) = (directory.path().join("door"), echo_server().await?);
    let mut first = Process::start("first", &door, upstream)?;
    let said = first.says("listens").await?;
    let (tcp, udp) = addresses(&said)?;
    let mut held = TcpStream::connect(tcp).await?;
    held.write_all(b"old").await?;
    let mut echoed = [0; 3];
    soon(held.read_exact(&mut echoed)).await??;
    let datagrams = UdpSocket::bind("127.0.0.1:0").await?;
    datagrams.connect(udp).await?;
    datagrams.send(b"old").await?;
    soon(datagrams.recv(&mut echoed)).await??;

    let mut load = Load::on(tcp);
    load.goes_on(200).await?;
    let mut second = Process::start("second", &door, upstream)?;
    ensure!(second.says("listens").await? == said, "the same sockets");
    second.says("accepts").await?;
    first.says("stopped").await?;
    load.goes_on(200).await?;

    // What was open is still the first one's, and keeps it.
    held.write_all(b"yet").await?;
    soon(held.read_exact(&mut echoed)).await??;
    ensure!(&echoed == b"yet" && first.child.try_wait()?.is_none());
    // The same client's next datagram is the second one's.
    datagrams.send(b"new").await?;
    soon(datagrams.recv(&mut echoed)).await??;
    ensure!(&echoed == b"new");
    held.shutdown().await?;
    ensure!(soon(held.read(&mut echoed)).await?? == 0);
    ensure!(first.ends().await?, "idle, and ended well");
    load.goes_on(200).await?;

    let mut third = Process::start("third", &door, upstream)?;
    third.says("accepts").await?;
    load.goes_on(200).await?;
    let served = load.ends().await?;
    ensure!(served >= 800);
    ensure!(third.ends().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_fails_changes_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (door, upstream) = (directory.path().join("door"), echo_server().await?);
    let mut first = Process::start("first", &door, upstream)?;
    let (tcp, _) = addresses(&first.says("listens").await?)?;
    let mut load = Load::on(tcp);
    load.goes_on(100).await?;
    for (role, ends_well) in [("vanishes", false), ("cannot", true), ("vanishes", false)] {
        let mut failing = Process::start(role, &door, upstream)?;
        ensure!(failing.ends().await? == ends_well, "{role}");
        load.goes_on(100).await?;
    }
    ensure!(first.child.try_wait()?.is_none());
    // And the next one finds all as it was.
    let mut second = Process::start("second", &door, upstream)?;
    second.says("accepts").await?;
    first.says("stopped").await?;
    load.goes_on(100).await?;
    load.ends().await?;
    ensure!(first.ends().await?);
    ensure!(second.ends().await?);
    ensure!(!door.exists(), "nothing is left behind");
    Ok(())
}
