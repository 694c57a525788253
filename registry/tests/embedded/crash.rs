//! What was acknowledged outlives the process, at whatever instant that is killed.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Client, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp,
};
use nuncio_registry::embedded::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, loopback};

const SERVE_IN: &str = "NUNCIO_TEST_SERVE_IN";
const WRITERS: usize = 6;
/// TTL of leases that must not end meanwhile.
const TTL: i64 = 3600;

/// Not a test by itself: the process that the others kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run in a child process by the tests that kill it"]
async fn child_server() -> Result<()> {
    let dir = std::env::var(SERVE_IN).context("run by the tests that kill it only")?;
    let bound = Server::open(Path::new(&dir))?.bind(loopback()).await?;
    println!(
        "process {} listening {}",
        std::process::id(),
        bound.local_addr()
    );
    std::io::stdout().flush()?;
    bound.serve(CancellationToken::new()).await;
    Ok(())
}

/// Starts the server in a process of its own, by `wrapper` if there is one.
fn spawn_child(dir: &Path, wrapper: &[&str]) -> Result<Child> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("path")?;
    let args = ["--exact", "crash::child_server", "--ignored", "--nocapture"];
    let line: Vec<&str> = wrapper
        .iter()
        .copied()
        .chain([program])
        .chain(args)
        .collect();
    Ok(Command::new(line[0])
        .args(&line[1..])
        .env(SERVE_IN, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?)
}

/// The process that serves, and where.
async fn listening(child: &mut Child) -> Result<(u32, SocketAddr)> {
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    while let Some(line) = tokio::time::timeout(PATIENCE, lines.next_line()).await?? {
        let told = line.split_once("process ").map(|(_, told)| told);
        if let Some((pid, address)) = told.and_then(|told| told.split_once(" listening ")) {
            return Ok((pid.parse()?, address.parse()?));
        }
    }
    bail!("the child ended before it listened")
}

/// What a lease's holder knows of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holding {
    /// It may have its key already.
    Granted,
    WithKey,
    /// It is being revoked.
    Unknown,
    Revoked,
}

/// What was acknowledged.
struct Ledger {
    /// For each writer its last number.
    last: Vec<AtomicU64>,
    revision: AtomicI64,
    leases: Mutex<BTreeMap<i64, Holding>>,
}

impl Ledger {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            last: (0..WRITERS).map(|_| AtomicU64::new(0)).collect(),
            revision: AtomicI64::new(0),
            leases: Mutex::default(),
        })
    }

    fn saw(&self, header: Option<&etcd_client::ResponseHeader>) {
        let revision = header.map_or(0, etcd_client::ResponseHeader::revision);
        self.revision.fetch_max(revision, Ordering::SeqCst);
    }

    fn lease(&self, id: i64, holding: Holding) {
        self.leases.lock().unwrap().insert(id, holding);
    }
}

/// Kills the server at random instants, as it starts, recovers and writes. `NUNCIO_CRASHES` says how often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_sigkill() -> Result<()> {
    let crashes: u32 = match std::env::var("NUNCIO_CRASHES") {
        Ok(given) => given.parse().context("NUNCIO_CRASHES")?,
        Err(_) => 60,
    };
    let dir = tempfile::tempdir()?;
    let ledger = Ledger::new();
    for crash in 0..crashes {
        let mut child = spawn_child(dir.path(), &[])?;
        if crash % 10 == 9 {
            // Before it has said anything: while it makes the store or mends it.
            let instant = Duration::from_millis(rand::random_range(0..40));
            tokio::time::sleep(instant).await;
        } else {
            let (_, address) = listening(&mut child).await?;
            let client = Client::connect([address.to_string()], None).await?;
            check(&client, &ledger)
                .await
                .with_context(|| format!("after crash {crash}"))?;
            let writing = write(&client, &ledger);
            let instant = Duration::from_micros(rand::random_range(0..150_000));
            tokio::time::sleep(instant).await;
            child.kill().await?;
            writing.join_all().await;
        }
        child.kill().await?;
    }
    let mut child = spawn_child(dir.path(), &[])?;
    let (_, address) = listening(&mut child).await?;
    let client = Client::connect([address.to_string()], None).await?;
    check(&client, &ledger).await?;
    let written: u64 = ledger
        .last
        .iter()
        .map(|last| last.load(Ordering::SeqCst))
        .sum();
    ensure!(
        written > u64::from(crashes),
        "only {written} writes were answered"
    );
    child.kill().await?;
    Ok(())
}

/// Starts all writers, which end when nobody answers.
fn write(client: &Client, ledger: &Arc<Ledger>) -> JoinSet<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, ledger) = (client.clone(), Arc::clone(ledger));
        writers.spawn(async move { while count(client.clone(), writer, &ledger).await.is_ok() {} });
    }
    let (client, ledger) = (client.clone(), Arc::clone(ledger));
    writers.spawn(async move { while lease(client.clone(), &ledger).await.is_ok() {} });
    writers
}

/// Writes the next number, in a transaction of two keys; every hundredth is followed by a compaction.
async fn count(mut client: Client, writer: usize, ledger: &Ledger) -> Result<()> {
    let next = ledger.last[writer].load(Ordering::SeqCst) + 1;
    let ops = [
        TxnOp::put(format!("last/{writer}"), next.to_string(), None),
        TxnOp::put(format!("all/{writer}/{next:08}"), "", None),
    ];
    let txn = Txn::new().and_then(ops);
    let response = tokio::time::timeout(PATIENCE, client.txn(txn)).await??;
    ledger.last[writer].store(next, Ordering::SeqCst);
    ledger.saw(response.header());
    if next.is_multiple_of(100) {
        let revision = ledger.revision.load(Ordering::SeqCst) - 10;
        let _ = client.compact(revision, None).await; // another writer may have compacted further
    }
    Ok(())
}

