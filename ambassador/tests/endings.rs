//! How a flow ends for one peer is how the other one ended it.

use std::io::ErrorKind;

use anyhow::{Result, ensure};
use nuncio_ambassador::RelayMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod support;
use support::*;

const SIZES: [usize; 4] = [0, 1, 70_000, 700_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_reply_follows_a_half_close() -> Result<()> {
    for mode in MODES {
        for turned in [false, true] {
            let Pair {
                ambassador,
                client,
                server,
            } = pair(mode).await?;
            let (mut first, mut second) = if turned {
                (server, client)
            } else {
                (client, server)
            };
            first.write_all(b"question").await?;
            first.shutdown().await?;
            let mut question = Vec::new();
            soon(second.read_to_end(&mut question)).await??;
            ensure!(question == b"question");
            ensure!(ambassador.flows().len() == 1, "half a flow is a flow");
            let answer = noise(1, 300_000);
            soon(async {
                let mut received = Vec::new();
                let (sent, read) = tokio::join!(second.write_all(&answer), async {
                    received.resize(answer.len(), 0);
                    first.read_exact(&mut received).await
                });
                sent?;
                read?;
                ensure!(received == answer);
                Ok(())
            })
            .await??;
            second.shutdown().await?;
            ensure!(soon(first.read(&mut [0])).await?? == 0);
            until("the flow has ended", || ambassador.flows().is_empty()).await?;
        }
    }
    Ok(())
}

/// What comes before the end, and how it ends.
async fn rest(stream: &mut TcpStream) -> Result<(Vec<u8>, Option<ErrorKind>)> {
    let mut bytes = Vec::new();
    let end = soon(stream.read_to_end(&mut bytes)).await?;
    Ok((bytes, end.err().map(|error| error.kind())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_goes_over_after_the_data_before_it() -> Result<()> {
    for mode in MODES {
        for size in SIZES {
            for turned in [false, true] {
                let Pair {
                    ambassador,
                    client,
                    server,
                } = pair(mode).await?;
                let (mut first, mut second) = if turned {
                    (server, client)
                } else {
                    (client, server)
                };
                let data = noise(2, size);
                // Read while it is sent, so that nothing is left in the sender's queue, which a
                // reset discards before the relay can see it.
                let mut received = vec![0; size];
                let (sent, read) =
                    tokio::join!(first.write_all(&data), second.read_exact(&mut received));
                sent?;
                read?;
                ensure!(received == data);
                first.write_all(b"last words").await?;
                until("the last words are delivered", || unsent(&first) == 0).await?;
                reset(first)?;
                let (bytes, end) = rest(&mut second).await?;
                ensure!(
                    bytes == b"last words",
                    "{mode:?} {size} {turned}: {bytes:?}"
                );
                ensure!(
                    end == Some(ErrorKind::ConnectionReset),
                    "{mode:?} {size}: {end:?}"
                );
                until("the flow has ended", || ambassador.flows().is_empty()).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_all_that_came_before_a_reset() -> Result<()> {
    for mode in MODES {
        let Pair {
            ambassador: _held,
            client: mut second,
            server: mut first,
        } = pair(mode).await?;
        // More than the relay holds at once, less than the sockets' buffers.
        let data = noise(3, 200_000);
        first.write_all(&data).await?;
        until("the data is on its way", || unsent(&first) == 0).await?;
        reset(first)?;
        let (bytes, end) = rest(&mut second).await?;
        ensure!(
            bytes == data,
            "{mode:?}: {} of {} bytes",
            bytes.len(),
            data.len()
        );
        ensure!(end == Some(ErrorKind::ConnectionReset), "{mode:?}: {end:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_after_a_half_close_is_still_a_reset() -> Result<()> {
    for turned in [false, true] {
        let Pair {
            ambassador: _held,
            client,
            server,
        } = pair(RelayMode::Auto).await?;
        let (mut first, mut second) = if turned {
            (server, client)
        } else {
            (client, server)
        };
        first.shutdown().await?;
        let (bytes, end) = rest(&mut second).await?;
        ensure!(bytes.is_empty() && end.is_none(), "a FIN first");
        reset(first)?;
        let ready = soon(second.ready(tokio::io::Interest::ERROR)).await??;
        ensure!(ready.is_error());
        let error = second.take_error()?.map(|error| error.kind());
        // RST after FIN is EPIPE to those who have read the FIN.
        let lost = [
            Some(ErrorKind::BrokenPipe),
            Some(ErrorKind::ConnectionReset),
        ];
        ensure!(lost.contains(&error), "{error:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_upstream_does_not_hide_the_clients_reset() -> Result<()> {
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let options = nuncio_ambassador::Options {
        linger: std::time::Duration::from_millis(50),
        ..Default::default()
    };
    let forward = tcp("stalled", &[upstream.local_addr()?]);
    let (ambassador, local) = running_with(options, forward).await?;
    let client = TcpStream::connect(local).await?;
    let (_server, _) = soon(upstream.accept()).await??;
    fill(&client).await?;
    reset(client)?;
    until("the flow has ended", || ambassador.flows().is_empty()).await
}

/// Writes until nothing more is taken, though others get time.
async fn fill(stream: &TcpStream) -> Result<usize> {
    let chunk = vec![0; 64 << 10];
    let mut total = 0;
    let pause = std::time::Duration::from_millis(200);
    while tokio::time::timeout(pause, stream.writable()).await.is_ok() {
        total += stream.try_write(&chunk).unwrap_or(0);
    }
    Ok(total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upstream_is_a_reset() -> Result<()> {
    let (_held, address) = refusing("127.0.0.1:0")?;
    let (_ambassador, local) = running(tcp("refused", &[address])).await?;
    // The reset may be there before the handshake is noticed.
    let end = match soon(TcpStream::connect(local)).await? {
        Ok(mut client) => rest(&mut client).await?.1,
        Err(error) => Some(error.kind()),
    };
    ensure!(end == Some(ErrorKind::ConnectionReset), "{end:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambassador_that_goes_resets_both_peers() -> Result<()> {
    let Pair {
        ambassador,
        mut client,
        mut server,
    } = pair(RelayMode::Auto).await?;
    drop(ambassador);
    ensure!(rest(&mut client).await?.1 == Some(ErrorKind::ConnectionReset));
    ensure!(rest(&mut server).await?.1 == Some(ErrorKind::ConnectionReset));
    Ok(())
}
