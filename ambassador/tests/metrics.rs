//! What is counted, and that it can be read by those who scrape it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use nuncio_ambassador::{Forward, RelayMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::admin::{Admin, admin};
use support::openmetrics::parse;
use support::*;

/// A figure of the only endpoint of forward `name`.
fn labels(name: &str, endpoint: SocketAddr) -> String {
    format!("{{endpoint=\"{endpoint}\",forward={name:?}}}")
}

async fn with(forwards: Vec<Forward>) -> Result<Admin> {
    let admin = admin().await?;
    admin.ambassador().apply(forwards).await?;
    Ok(admin)
}

/// Waits until the sum of what begins with `prefix` is `value`.
async fn becomes(admin: &Admin, prefix: &str, value: f64) -> Result<()> {
    let reached = async {
        while admin.metrics().await?.sum(prefix) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    match soon(reached).await {
        Ok(done) => done,
        Err(error) => {
            let found = admin.metrics().await?;
            Err(error.context(format!("{prefix} is not {value}: {found:#?}")))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_live_on_each_datapath() -> Result<()> {
    for (mode, datapath, reason) in [
        (RelayMode::Copy, "copy", "mode is copy"),
        (RelayMode::Splice, "splice", "mode is splice"),
    ] {
        let upstream = TcpListener::bind("127.0.0.1:0").await?;
        let to = upstream.local_addr()?;
        let forward = limited(tcp("web", &[to]), |limits| limits.mode = mode);
        let admin = with(vec![forward]).await?;
        let mut client = TcpStream::connect(local(admin.ambassador(), 0)).await?;
        let (mut server, _) = soon(upstream.accept()).await??;
        for round in 1..=3_u32 {
            client.write_all(&noise(1, 10_000)).await?;
            soon(server.read_exact(&mut vec![0; 10_000])).await??;
            let carried = f64::from(round * 10_000);
            becomes(&admin, "nuncio_ambassador_received_bytes_total", carried).await?;
            becomes(&admin, "nuncio_ambassador_flows_open", 1.0).await?;
        }
        let samples = admin.metrics().await?;
        let family = "nuncio_ambassador_datapath_flows";
        let labels = format!("{{datapath={datapath:?},forward=\"web\",reason={reason:?}}}");
        let found = samples.get(&format!("{family}{labels}"));
        ensure!(found == Some(1.0), "{labels}: {samples:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_told_apart() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let to = upstream.local_addr()?;
    let admin = with(vec![tcp("web", &[to])]).await?;
    let at = local(admin.ambassador(), 0);
    let pair = async || -> Result<(TcpStream, TcpStream)> {
        let client = TcpStream::connect(at).await?;
        Ok((client, soon(upstream.accept()).await??.0))
    };
    let ended = async |cause: &str, side: &str| {
        let labels = format!("{{cause={cause:?},endpoint=\"{to}\",forward=\"web\",side={side:?}}}");
        becomes(
            &admin,
            &format!("nuncio_ambassador_ends_total{labels}"),
            1.0,
        )
        .await
    };
    let (client, mut server) = pair().await?;
    drop(client);
    soon(server.read_to_end(&mut Vec::new())).await??;
    drop(server);
    ended("finished", "client").await?;
    let (mut client, server) = pair().await?;
    drop(server);
    soon(client.read_to_end(&mut Vec::new())).await??;
    drop(client);
    ended("finished", "upstream").await?;
    let (client, _server) = pair().await?;
    reset(client)?;
    ended("reset", "client").await?;
    let (_client, server) = pair().await?;
    reset(server)?;
    ended("reset", "upstream").await?;
    let (_client, _server) = pair().await?;
    until("the flow is open", || {
        !admin.ambassador().flows().is_empty()
    })
    .await?;
    let only = nuncio_ambassador::FlowFilter {
        forward: Some("web".to_owned()),
        ..Default::default()
    };
    ensure!(admin.ambassador().end_flows(&only) == 1);
    ended("aborted", "ambassador").await?;
    let samples = admin.metrics().await?;
    ensure!(samples.sum("nuncio_ambassador_ends_total") == 5.0);
    let count = format!("nuncio_ambassador_flow_seconds_count{}", labels("web", to));
    ensure!(samples.get(&count) == Some(5.0), "{samples:#?}");
    ensure!(samples.sum("nuncio_ambassador_flows_open") == 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_retries_and_ejections_are_counted() -> Result<()> {
    let (_held, dead) = refusing("127.0.0.1:0")?;
    let alive = naming_server(b'a').await?;
    let admin = with(vec![tcp("two", &[dead, alive]), tcp("none", &[dead])]).await?;
    let (two, none) = (local(admin.ambassador(), 0), local(admin.ambassador(), 1));
    let failures = format!(
        "nuncio_ambassador_connect_failures_total{}",
        labels("two", dead)
    );
    // Which one is tried first is left to chance.
    while admin.metrics().await?.get(&failures) != Some(1.0) {
        who(two).await?;
    }
    let samples = admin.metrics().await?;
    let of_two = |name: &str| samples.get(&format!("nuncio_ambassador_{name}"));
    ensure!(of_two("retries_total{forward=\"two\"}") == Some(1.0));
    let ejections = format!("ejections_total{}", labels("two", dead));
    ensure!(of_two(&ejections) == Some(1.0), "{samples:#?}");
    ensure!(of_two("refused_total{forward=\"two\"}") == Some(0.0));
    let connects = of_two(&format!("connect_seconds_count{}", labels("two", alive)));
    ensure!(
        connects >= Some(1.0)
            && connects == of_two(&format!("flows_total{}", labels("two", alive)))
    );

    // The reset may come before connecting returns.
    if let Ok(mut refused) = TcpStream::connect(none).await {
        let read = soon(refused.read_to_end(&mut Vec::new())).await?;
        ensure!(read.is_err(), "{read:?}");
    }
    becomes(
        &admin,
        "nuncio_ambassador_refused_total{forward=\"none\"}",
        1.0,
    )
    .await?;
    let ends = format!(
        "nuncio_ambassador_ends_total{{cause=\"refused\",endpoint=\"{dead}\",forward=\"none\",side=\"upstream\"}}"
    );
    becomes(&admin, &ends, 1.0).await
}

/// Counters are read while flows begin and end: none may ever fall, and in the end all add up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_never_fall() -> Result<()> {
    let to = naming_server(b'x').await?;
    let admin = with(vec![tcp("web", &[to])]).await?;
    let at = local(admin.ambassador(), 0);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..40 {
                    let (_, mut stream) = who(at).await?;
                    stream.write_all(&[0; 100]).await?;
                    stream.shutdown().await?;
                    soon(stream.read_to_end(&mut Vec::new())).await??;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let mut before = admin.metrics().await?;
    let counts = |name: &str| {
        ["_total", "_count", "_bucket"]
            .iter()
            .any(|s| name.contains(s))
    };
    loop {
        let over = clients.iter().all(tokio::task::JoinHandle::is_finished);
        let after = admin.metrics().await?;
        for (name, value) in before.iter().filter(|(name, _)| counts(name)) {
            let now = after.get(name);
            ensure!(now >= Some(value), "{name} falls from {value} to {now:?}");
        }
        before = after;
        if over {
            break;
        }
    }
    for client in clients {
        client.await??;
    }
    let flows = 8.0 * 40.0;
    becomes(&admin, "nuncio_ambassador_ends_total", flows).await?;
    becomes(
        &admin,
        "nuncio_ambassador_received_bytes_total",
        flows * 100.0,
    )
    .await?;
    becomes(&admin, "nuncio_ambassador_sent_bytes_total", flows).await
}

/// A forward's name may be anything.
#[tokio::test]
async fn any_name_makes_a_valid_label() -> Result<()> {
    for name in ["a\"b", "back\\slash", "two\nlines", "}{=,", "ü 🦀", ""] {
        let admin = with(vec![tcp(name, &[([127, 0, 0, 1], 9).into()])]).await?;
        let samples = admin.metrics().await?;
        let refused = format!("nuncio_ambassador_refused_total{{forward={name:?}}}");
        ensure!(samples.get(&refused) == Some(0.0), "{name:?}: {samples:#?}");
        for process in [
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            ensure!(samples.get(process) > Some(0.0), "{process}");
        }
    }
    Ok(())
}

/// The count of a forward goes on when it is replaced by one of the same name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_that_moves_keeps_its_count() -> Result<()> {
    let to = naming_server(b'x').await?;
    let admin = with(vec![tcp("web", &[to])]).await?;
    let (_, first) = who(local(admin.ambassador(), 0)).await?;
    let elsewhere = Forward {
        listen: listen(nuncio_ambassador::Protocol::Tcp, "127.0.0.2:0"),
        ..tcp("web", &[to])
    };
    admin.ambassador().apply(vec![elsewhere]).await?;
    let (_, second) = who(local(admin.ambassador(), 0)).await?;
    becomes(&admin, "nuncio_ambassador_flows_total", 2.0).await?;
    becomes(&admin, "nuncio_ambassador_flows_open", 2.0).await?;
    admin.ambassador().apply(Vec::new()).await?;
    becomes(&admin, "nuncio_ambassador_flows_open", 2.0).await?;
    drop((first, second));
    until("they have ended", || admin.ambassador().flows().is_empty()).await?;
    let samples = admin.metrics().await?;
    let left = samples.iter().find(|(name, _)| name.contains("forward="));
    ensure!(left.is_none(), "{left:?} of a forward that is gone");
    Ok(())
}

#[test]
fn what_is_no_openmetrics_is_found_out() {
    let fine = "# TYPE a counter\na_total{x=\"1\"} 1\n# EOF\n";
    parse(fine).expect(fine);
    for wrong in [
        "# TYPE a counter\na_total 1\n",
        "# TYPE a counter\na 1\n# EOF\n",
        "# TYPE a counter\na_total -1\n# EOF\n",
        "# TYPE a counter\na_total 1\na_total 1\n# EOF\n",
        "# TYPE a counter\na_total{x=\"1\",x=\"2\"} 1\n# EOF\n",
        "# TYPE a counter\na_total{x=\"\\t\"} 1\n# EOF\n",
        "# TYPE a counter\na_total{x=\"1\" } 1\n# EOF\n",
        "# TYPE a counter\n# TYPE b gauge\nb 1\na_total 1\n# EOF\n",
        "# TYPE a counter\n# TYPE b gauge\n# TYPE a counter\n# EOF\n",
        "# TYPE a gauge\n# UNIT a seconds\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_count 1\n# EOF\n",
        "# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_count 1\n# EOF\n",
        "a 1\n# EOF\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
