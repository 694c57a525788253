//! Every byte arrives, once and in order, whatever carries it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Datapath, RelayMode};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

mod support;
use support::*;

async fn send(mut to: impl AsyncWrite + Unpin, bytes: &[u8], chunks: &[usize]) -> Result<()> {
    let (mut rest, mut sizes) = (bytes, chunks.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().context("a size")?).min(rest.len());
        to.write_all(&rest[..size]).await?;
        rest = &rest[size..];
        if size < 100 {
            // So that small chunks arrive as such now and then.
            tokio::task::yield_now().await;
        }
    }
    to.shutdown().await?;
    Ok(())
}

async fn receive(mut from: impl AsyncRead + Unpin, expected: &[u8], size: usize) -> Result<()> {
    let (mut buffer, mut at) = (vec![0; size], 0);
    loop {
        match from.read(&mut buffer).await? {
            0 => break,
            bytes => {
                let same = expected.get(at..at + bytes) == Some(&buffer[..bytes]);
                ensure!(same, "bytes differ between {at} and {}", at + bytes);
                at += bytes;
            }
        }
    }
    ensure!(
        at == expected.len(),
        "{at} of {} bytes came",
        expected.len()
    );
    Ok(())
}

#[derive(Clone, Debug)]
struct Load {
    length: usize,
    chunks: Vec<usize>,
    read: usize,
}

fn load() -> impl Strategy<Value = Load> {
    let switch = 65_536_usize;
    let length = prop_oneof![
        0..10_usize,
        switch - 3..switch + 3,
        2 * switch - 3..2 * switch + 3,
        (1_usize << 20)..(3 << 20),
    ];
    let chunk = prop_oneof![1..100_usize, 4_000..4_200_usize, 1_000..200_000_usize];
    let chunks = prop::collection::vec(chunk, 1..40);
    (
        length,
        chunks,
        prop_oneof![Just(1_000_usize), Just(65_536), Just(300_000)],
    )
        .prop_map(|(length, mut chunks, read)| {
            // Some long pieces always, or a mebibyte takes a million calls.
            chunks.push(100_000);
            Load {
                length,
                chunks,
                read,
            }
        })
}

async fn both_ways(mode: RelayMode, there: &Load, back: &Load) -> Result<()> {
    let Pair {
        ambassador,
        mut client,
        mut server,
    } = pair(mode).await?;
    let (question, answer) = (noise(5, there.length), noise(7, back.length));
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    soon(async {
        tokio::try_join!(
            send(client_writes, &question, &there.chunks),
            send(server_writes, &answer, &back.chunks),
            receive(server_reads, &question, there.read),
            receive(client_reads, &answer, back.read),
        )
    })
    .await??;
    until("the flow has ended", || ambassador.flows().is_empty()).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_chunks_both_ways_at_once(
        mode in prop::sample::select(MODES.to_vec()),
        there in load(),
        back in load(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let carried = runtime.block_on(both_ways(mode, &there, &back));
        carried.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_datapath_follows_the_traffic() -> Result<()> {
    let Pair {
        ambassador,
        mut client,
        mut server,
    } = pair(RelayMode::Auto).await?;
    // The upstream accepts before the ambassador hears that it did.
    until("the flow is there", || {
        only(&ambassador).is_ok_and(|flow| flow.datapath == Datapath::Copy)
    })
    .await?;
    let (bulk, mut sink) = (noise(1, 4 << 20), vec![0; 4 << 20]);
    let (sent, read) = tokio::join!(client.write_all(&bulk), server.read_exact(&mut sink));
    sent?;
    read?;
    ensure!(sink == bulk);
    // What has arrived is counted a moment later.
    until("all is counted", || {
        only(&ambassador).is_ok_and(|flow| (flow.bytes_in, flow.bytes_out) == (4 << 20, 0))
    })
    .await?;
    let flow = only(&ambassador)?;
    ensure!(flow.datapath == Datapath::Splice, "{flow:?}");
    // Small messages bring it back.
    for _ in 0..40 {
        client.write_all(b"ping").await?;
        soon(server.read_exact(&mut sink[..4])).await??;
    }
    until("it is copied again", || {
        only(&ambassador).is_ok_and(|flow| flow.datapath == Datapath::Copy)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_pipe_it_copies_and_says_so() -> Result<()> {
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let forward = limited(tcp("poor", &[upstream.local_addr()?]), |l| {
        l.mode = RelayMode::Splice;
    });
    let options = nuncio_ambassador::Options {
        max_pipes: 0,
        ..Default::default()
    };
    let (ambassador, local) = running_with(options, forward).await?;
    let mut client = tokio::net::TcpStream::connect(local).await?;
    let (mut server, _) = soon(upstream.accept()).await??;
    client.write_all(b"hello").await?;
    soon(server.read_exact(&mut [0; 5])).await??;
    // The other direction has its turn after the one that carried this.
    until("both directions copy", || {
        only(&ambassador)
            .is_ok_and(|flow| (flow.datapath, flow.reason) == (Datapath::Copy, "no pipe is free"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_holds_the_writer_back() -> Result<()> {
    for mode in MODES {
        let Pair {
            ambassador,
            client,
            mut server,
        } = pair(mode).await?;
        let (pause, chunk) = (Duration::from_millis(300), vec![1; 64 << 10]);
        let mut taken = 0_usize;
        while tokio::time::timeout(pause, client.writable()).await.is_ok() {
            taken += client.try_write(&chunk).unwrap_or(0);
            ensure!(
                taken < 64 << 20,
                "{mode:?}: {taken} bytes taken for a reader that stalls"
            );
        }
        let carried = only(&ambassador)?.bytes_in;
        // Between the sockets' buffers there is the relay's: a pipe or a piece of memory.
        ensure!(carried <= taken as u64);
        let drained = async {
            let (mut buffer, mut left) = (vec![0; 256 << 10], taken);
            while left > 0 {
                left -= server.read(&mut buffer).await?;
            }
            anyhow::Ok(())
        };
        soon(drained).await??;
        until("all is counted", || {
            ambassador
                .flows()
                .first()
                .is_some_and(|flow| flow.bytes_in == taken as u64)
        })
        .await?;
    }
    Ok(())
}