/// Takes a lease, puts a key on it, and gives every other one up again.
async fn lease(mut client: Client, ledger: &Ledger) -> Result<()> {
    let id = rand::random_range(1..i64::MAX);
    let chosen = Some(LeaseGrantOptions::new().with_id(id));
    client.lease_grant(TTL, chosen).await?;
    ledger.lease(id, Holding::Granted);
    let on_it = Some(PutOptions::new().with_lease(id));
    client.put(format!("leased/{id}"), "", on_it).await?;
    ledger.lease(id, Holding::WithKey);
    if id % 2 == 0 {
        ledger.lease(id, Holding::Unknown);
        client.lease_revoke(id).await?;
        ledger.lease(id, Holding::Revoked);
    }
    Ok(())
}

/// Everything acknowledged is there; of what was not, at most one write per writer, and that whole.
async fn check(client: &Client, ledger: &Ledger) -> Result<()> {
    let mut kv = client.kv_client();
    for (writer, counter) in ledger.last.iter().enumerate() {
        let expected = counter.load(Ordering::SeqCst);
        let get = kv.get(format!("last/{writer}"), None).await?;
        let last = match get.kvs().first() {
            Some(kv) => kv.value_str()?.parse::<u64>()?,
            None => 0,
        };
        let whole = last == expected || last == expected + 1;
        ensure!(
            whole,
            "writer {writer}: {last} is there, {expected} was acknowledged"
        );
        let count = GetOptions::new().with_prefix().with_count_only();
        let all = kv.get(format!("all/{writer}/"), Some(count)).await?;
        assert_eq!(all.count(), i64::try_from(last)?, "writer {writer}");
        counter.store(last, Ordering::SeqCst);
        let revision = get.header().context("header")?.revision();
        let told = ledger.revision.load(Ordering::SeqCst);
        ensure!(
            revision >= told,
            "revision {revision} after {told} was told"
        );
    }
    let before = ledger.revision.load(Ordering::SeqCst);
    let put = kv.put("more", "", None).await?;
    ledger.saw(put.header());
    ensure!(
        ledger.revision.load(Ordering::SeqCst) > before,
        "revisions rise"
    );
    check_leases(client.clone(), ledger).await
}

async fn check_leases(mut client: Client, ledger: &Ledger) -> Result<()> {
    let listed = client.leases().await?;
    let listed: Vec<i64> = listed
        .leases()
        .iter()
        .map(etcd_client::LeaseStatus::id)
        .collect();
    let leases = std::mem::take(&mut *ledger.leases.lock().unwrap());
    let mut kept = BTreeMap::new();
    for (id, holding) in leases {
        let key = format!("leased/{id}");
        let found = client.get(key.as_str(), None).await?;
        let there = (listed.contains(&id), found.count() == 1);
        match holding {
            Holding::Granted => assert!(there.0, "{id:x} was granted"),
            Holding::WithKey => assert_eq!(there, (true, true), "{id:x} has a key"),
            Holding::Revoked => assert_eq!(there, (false, false), "{id:x} was revoked"),
            Holding::Unknown => assert!(there.0 || !there.1, "{key} outlives its lease"),
        }
        if there == (true, true) {
            let options = Some(LeaseTimeToLiveOptions::new().with_keys());
            let left = client.lease_time_to_live(id, options).await?;
            assert_eq!(
                (left.granted_ttl(), left.keys()),
                (TTL, &[key.into_bytes()][..])
            );
            kept.insert(id, Holding::WithKey);
        }
    }
    // A few go on to the next crash; the rest has been seen to last.
    while kept.len() > 10
        && let Some((id, _)) = kept.pop_first()
    {
        client.lease_revoke(id).await?;
    }
    *ledger.leases.lock().unwrap() = kept;
    Ok(())
}

/// The kernel has been told to bring data to the disk, and has done so, before the answer comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_before_it_answers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let trace = dir.path().join("trace");
    let file = trace.to_str().context("path")?;
    let strace = [
        "strace",
        "-f",
        "-q",
        "-e",
        "trace=fdatasync,fsync",
        "-o",
        file,
    ];
    let mut child = spawn_child(dir.path(), &strace).context("start strace")?;
    let (pid, address) = listening(&mut child).await?;
    let mut client = Client::connect([address.to_string()], None).await?;
    // A line is written before the traced thread goes on.
    let synced =
        || -> Result<usize> { Ok(std::fs::read_to_string(&trace)?.matches(" = 0").count()) };
    for i in 0..10 {
        let before = synced()?;
        client.put("k", i.to_string(), None).await?;
        ensure!(synced()? > before, "put {i} was answered without a sync");
    }
    let before = synced()?;
    let lease = client.lease_grant(TTL, None).await?.id();
    ensure!(synced()? > before, "a lease was granted without a sync");
    let before = synced()?;
    client.lease_revoke(lease).await?;
    ensure!(synced()? > before, "a lease was revoked without a sync");
    let before = synced()?;
    client.get("k", None).await?;
    assert_eq!(synced()?, before, "a read needs none");
    let mut kill = Command::new("kill");
    let killed = kill.args(["-KILL", &pid.to_string()]).status().await?;
    ensure!(killed.success(), "kill");
    tokio::time::timeout(PATIENCE, child.wait()).await??;
    Ok(())
}
