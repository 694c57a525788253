//! What is asked of the embedded server alone: it survives SIGKILL, and etcdctl works on it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command as Blocking, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp};
use nuncio_registry::embedded::{OpenError, Server};
use nuncio_registry::{ConnectError, ConnectOptions, Registry};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const SERVE_IN: &str = "NUNCIO_TEST_SERVE_IN";

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A server in this process, stopped when dropped.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(dir: &Path) -> Result<Self> {
        let bound = Server::open(dir)?.bind(loopback()).await?;
        let (address, stop) = (bound.local_addr(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(stop.clone()));
        Ok(Self {
            address,
            stop,
            task,
        })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// Not a test by itself: the process that `survives_sigkill` kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run in a child process by survives_sigkill"]
async fn child_server() -> Result<()> {
    let dir = std::env::var(SERVE_IN).context("run by survives_sigkill only")?;
    let bound = Server::open(Path::new(&dir))?.bind(loopback()).await?;
    println!("listening {}", bound.local_addr());
    std::io::stdout().flush()?;
    bound.serve(CancellationToken::new()).await;
    Ok(())
}

async fn spawn_child(dir: &Path) -> Result<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_server", "--ignored", "--nocapture"])
        .env(SERVE_IN, dir)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await?? {
        if let Some((_, address)) = line.split_once("listening ") {
            return Ok((child, address.parse()?));
        }
    }
    bail!("the child ended before it listened")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_sigkill() -> Result<()> {
    const WRITERS: u64 = 8;
    let dir = tempfile::tempdir()?;
    let acked: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 1..=4_u64 {
        let (mut child, address) = spawn_child(dir.path()).await?;
        let client = Client::connect([address.to_string()], None).await?;
        check(&client, &acked).await?;
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, acked) = (client.clone(), Arc::clone(&acked));
            writers.spawn(write_until_killed(client, writer, acked));
        }
        // Kill in the midst of writing: as soon as enough is acknowledged.
        let total = || acked.iter().map(|n| n.load(Ordering::SeqCst)).sum::<u64>();
        let enough = total() + 50 * round;
        while total() < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().await?;
        while let Some(done) = writers.join_next().await {
            done?;
        }
    }
    let (mut child, address) = spawn_child(dir.path()).await?;
    check(&Client::connect([address.to_string()], None).await?, &acked).await?;
    child.kill().await?;
    Ok(())
}

/// Writes number after number, each in a transaction of two keys, and counts those acknowledged.
async fn write_until_killed(mut client: Client, writer: u64, acked: Arc<Vec<AtomicU64>>) {
    let counter = &acked[usize::try_from(writer).unwrap()];
    loop {
        let next = counter.load(Ordering::SeqCst) + 1;
        let ops = [
            TxnOp::put(format!("last/{writer}"), next.to_string(), None),
            TxnOp::put(format!("all/{writer}/{next:08}"), "", None),
        ];
        let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, client.txn(Txn::new().and_then(ops))).await
        else {
            return;
        };
        counter.store(next, Ordering::SeqCst);
    }
}

/// Everything acknowledged is there; of what was not, at most one write per writer, and that whole.
async fn check(client: &Client, acked: &[AtomicU64]) -> Result<()> {
    let mut kv = client.kv_client();
    for (writer, counter) in acked.iter().enumerate() {
        let expected = counter.load(Ordering::SeqCst);
        let get = kv.get(format!("last/{writer}"), None).await?;
        let last = get
            .kvs()
            .first()
            .map_or(Ok(0), |kv| kv.value_str().unwrap().parse::<u64>())?;
        assert!(
            last == expected || last == expected + 1,
            "{writer}: {last}, acked {expected}"
        );
        let count = GetOptions::new().with_prefix().with_count_only();
        let all = kv.get(format!("all/{writer}/"), Some(count)).await?.count();
        assert_eq!(all, i64::try_from(last)?, "{writer}");
        counter.store(last, Ordering::SeqCst);
    }
    Ok(())
}

