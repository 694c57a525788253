//! One client of `shim.sock`.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{CHUNK, Input, Shim};
use crate::protocol::{Answer, Fault, LONGEST_LINE, Op, Request, VERSION};
use crate::time;

/// Clients served at once; further ones are turned away.
const MOST: usize = 256;
/// How long a process may take what a client sent last before it went away.
const LAST_INPUT: Duration = Duration::from_secs(10);

pub(super) fn spawn(connections: &mut JoinSet<()>, shim: &Rc<Shim>, client: UnixStream) {
    let shim = shim.clone();
    let full = connections.len() >= MOST;
    connections.spawn_local(async move {
        let (reader, writer) = client.into_split();
        let served = if full {
            let fault = Fault::internal(format!("{MOST} clients are connected already"));
            answer(writer, &Answer::Failed(fault)).await.map(|_| ())
        } else {
            serve(&shim, BufReader::new(reader), writer).await
        };
        drop(served); // the client is gone; it knows
    });
}

async fn serve(
    shim: &Rc<Shim>,
    mut reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
) -> io::Result<()> {
    let mut line = String::new();
    (&mut reader)
        .take(LONGEST_LINE)
        .read_line(&mut line)
        .await?;
    let op = match serde_json::from_str::<Request>(&line) {
        Ok(Request { v: VERSION, op }) => op,
        Ok(Request { v, .. }) => {
            let text = format!("the request has version {v}, this shim speaks {VERSION}");
            return answer(writer, &Answer::Failed(Fault::internal(text)))
                .await
                .map(drop);
        }
        Err(error) => {
            let text = format!("the request {line:?} is not understood: {error}");
            return answer(writer, &Answer::Failed(Fault::internal(text)))
                .await
                .map(drop);
        }
    };
    let done = |result: Result<(), Fault>| result.map_or_else(Answer::Failed, |()| Answer::Done);
    let said = match op {
        Op::State => {
            let started_at = shim.started_at.get().map(time::timestamp);
            Answer::State {
                pid: shim.container.borrow().pid(),
                started_at,
            }
        }
        Op::Start => done(shim.start().await),
        Op::Signal { signal, all } => done(shim.signal(signal, all)),
        Op::Resize { width, height } => done(shim.resize(width, height)),
        Op::Wait => {
            let waited = shim
                .recorded
                .subscribe()
                .wait_for(|recorded| *recorded)
                .await
                .map(drop);
            done(waited.map_err(|_| Fault::internal("the shim stopped")))
        }
        Op::Attach {
            stdin,
            stdout,
            stderr,
        } => return attach(shim, reader, writer, stdin, stdout, stderr).await,
    };
    answer(writer, &said).await.map(drop)
}

async fn attach(
    shim: &Rc<Shim>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> io::Result<()> {
    let feed = shim.hub.subscribe(stdout, stderr);
    let writer = answer(writer, &Answer::Done).await?;
    let input = async {
        if stdin {
            take_input(shim, reader).await;
        }
    };
    tokio::pin!(input);
    let delivery = feed.deliver(writer);
    tokio::pin!(delivery);
    tokio::select! {
        () = &mut input => delivery.await,
        delivered = &mut delivery => {
            if delivered.is_err() {
                // A client that has gone away may have sent something just before.
                let _ = timeout(LAST_INPUT, input).await;
            }
            delivered // or the output has ended, and input has no use
        }
    }
}

/// Passes input on, with no more than a few pieces waiting.
async fn take_input(shim: &Shim, mut reader: BufReader<OwnedReadHalf>) {
    loop {
        let mut buffer = Vec::with_capacity(CHUNK);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if shim
                    .input
                    .send(Input::Bytes(Bytes::from(buffer)))
                    .await
                    .is_err()
                {
                    return; // the process takes none
                }
            }
        }
    }
    if shim.container.borrow().plan.stdin_once {
        let _ = shim.input.send(Input::End).await; // as above
    }
}

async fn answer(mut writer: OwnedWriteHalf, answer: &Answer) -> io::Result<OwnedWriteHalf> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok(writer)
}
