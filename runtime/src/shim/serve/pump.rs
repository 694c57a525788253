//! Copies between a process and its log and clients.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{CHUNK, Input, Shim};
use crate::logs::{LogWriter, Stream};
use crate::protocol::Fault;
use crate::shim::stdio::Channel;

/// The most that can be in a pipe when its writer has ended: what comes after that is somebody else's.
const LARGEST_PIPE: usize = 1 << 20;
/// A terminal that a background process keeps open is left after this; all else is read to its end.
const TERMINAL_DRAIN: Duration = Duration::from_secs(2);
/// What the payload says before it executes the program; nothing if that succeeds.
pub(super) async fn said(report: OwnedFd) -> io::Result<Option<Fault>> {
    let channel = Channel::new(report, Interest::READABLE)?;
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match channel.read(&mut buffer).await? {
            0 => break,
            read => text.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(if text.is_empty() {
        None
    } else {
        Some(serde_json::from_slice(&text)?)
    })
}

/// Copies output to the log and the clients until its end.
pub(super) async fn output(
    shim: Rc<Shim>,
    channel: Channel,
    stream: Stream,
    log: Rc<RefCell<Option<LogWriter>>>,
    tty: bool,
) {
    let mut ended = shim.ended.subscribe();
    let mut buffer = vec![0; CHUNK];
    let mut over = false;
    let mut allowance = LARGEST_PIPE;
    while allowance > 0 {
        // when the process has ended all it wrote is there to be read: what others hold open is not waited for
        let read = match (over, tty) {
            (false, _) => tokio::select! {
                read = channel.read(&mut buffer) => read,
                _ = ended.wait_for(Option::is_some) => {
                    over = true;
                    continue;
                }
            },
            (true, false) => channel.read_now(&mut buffer),
            // a terminal delivers late, but then says that it is hung up
            (true, true) => timeout(TERMINAL_DRAIN, channel.read(&mut buffer))
                .await
                .unwrap_or(Ok(0)),
        };
        match read {
            Ok(0) => break,
            Ok(read) => {
                allowance = allowance.saturating_sub(if over { read } else { 0 });
                if let Some(log) = &mut *log.borrow_mut() {
                    log.write(stream, &buffer[..read]);
                }
                shim.hub.publish(stream, &buffer[..read]).await;
                tokio::task::yield_now().await; // others have their turn, though there is always more to read
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                eprintln!("read {stream:?}: {error}");
                break;
            }
        }
    }
    if let Some(log) = &mut *log.borrow_mut() {
        log.finish(stream);
    }
}

/// Copies input to the process until it is ended or refused.
pub(super) async fn input(channel: Channel, mut queue: mpsc::Receiver<Input>, tty: bool) {
    while let Some(input) = queue.recv().await {
        match input {
            Input::Bytes(bytes) => {
                if channel.write_all(&bytes).await.is_err() {
                    break; // the process closed its end
                }
            }
            Input::End if tty => {} // a terminal has no end of input; its user types one
            Input::End => break,
        }
    }
}
