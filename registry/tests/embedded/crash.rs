//! What was acknowledged outlives the process.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Client, GetOptions, Txn, TxnOp};
use nuncio_registry::embedded::Server;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, loopback};

const SERVE_IN: &str = "NUNCIO_TEST_SERVE_IN";

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
        .args(["--exact", "crash::child_server", "--ignored", "--nocapture"])
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
