//! Hands a process's output to the clients that are attached.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::logs::Stream;
use crate::protocol::{self, NOTICE};

/// Frames that wait for a client, each at most [`CHUNK`](super::serve::CHUNK) bytes: 256 KiB.
const QUEUE: usize = 16;
/// How long a client may take nothing while the process waits for it; after that it is let go.
const PATIENCE: Duration = Duration::from_secs(10);
const LET_GO: &str =
    "detached: nothing was read for 10 s while output waited; the log has all of it";

/// The attached clients.
#[derive(Default)]
pub(super) struct Hub {
    clients: RefCell<Vec<Client>>,
    closed: Cell<bool>,
}

struct Client {
    stdout: bool,
    stderr: bool,
    queue: mpsc::Sender<Bytes>,
    let_go: CancellationToken,
}

/// The far end of a client's queue.
pub(super) struct Feed {
    queue: mpsc::Receiver<Bytes>,
    let_go: CancellationToken,
}

impl Hub {
    /// A feed of the output from now on; at its end at once if there will be none.
    pub(super) fn subscribe(&self, stdout: bool, stderr: bool) -> Feed {
        let (sender, queue) = mpsc::channel(QUEUE);
        let let_go = CancellationToken::new();
        if !self.closed.get() {
            self.clients.borrow_mut().push(Client {
                stdout,
                stderr,
                queue: sender,
                let_go: let_go.clone(),
            });
        }
        Feed { queue, let_go }
    }

    /// Waits for slow clients, which stops the process by its full pipe, but for none longer than [`PATIENCE`].
    pub(super) async fn publish(&self, stream: Stream, bytes: &[u8]) {
        let queues: Vec<_> = {
            let mut clients = self.clients.borrow_mut();
            clients.retain(|client| !client.queue.is_closed());
            clients
                .iter()
                .filter(|client| match stream {
                    Stream::Stdout => client.stdout,
                    Stream::Stderr => client.stderr,
                })
                .map(|client| (client.queue.clone(), client.let_go.clone()))
                .collect()
        };
        if queues.is_empty() {
            return;
        }
        let frame: Bytes = [
            &protocol::header(protocol::number(stream), bytes.len())[..],
            bytes,
        ]
        .concat()
        .into();
        let deadline = Instant::now() + PATIENCE;
        for (queue, let_go) in queues {
            if timeout_at(deadline, queue.send(frame.clone()))
                .await
                .is_err()
            {
                let_go.cancel();
                self.clients
                    .borrow_mut()
                    .retain(|client| !client.queue.same_channel(&queue));
            }
        }
    }

    /// There will be no more output.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.clients.borrow_mut().clear();
    }
}

impl Feed {
    /// Writes frames until the output ends or the client goes. One that was let go has a last while to read on.
    pub(super) async fn deliver(self, client: impl AsyncWrite + Unpin) -> io::Result<()> {
        let let_go = self.let_go.clone();
        tokio::select! {
            delivered = self.write(client) => delivered,
            () = async { let_go.cancelled().await; sleep(PATIENCE).await } => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn write(mut self, mut client: impl AsyncWrite + Unpin) -> io::Result<()> {
        while let Some(frame) = self.queue.recv().await {
            client.write_all(&frame).await?;
        }
        if self.let_go.is_cancelled() {
            client
                .write_all(&protocol::header(NOTICE, LET_GO.len()))
                .await?;
            client.write_all(LET_GO.as_bytes()).await?;
        }
        client.shutdown().await
    }
}
