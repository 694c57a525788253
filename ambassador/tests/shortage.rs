//! A process without descriptors pauses, and goes on when there are some again.

use std::fs::File;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

mod support;
use support::*;

const INNER: &str = "NUNCIO_TEST_SHORTAGE";

/// The limit is of a process, and the other tests run in this one.
#[test]
fn emfile_pauses_a_listener_and_passes() -> Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .args(["inner", "--exact", "--include-ignored", "--nocapture"])
        .env(INNER, "1")
        .status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
#[ignore = "run by emfile_pauses_a_listener_and_passes in a process of its own"]
async fn inner() -> Result<()> {
    if std::env::var_os(INNER).is_none() {
        return Ok(());
    }
    let upstream = naming_server(b'a').await?;
    let (ambassador, local) = running(tcp("short", &[upstream])).await?;
    ensure!(who(local).await?.0 == b'a');
    until("the first flow has ended", || ambassador.flows().is_empty()).await?;

    setrlimit(Resource::RLIMIT_NOFILE, 64, 64)?;
    // The client's own socket first, then nothing is left.
    let socket = tokio::net::TcpSocket::new_v4()?;
    let mut held: Vec<File> = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    let mut client: TcpStream = soon(socket.connect(local)).await??;
    let pause = std::time::Duration::from_millis(100);
    let waits = tokio::time::timeout(pause, client.read_u8()).await;
    ensure!(waits.is_err(), "held, not refused: {waits:?}");
    // Enough for accepting, but not for connecting: still held.
    held.pop().context("a descriptor")?;
    let waits = tokio::time::timeout(pause, client.read_u8()).await;
    ensure!(waits.is_err(), "held, not refused: {waits:?}");
    held.clear();
    ensure!(
        soon(client.read_u8()).await?? == b'a',
        "served as soon as it can be"
    );
    Ok(())
}
