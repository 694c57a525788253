//! Disks that are full or read-only, and that the store does not fill one.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use etcd_client::{AlarmAction, AlarmType, Client, Error};
use nuncio_registry::embedded::Server;
use tokio::task::JoinSet;

use crate::Served;

/// What etcd says when nothing more may be added.
const FULL: &str = "ResourceExhausted: etcdserver: mvcc: database space exceeded";

/// A small file system of its own, gone with this value.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(mebibytes: u32) -> Result<Self> {
        let small = Self(tempfile::tempdir()?);
        let size = format!("size={mebibytes}m");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs"],
            small.0.path(),
        )?;
        Ok(small)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy"], self.0.path()); // best effort
    }
}

fn run(program: &str, args: &[&str], path: &Path) -> Result<()> {
    let status = Command::new(program).args(args).arg(path).status()?;
    ensure!(
        status.success(),
        "{program} {args:?} {}, as root?",
        path.display()
    );
    Ok(())
}

fn message(error: Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => other.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_writes_alone() -> Result<()> {
    let small = Small::mount(24)?;
    let (dir, filler) = (
        small.0.path().join("registry"),
        small.0.path().join("filler"),
    );
    fs::write(&filler, vec![0; 12 << 20])?;
    let server = Served::start(&dir).await?;
    let mut client = Client::connect([server.address.to_string()], None).await?;
    let mut watch = client.watch("k", Some(prefix())).await?;
    watch.message().await?;
    let mut written = 0;
    let refused = loop {
        ensure!(written < 1000, "the disk is never full");
        match client
            .put(format!("k{written:03}"), vec![7; 256 << 10], None)
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break message(error),
        }
    };
    assert_eq!(refused, FULL);
    ensure!(written > 2, "{written} fit in");
    // Reads and watches go on; and it is told why writes do not.
    for i in 0..written {
        assert_eq!(client.get(format!("k{i:03}"), None).await?.count(), 1);
    }
    let mut seen = 0;
    while seen < written {
        seen += watch
            .message()
            .await?
            .context("the watch has ended")?
            .events()
            .len();
    }
    let again = client.put("more", vec![7; 256 << 10], None).await;
    assert_eq!(message(again.unwrap_err()), FULL);
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    assert_eq!(alarms.alarms().len(), 1);

    // Room is found again without anybody's doing.
    fs::remove_file(&filler)?;
    while client.put("more", "", None).await.is_err() {}
    client.put("large", vec![7; 256 << 10], None).await?;
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    assert!(alarms.alarms().is_empty());
    client.put("k", "", None).await?;
    let response = watch.message().await?.context("the watch has ended")?;
    assert_eq!(response.events().len(), 1);
    server.stop().await?;

    // Full as it starts: what is there is served.
    fill(&filler)?;
    let server = Served::start(&dir).await?;
    let mut client = Client::connect([server.address.to_string()], None).await?;
    assert_eq!(client.get("large", None).await?.count(), 1);
    server.stop().await?;
    fs::remove_file(&filler)?;

    run("mount", &["-o", "remount,ro"], small.0.path())?;
    let refused = Server::open(&dir).err().context("it was opened")?;
    let refused = format!("{:#}", anyhow::Error::from(refused));
    let expected = format!("open registry {}", dir.join("registry.redb").display());
    ensure!(refused.starts_with(&expected), "{refused}");
    ensure!(refused.contains("Read-only file system"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_its_quota() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Server::open_with_quota(dir.path(), 4 << 20)?;
    let bound = server.bind(([127, 0, 0, 1], 0).into()).await?;
    let address = bound.local_addr().to_string();
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(bound.serve(stop.clone()));
    let mut client = Client::connect([address], None).await?;
    let mut written = 0;
    let refused = loop {
        ensure!(written < 100, "there is no end to it");
        match client
            .put(format!("k{written:02}"), vec![7; 128 << 10], None)
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break message(error),
        }
    };
    assert_eq!(refused, FULL);
    // Each is there, and once more in the history.
    ensure!((12..=20).contains(&written), "{written} fit in");
    let lease = client.lease_grant(60, None).await;
    assert_eq!(message(lease.unwrap_err()), FULL);
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    assert_eq!(alarms.alarms().len(), 1);
    assert_eq!(client.get("k00", None).await?.count(), 1);
    // What makes room is not refused.
    let deleted = client
        .delete("k0", Some(etcd_client::DeleteOptions::new().with_prefix()))
        .await?;
    let revision = deleted.header().context("a header")?.revision();
    client.compact(revision, None).await?;
    client.put("more", "", None).await?;
    let alarms = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    assert!(alarms.alarms().is_empty());
    stop.cancel();
    serving.await?;
    Ok(())
}

fn prefix() -> etcd_client::WatchOptions {
    etcd_client::WatchOptions::new().with_prefix()
}

/// Writes until nothing more fits.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    loop {
        match file.write(&[0; 64 << 10]) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Overwriting a few keys for ever takes a bounded file, and what is not used can be had back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_does_not_grow_for_ever() -> Result<()> {
    const MEBIBYTES: u64 = 160;
    let dir = tempfile::tempdir()?;
    let server = Served::start(dir.path()).await?;
    let client = Client::connect([server.address.to_string()], None).await?;
    let size =
        || -> Result<u64> { Ok(fs::metadata(dir.path().join("registry.redb"))?.len() >> 20) };
    overwrite(&client, MEBIBYTES).await?;
    let first = size()?;
    overwrite(&client, MEBIBYTES).await?;
    let grown = size()?;
    ensure!(
        grown <= first + first / 4,
        "{first} MiB, and then {grown} MiB"
    );
    let mut client = client;
    let revision = client
        .get("k0", None)
        .await?
        .header()
        .context("header")?
        .revision();
    client.compact(revision, None).await?;
    client.defragment().await?;
    let left = size()?;
    ensure!(
        left < grown / 2 && left < 40,
        "{left} MiB of {grown} are left"
    );
    assert_eq!(
        client.get("k3", None).await?.kvs()[0].value().len(),
        1 << 20
    );
    server.stop().await
}

/// Puts values of a mebibyte in four keys.
async fn overwrite(client: &Client, mebibytes: u64) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let mut client = client.clone();
        writers.spawn(async move {
            for _ in 0..mebibytes / 4 {
                client
                    .put(format!("k{writer}"), vec![7; 1 << 20], None)
                    .await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}