async fn etcdctl(address: SocketAddr, args: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = Command::new("etcdctl")
        .args(["--endpoints", &address.to_string()])
        .args(args)
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start etcdctl: install it with `apt-get install etcd-client`")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await?;
    drop(stdin);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_reads_and_writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let run = async |args: &[&str]| -> Result<String> {
        let (succeeded, output) = etcdctl(server.address, args, "").await?;
        anyhow::ensure!(succeeded, "etcdctl {args:?}: {output}");
        Ok(output)
    };
    assert_eq!(run(&["put", "a/1", "one"]).await?, "OK\n");
    assert_eq!(run(&["put", "a/2", "two"]).await?, "OK\n");
    assert_eq!(
        run(&["get", "--prefix", "a/"]).await?,
        "a/1\none\na/2\ntwo\n"
    );
    assert_eq!(
        run(&["get", "--prefix", "--keys-only", "a/"]).await?,
        "a/1\n\na/2\n\n"
    );
    assert_eq!(run(&["del", "a/1"]).await?, "1\n");

    let txn = "value(\"a/2\") = \"two\"\n\nput a/3 three\nget a/2\n\nput a/4 four\n\n";
    let (succeeded, output) = etcdctl(server.address, &["txn"], txn).await?;
    assert!(
        succeeded && output.contains("SUCCESS\n\nOK\n\na/2\ntwo"),
        "{output}"
    );

    let granted = run(&["lease", "grant", "60"]).await?;
    let lease = granted.split_whitespace().nth(1).context("lease id")?;
    run(&["put", "--lease", lease, "leased", "x"]).await?;
    let left = run(&["lease", "timetolive", lease, "--keys"]).await?;
    assert!(
        left.contains("granted with TTL(60s)") && left.contains("[leased]"),
        "{left}"
    );
    assert!(run(&["lease", "list"]).await?.contains(lease));
    run(&["lease", "keep-alive", "--once", lease]).await?;
    run(&["lease", "revoke", lease]).await?;
    assert_eq!(run(&["get", "leased"]).await?, "");

    assert!(run(&["endpoint", "status"]).await?.contains("3.4.0"));
    assert!(run(&["endpoint", "health"]).await?.contains("is healthy"));
    assert!(run(&["member", "list"]).await?.contains("embedded"));
    assert!(run(&["alarm", "list"]).await?.is_empty());
    assert!(
        run(&["compact", "3"])
            .await?
            .contains("compacted revision 3")
    );
    for (args, expected) in [
        (
            &["auth", "enable"][..],
            "services KV, Watch, Lease, Cluster and Maintenance only",
        ),
        (
            &["member", "remove", "1"],
            "single member without changes of membership",
        ),
    ] {
        let (succeeded, output) = etcdctl(server.address, args, "").await?;
        assert!(
            !succeeded && output.contains(expected),
            "{args:?}: {output}"
        );
    }
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_watches_and_locks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    etcdctl(server.address, &["put", "k/1", "old"], "").await?;
    let mut watch = Command::new("etcdctl")
        .args(["--endpoints", &server.address.to_string()])
        .args(["watch", "--prefix", "--rev", "2", "--prev-kv", "k/"])
        .env("ETCDCTL_API", "3")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut told = watch.stdout.take().context("stdout")?;
    etcdctl(server.address, &["put", "k/1", "new"], "").await?;
    etcdctl(server.address, &["del", "k/1"], "").await?;
    let expected = "PUT\nk/1\nold\nPUT\nk/1\nold\nk/1\nnew\nDELETE\nk/1\nnew\nk/1\n\n";
    let mut output = vec![0; expected.len()];
    tokio::time::timeout(PATIENCE, told.read_exact(&mut output)).await??;
    assert_eq!(String::from_utf8(output)?, expected);
    watch.kill().await?;

    let (succeeded, output) = etcdctl(server.address, &["lock", "l", "echo", "held"], "").await?;
    assert!(succeeded && output.contains("held"), "{output}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_open_is_refused_until_the_first_is_closed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    // A client that stays connected must not keep the file open after the stop.
    let mut client = Client::connect([server.address.to_string()], None).await?;
    let mut watch = client.watch("k", None).await?;
    watch.message().await?;
    match Server::open(dir.path()) {
        Err(OpenError::InUse { path }) => assert_eq!(path, dir.path().join("registry.redb")),
        Err(other) => bail!(other),
        Ok(_) => bail!("it was opened twice"),
    }
    server.stop().await?;
    Served::start(dir.path()).await?.stop().await
}

/// A process that was killed as it made the store has not kept the next one from making it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_half_made_is_made_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let draft = dir.path().join(".new-registry.redb");
    std::fs::write(&draft, vec![0; 1 << 20])?;
    Served::start(dir.path()).await?.stop().await?;
    assert!(!draft.exists());
    Served::start(dir.path()).await?.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_file_is_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("registry.redb");
    std::fs::write(
        &path,
        "somebody else's file, and long enough to be looked at".repeat(200),
    )?;
    let before = std::fs::read(&path)?;
    assert!(matches!(
        Server::open(dir.path()),
        Err(OpenError::Store { .. })
    ));
    assert_eq!(std::fs::read(&path)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_large_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let mut client = Client::connect([server.address.to_string()], None).await?;
    assert!(client.put("k", vec![0; 2 << 20], None).await.is_err());
    client.put("k", vec![0; 1 << 20], None).await?;
    let found = Compare::version("k", CompareOp::Equal, 1);
    assert!(client.txn(Txn::new().when([found])).await?.succeeded());
    server.stop().await
}

#[tokio::test]
async fn an_unreachable_registry_is_named_with_its_error() -> Result<()> {
    let listener = std::net::TcpListener::bind(loopback())?;
    let free = listener.local_addr()?;
    drop(listener);
    let options = |endpoint: String| ConnectOptions {
        endpoints: vec![endpoint],
        timeout: Duration::from_millis(500),
    };
    let error = Registry::connect(&options(format!("http://{free}")))
        .await
        .unwrap_err();
    let expected = format!("no registry at http://{free}: Connection refused (os error 111)");
    assert_eq!(error.to_string(), expected);

    // Somebody who accepts and never says anything.
    let mute = std::net::TcpListener::bind(loopback())?;
    let error = Registry::connect(&options(mute.local_addr()?.to_string()))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NoRegistry { .. }),
        "{error:?}"
    );

    let error = Registry::connect(&options("10.0.0.1".to_owned()))
        .await
        .unwrap_err();
    let expected = "registry endpoint \"10.0.0.1\" is not of the form http://HOST:PORT";
    assert_eq!(error.to_string(), expected);
    Ok(())
}

#[test]
fn the_example_runs() -> Result<()> {
    let target = std::env::current_exe()?; // target/debug/deps/embedded-…
    let built = target
        .ancestors()
        .nth(2)
        .context("target directory")?
        .join("examples/discover");
    let output = Blocking::new(&built)
        .output()
        .with_context(|| format!("run {}: `cargo build --examples` makes it", built.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(text.contains("redis answers at 10.0.0.2:6379"), "{text}");
    Ok(())
}
