//! A client attached to a process in a container: its streams, its terminal, its signals.

use std::io::{self, Read as _};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::container_body::Streams;
use super::frames::{Frames, Stream};
use super::output::{write_err, write_out};
use super::terminal::{self, RawMode};
use crate::client::{Client, ClientError, Hijacked};
use crate::detach_keys::DetachKeys;

/// How a session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// The process closed its output.
    Output,
    /// The user pressed the detach keys.
    Detached,
    /// A signal ended the client alone.
    Signal(i32),
}

/// What a session is attached to, as the API's path: `/containers/ID` or `/exec/ID`.
pub(super) struct Session<'a> {
    pub(super) client: &'a Client,
    pub(super) target: String,
    pub(super) tty: bool,
    pub(super) streams: Streams,
    /// Those that leave it running; `None`: ctrl-p ctrl-q.
    pub(super) keys: Option<DetachKeys>,
}

/// How many SIGINT or SIGTERM are passed on before the client gives up.
const PATIENCE: u32 = 3;

/// How often a terminal's first size is sent before it is given up, and for how long, times the attempt, to wait.
const SIZE_ATTEMPTS: u32 = 10;
const SIZE_PAUSE: Duration = Duration::from_millis(10);

impl Session<'_> {
    /// Carries the streams until one side has had enough; `signals` are passed on.
    ///
    /// # Errors
    ///
    /// Whatever breaks the streams or the terminal.
    pub(super) async fn run(
        &self,
        stream: Hijacked,
        signals: &mut Signals,
    ) -> anyhow::Result<Ended> {
        let raw = match self.tty && self.streams.stdin {
            true => RawMode::enter().context("make the terminal raw")?,
            false => None,
        };
        let (reader, writer) = tokio::io::split(stream);
        let keys = raw.is_some().then(|| self.keys.clone().unwrap_or_default());
        let input = send_input(writer, self.streams.stdin, keys);
        let output = print_output(reader, self.tty);
        let mut window =
            signal(SignalKind::window_change()).context("watch the size of the terminal")?;
        let size = self.size();
        tokio::pin!(input, output, size);
        let mut input_is_over = false;
        let mut is_sized = false;
        let mut interrupts = 0;
        loop {
            tokio::select! {
                // what was printed is printed even if the input ends in the same moment
                biased;
                result = &mut output => return result.map(|()| Ended::Output),
                detached = &mut input, if !input_is_over => {
                    if detached {
                        return Ok(Ended::Detached);
                    }
                    input_is_over = true;
                }
                () = &mut size, if !is_sized => is_sized = true,
                Some(()) = window.recv(), if is_sized => {
                    if let Err(error) = self.resize().await {
                        // a process that has just ended has no size
                        tracing::debug!(%error, "resize");
                    }
                }
                number = signals.next() => {
                    interrupts += u32::from(number == interrupt() || number == terminate());
                    if !signals.proxied || interrupts >= PATIENCE {
                        return Ok(Ended::Signal(number));
                    }
                    self.pass_on(number).await;
                }
            }
        }
    }

    /// Gives the process's terminal the size of ours, as soon as there is one.
    async fn size(&self) {
        for attempt in 1..=SIZE_ATTEMPTS {
            match self.resize().await {
                Ok(()) => return,
                // the answer to the attachment may come before the process is there
                Err(error) => tracing::debug!(%error, attempt, "resize"),
            }
            tokio::time::sleep(SIZE_PAUSE * attempt).await;
        }
    }

    async fn resize(&self) -> Result<(), ClientError> {
        let Some((rows, columns)) = self.tty.then(terminal::size).flatten() else {
            return Ok(());
        };
        let call = self.client.post(&format!("{}/resize", self.target));
        let call = call.query("h", rows.to_string());
        call.query("w", columns.to_string()).send().await.map(drop)
    }

    async fn pass_on(&self, number: i32) {
        let call = self
            .client
            .post(&format!("{}/kill", self.target))
            .query("signal", number.to_string());
        if let Err(error) = call.send().await {
            tracing::debug!(%error, number, "pass a signal on");
        }
    }
}

