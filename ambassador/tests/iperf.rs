//! iperf3 through the relay: both ways, both at once, and UDP.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, EndpointSet, Forward, Options, Protocol, RelayMode};
use serde_json::Value;
use tokio::process::Child;

mod support;
use support::program::*;
use support::*;

/// A server for one test.
struct Server {
    address: SocketAddr,
    _child: Child,
}

impl Server {
    async fn start() -> Result<Self> {
        // It cannot be told to choose a port, so another program may take the one that was free.
        for _ in 0..10 {
            let address = free_address()?;
            let mut child = program("iperf3")
                .args([
                    "--server",
                    "--one-off",
                    "--forceflush",
                    "--bind",
                    "127.0.0.1",
                ])
                .args(["--port", &address.port().to_string()])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("start iperf3 (Debian package iperf3)")?;
            let mut printed = lines(child.stdout.take().context("its output")?);
            if line_with(&mut printed, "Server listening").await?.is_some() {
                // Its output must be taken, or it would wait.
                tokio::spawn(async move { while let Ok(Some(_)) = printed.next_line().await {} });
                return Ok(Self {
                    address,
                    _child: child,
                });
            }
        }
        anyhow::bail!("iperf3 finds no free port")
    }
}

async fn client(to: SocketAddr, arguments: &[&str]) -> Result<Value> {
    let mut client = program("iperf3");
    client
        .args(["--json", "--client", &to.ip().to_string()])
        .args(["--port", &to.port().to_string()])
        .args(arguments);
    Ok(serde_json::from_slice(&output(client).await?)?)
}

/// What was sent and what arrived, according to both ends together.
fn carried(report: &Value) -> Result<(u64, u64)> {
    let bytes = |what: &str| report["end"][what]["bytes"].as_u64();
    let carried = bytes("sum_sent").zip(bytes("sum_received"));
    carried.with_context(|| format!("both sums in {}", report["end"]))
}

/// Streams `bytes` one way by way of an ambassador.
async fn stream(mode: RelayMode, way: &[&str], bytes: u64) -> Result<()> {
    let server = Server::start().await?;
    let forward = limited(tcp("iperf", &[server.address]), |limits| limits.mode = mode);
    let (ambassador, local) = running(forward).await?;
    let bytes_asked = bytes.to_string();
    let report = client(local, &[way, &["--bytes", &bytes_asked]].concat()).await?;
    let (sent, received) = carried(&report)?;
    // It does not wait for what is under way when the last byte has been sent.
    ensure!(
        sent >= bytes && (1..=sent).contains(&received),
        "{mode:?} {way:?}: {sent} sent, {received} received"
    );
    until("the flows have ended", || ambassador.flows().is_empty()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_both_ways_and_both_at_once() -> Result<()> {
    // More than all buffers on the way can hold.
    const BYTES: u64 = 64 << 20;
    for mode in MODES {
        let (there, back): (&[&str], &[&str]) = (&[], &["--reverse"]);
        stream(mode, there, BYTES).await?;
        stream(mode, back, BYTES).await?;
        // Not with --bidir, which counts on the server to accept its connections in the order in
        // which they were made: by way of a relay that connects each on its own they may change
        // places.
        tokio::try_join!(stream(mode, there, BYTES), stream(mode, back, BYTES))?;
    }
    Ok(())
}

/// An ambassador that forwards TCP and UDP of one port, and that port.
async fn both(server: SocketAddr) -> Result<(Ambassador, SocketAddr)> {
    for _ in 0..10 {
        let local = free_address()?;
        let forward = |protocol: Protocol| {
            let listen = listen(protocol, &local.to_string());
            Forward::new(
                protocol.to_string(),
                listen,
                EndpointSet::fixed(vec![server]),
            )
        };
        let ambassador = Ambassador::new(Options::default());
        let forwards = vec![forward(Protocol::Tcp), forward(Protocol::Udp)];
        // Somebody may have been faster.
        if ambassador.apply(forwards).await.is_ok() {
            return Ok((ambassador, local));
        }
    }
    anyhow::bail!("no port is free for both")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_both_ways() -> Result<()> {
    for way in [&[][..], &["--reverse"]] {
        let server = Server::start().await?;
        let (_ambassador, local) = both(server.address).await?;
        // Slow enough for any machine, or loss would be no fault of the relay.
        let load = [
            "--udp",
            "--bitrate",
            "20M",
            "--length",
            "1400",
            "--bytes",
            "1M",
        ];
        let report = client(local, &[way, &load].concat()).await?;
        let count = |what: &str| {
            report["end"]["sum"][what]
                .as_u64()
                .context(report.to_string())
        };
        let (datagrams, lost) = (count("packets")?, count("lost_packets")?);
        ensure!(
            datagrams >= (1 << 20) / 1400 && lost < datagrams,
            "{way:?}: {lost} of {datagrams} datagrams lost"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_iperf_counts_is_what_the_relay_counts() -> Result<()> {
    let server = Server::start().await?;
    let forward = limited(tcp("iperf", &[server.address]), |limits| {
        limits.mode = RelayMode::Auto;
    });
    let (ambassador, local) = running(forward).await?;
    let load = tokio::spawn(async move { client(local, &["--time", "1"]).await });
    // The control connection is one flow, the stream the other.
    let mut most = 0;
    until("much is carried", || {
        let flows = ambassador.flows();
        most = flows.iter().map(|flow| flow.bytes_in).max().unwrap_or(0);
        most > 1 << 20 || load.is_finished()
    })
    .await?;
    let report = soon(load).await???;
    let (sent, _) = carried(&report)?;
    ensure!(
        most > 0 && most <= sent,
        "{most} counted while {sent} were sent"
    );
    Ok(())
}
