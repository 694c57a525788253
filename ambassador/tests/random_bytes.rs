//! A mebibyte or more each way at once, in pieces that make each direction go over to splicing and
//! back at every kind of boundary; compared by hash.

use anyhow::{Result, ensure};
use nuncio_ambassador::RelayMode;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

mod support;
use support::*;

/// What is sent before the sender looks at what has arrived.
#[derive(Clone, Debug)]
enum Piece {
    /// Messages that arrive one by one: more of them in a row than it takes to call a direction
    /// small again.
    Small { size: usize, count: usize },
    /// Bytes written as fast as they are taken, in chunks of these sizes in turn.
    Bulk { length: usize, chunks: Vec<usize> },
}

#[derive(Clone, Debug)]
struct Plan {
    pieces: Vec<Piece>,
    /// The most that is read at once.
    read: usize,
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Small { size, count } => size * count,
            Self::Bulk { length, .. } => *length,
        }
    }
}

/// Around the sizes at which the relay decides: a large read, a buffer, the bytes that make a
/// direction bulk, a pipe.
fn edge() -> impl Strategy<Value = usize> {
    let around = |size: usize| size - 2..size + 3;
    prop_oneof![
        around(4 << 10),
        around(64 << 10),
        around(128 << 10),
        around(1 << 20)
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    let small =
        (1..3_000_usize, 1..40_usize).prop_map(|(size, count)| Piece::Small { size, count });
    let length = prop_oneof![edge(), 1..600_000_usize];
    let chunk = prop_oneof![edge(), 1_000..200_000_usize];
    let bulk = (length, prop::collection::vec(chunk, 1..6))
        .prop_map(|(length, chunks)| Piece::Bulk { length, chunks });
    prop_oneof![small, bulk]
}

fn plan() -> impl Strategy<Value = Plan> {
    let read = prop_oneof![Just(1_000_usize), edge()];
    let pieces = prop::collection::vec(piece(), 2..10);
    (pieces, read).prop_map(|(mut pieces, read)| {
        // To splicing and back, whatever else there is; and a mebibyte at least.
        let sent: usize = pieces.iter().map(Piece::length).sum();
        let length = (1_usize << 20).saturating_sub(sent).max(200_000);
        let chunks = vec![100_000];
        pieces.insert(1, Piece::Bulk { length, chunks });
        pieces.insert(2, Piece::Small { size: 9, count: 20 });
        Plan { pieces, read }
    })
}

type Hash = [u8; 32];

async fn send(
    mut to: impl AsyncWrite + Unpin,
    (seed, plan): (u64, &Plan),
    mut arrived: watch::Receiver<usize>,
) -> Result<Hash> {
    let (mut hash, mut sent) = (Sha256::new(), 0);
    for (number, piece) in plan.pieces.iter().enumerate() {
        let bytes = noise(seed + number as u64, piece.length());
        hash.update(&bytes);
        let mut rest = bytes.as_slice();
        let sizes: &[usize] = match piece {
            Piece::Small { size, .. } => &[*size],
            Piece::Bulk { chunks, .. } => chunks,
        };
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            to.write_all(chunk).await?;
            sent += chunk.len();
            rest = after;
            if matches!(piece, Piece::Small { .. }) {
                arrived.wait_for(|arrived| *arrived >= sent).await?;
            }
            if rest.is_empty() {
                break;
            }
        }
    }
    to.shutdown().await?;
    Ok(hash.finalize().into())
}

async fn receive(
    mut from: impl AsyncRead + Unpin,
    read: usize,
    arrived: watch::Sender<usize>,
) -> Result<Hash> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; read]);
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..bytes]);
        arrived.send_modify(|arrived| *arrived += bytes);
    }
}

async fn both_ways(mode: RelayMode, there: &Plan, back: &Plan) -> Result<()> {
    let Pair {
        ambassador,
        mut client,
        mut server,
    } = pair(mode).await?;
    let ((asked, question), (answered, answer)) = (watch::channel(0), watch::channel(0));
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let (sent_there, sent_back, came_there, came_back) = soon(async {
        tokio::try_join!(
            send(client_writes, (101, there), question),
            send(server_writes, (9_001, back), answer),
            receive(server_reads, there.read, asked),
            receive(client_reads, back.read, answered),
        )
    })
    .await??;
    ensure!(sent_there == came_there, "the client's bytes have changed");
    ensure!(sent_back == came_back, "the server's bytes have changed");
    until("the flow has ended", || ambassador.flows().is_empty()).await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn hashes_agree_whatever_the_pieces(
        // Twice as often where it changes its mind.
        mode in prop::sample::select([MODES.as_slice(), &[RelayMode::Auto]].concat()),
        there in plan(),
        back in plan(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let carried = runtime.block_on(both_ways(mode, &there, &back));
        carried.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
    }
}