fn interrupt() -> i32 {
    SignalKind::interrupt().as_raw_value()
}

fn terminate() -> i32 {
    SignalKind::terminate().as_raw_value()
}

/// Signals that end a process, caught from when this is made.
pub(super) struct Signals {
    caught: Vec<(i32, Signal)>,
    /// Whether they go to the container. Otherwise they end the client, the terminal set right first.
    proxied: bool,
}

impl Signals {
    /// Catches what is to be passed on to a container.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn proxied() -> anyhow::Result<Self> {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::alarm(),
        ];
        Self::catch(&kinds, true)
    }

    /// Catches what ends a client that leaves its container alone.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn own() -> anyhow::Result<Self> {
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
        ];
        Self::catch(&kinds, false)
    }

    fn catch(kinds: &[SignalKind], proxied: bool) -> anyhow::Result<Self> {
        let caught = kinds
            .iter()
            .map(|kind| Ok((kind.as_raw_value(), signal(*kind)?)));
        let caught = caught.collect::<io::Result<_>>().context("catch signals")?;
        Ok(Self { caught, proxied })
    }

    /// The next one that comes.
    pub(super) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            let mut signals = self.caught.iter_mut();
            let caught = signals.find_map(|(number, signal)| {
                signal.poll_recv(context).is_ready().then_some(*number)
            });
            match caught {
                Some(number) => std::task::Poll::Ready(number),
                None => std::task::Poll::Pending,
            }
        })
        .await
    }
}

/// Sends standard input, then ends the stream; tells whether the detach keys were pressed.
async fn send_input(
    mut writer: WriteHalf<Hijacked>,
    wanted: bool,
    mut keys: Option<DetachKeys>,
) -> bool {
    let mut passed = Vec::new();
    let mut pieces = wanted.then(read_stdin);
    while let Some(piece) = next_piece(&mut pieces).await {
        passed.clear();
        let detached = match &mut keys {
            Some(keys) => keys.filter(&piece, &mut passed),
            None => {
                passed.extend_from_slice(&piece);
                false
            }
        };
        // What was typed just before the keys is for the process.
        if let Err(error) = writer.write_all(&passed).await {
            // the process closed its input; its output tells the rest
            tracing::debug!(%error, "send input");
            return detached;
        }
        if detached {
            return true;
        }
    }
    if wanted && let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "end the input");
    }
    false
}

async fn next_piece(pieces: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    pieces.as_mut()?.recv().await
}

/// Reads standard input on a thread of its own, for a read of a terminal cannot be cancelled.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match io::stdin().read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if sender
                        .blocking_send(Bytes::copy_from_slice(&buffer[..count]))
                        .is_err()
                    {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "read standard input");
                    break;
                }
            }
        }
    });
    receiver
}

/// Prints what comes, to its end.
async fn print_output(mut reader: ReadHalf<Hijacked>, raw: bool) -> anyhow::Result<()> {
    let mut printer = Printer::new(raw);
    let mut buffer = vec![0; 32 << 10];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return printer.finish(),
            Ok(count) => printer.print(&buffer[..count])?,
            // the daemon went, as when it is killed; the container did not
            Err(error) => return Err(error).context("read the container's output"),
        }
    }
}

/// Prints a container's output, raw or in frames.
pub(super) struct Printer(Option<Frames>);

impl Printer {
    pub(super) fn new(raw: bool) -> Self {
        Self((!raw).then(Frames::default))
    }

    /// # Errors
    ///
    /// Frames that are none, or outputs that cannot be written.
    pub(super) fn print(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(frames) = &mut self.0 else {
            return write_out(bytes);
        };
        frames.push(bytes);
        while let Some((stream, bytes)) = frames.next()? {
            match stream {
                Stream::Out => write_out(&bytes)?,
                Stream::Err => write_err(&bytes)?,
            }
        }
        Ok(())
    }

    /// # Errors
    ///
    /// An output that ended within a frame.
    pub(super) fn finish(&self) -> anyhow::Result<()> {
        self.0
            .as_ref()
            .map_or(Ok(()), |frames| Ok(frames.finish()?))
    }
}
