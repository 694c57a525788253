//! Readers slower than their writers: the relay holds the writers back, keeps little itself, and
//! loses nothing. Alone in its process, whose memory it measures.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, RelayMode};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

const FLOWS: usize = 16;
/// The most that a reader takes at once.
const READ: usize = 16 << 10;
/// Both directions of a flow may keep a buffer; and the allocator may round up.
const KEPT: u64 = 256 << 10;
/// Whoever takes that much for a reader that does not read takes anything. Most of it is the
/// kernel's: at each of four sockets what `tcp_rmem` and `tcp_wmem` allow.
const TAKEN: usize = 64 << 20;
/// After such a silence no more is taken. Looking too early makes the bounds easier to keep.
const SILENCE: Duration = Duration::from_millis(200);

struct Flow {
    writer: TcpStream,
    reader: TcpStream,
    taken: usize,
}

/// Anonymous memory of this process, in bytes.
fn memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .context("RssAnon in /proc/self/status")?
        .parse::<u64>()?
        << 10)
}

async fn flows(mode: RelayMode) -> Result<(Ambassador, Vec<Flow>)> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let forward = limited(tcp("slow", &[upstream.local_addr()?]), |limits| {
        limits.mode = mode;
    });
    let (ambassador, local) = running(forward).await?;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        let writer = TcpStream::connect(local).await?;
        let (reader, _) = soon(upstream.accept()).await??;
        flows.push(Flow {
            writer,
            reader,
            taken: 0,
        });
    }
    Ok((ambassador, flows))
}

impl Flow {
    /// Writes what is taken, from where `bytes`, over and over, was left.
    async fn fill(&mut self, bytes: &[u8]) -> Result<()> {
        while tokio::time::timeout(SILENCE, self.writer.writable())
            .await
            .is_ok()
        {
            let rest = &bytes[self.taken % bytes.len()..];
            match self.writer.try_write(rest) {
                Ok(taken) => self.taken += taken,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            ensure!(self.taken < TAKEN, "{} bytes taken", self.taken);
        }
        Ok(())
    }

    /// Reads all that was taken, a little at a time.
    async fn drain(&mut self, bytes: &[u8]) -> Result<()> {
        // Wherever in `bytes` a read begins, as many follow as it can have.
        let expected = [bytes, &bytes[..READ]].concat();
        let (mut buffer, mut read) = ([0; READ], 0);
        while read < self.taken {
            let count = soon(self.reader.read(&mut buffer)).await??;
            ensure!(count > 0, "an end after {read} of {} bytes", self.taken);
            let begin = read % bytes.len();
            let same = buffer[..count] == expected[begin..begin + count];
            ensure!(same, "bytes differ from {read} on");
            read += count;
        }
        Ok(())
    }
}

/// All at once; the first failure, if there is one.
async fn join(all: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    let ends = futures_util::future::join_all(all).await;
    ends.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_hold_their_writers_back_and_lose_nothing() -> Result<()> {
    // A length with no common factor with any buffer's.
    let bytes = noise(23, 65_537);
    for mode in MODES {
        let (ambassador, mut flows) = flows(mode).await?;
        let before = memory()?;
        join(flows.iter_mut().map(|flow| flow.fill(&bytes)))
            .await
            .with_context(|| format!("{mode:?}"))?;
        let kept = memory()?.saturating_sub(before);
        ensure!(
            kept < FLOWS as u64 * KEPT,
            "{mode:?}: {kept} bytes of memory for {FLOWS} flows"
        );
        join(flows.iter_mut().map(|flow| flow.drain(&bytes)))
            .await
            .with_context(|| format!("{mode:?}"))?;
        drop(flows);
        soon(ambassador.idle()).await?;
    }
    Ok(())
}
