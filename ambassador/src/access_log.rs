//! A line for each flow at its end, written by a thread of its own.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::flow::{Entry, Record};

/// Records that may wait for the disk; those beyond are dropped and counted.
const QUEUE: usize = 8192;

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// `KEY=VALUE`, separated by spaces; values that are no plain words are quoted.
    Text,
}

/// Where the ends of flows are written.
///
/// Writing never makes a flow wait: while the file takes no more, records are dropped once 8192
/// wait, and counted.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    written: AtomicU64,
    reopen: AtomicBool,
}

enum Message {
    End(Arc<Entry>),
    /// Nothing; the writer looks whether it has to reopen.
    Wake,
    /// Everything before is on its way to the disk once this is dropped.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Appends to the file `path`, which is made if it is not there; `-` is standard output.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or a thread that cannot be had.
    pub fn open(path: &Path, format: LogFormat) -> io::Result<Self> {
        let output = Output::open(path)?;
        let shared = Arc::new(Shared::default());
        let (queue, messages) = sync_channel(QUEUE);
        let writer = Writer {
            output,
            format,
            shared: shared.clone(),
            told: 0,
            failing: false,
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        // Ends when the last sender is gone.
        thread.spawn(move || writer.run(&messages))?;
        Ok(Self { queue, shared })
    }

    /// Opens the file anew before the next record, for it may have been moved away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // If the queue is full, the writer is awake.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits until what ended before is written, at most for `patience`. Returns whether it is.
    pub async fn flush(&self, patience: Duration) -> bool {
        let queue = self.queue.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            let (done, wait) = sync_channel(0);
            // Fails if the writer is gone, and with it all it had.
            let sent = queue.send(Message::Flush(done)).is_ok();
            sent && wait.recv().is_err()
        });
        matches!(tokio::time::timeout(patience, flushed).await, Ok(Ok(true)))
    }

    /// Records that were written.
    pub(crate) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Records that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, entry: Arc<Entry>) {
        match self.queue.try_send(Message::End(entry)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End(_) => "End",
            Self::Wake => "Wake",
            Self::Flush(_) => "Flush",
        })
    }
}

struct Writer {
    output: Output,
    format: LogFormat,
    shared: Arc<Shared>,
    /// Of the dropped records: those that were told of.
    told: u64,
    /// Failures are told once, until writing succeeds again.
    failing: bool,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            // Held until the records before it are written.
            let mut flushes = Vec::new();
            let mut next = Some(first);
            while let Some(message) = next {
                if self.shared.reopen.swap(false, Ordering::Acquire) {
                    self.reopen();
                }
                match message {
                    Message::End(entry) => self.record(&entry),
                    Message::Wake => {}
                    Message::Flush(done) => flushes.push(done),
                }
                next = messages.try_recv().ok();
            }
            let flushed = self.output.writer.flush();
            self.note(flushed);
            self.recovered();
        }
    }

    fn record(&mut self, entry: &Entry) {
        let record = Record::from(entry);
        let line = match self.format {
            LogFormat::Json => record.json(),
            LogFormat::Text => record.text(),
        };
        let wrote = self.output.writer.write_all(format!("{line}\n").as_bytes());
        if wrote.is_ok() {
            self.shared.written.fetch_add(1, Ordering::Relaxed);
        } else {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.note(wrote);
    }

    fn note(&mut self, wrote: io::Result<()>) {
        match wrote {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                error!(log = %self.output.name(), %error, "write the access log: records are dropped until it succeeds");
                self.failing = true;
            }
            Err(_) => {}
        }
    }

    /// Tells, once the queue is empty, that records were dropped.
    fn recovered(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > self.told && !self.failing {
            let lost = dropped - self.told;
            warn!(log = %self.output.name(), lost, "the access log is written again; records were dropped meanwhile");
            self.told = dropped;
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.output.path else {
            return;
        };
        let flushed = self.output.writer.flush();
        match Output::open(path) {
            Ok(output) => {
                info!(log = %output.name(), "opened the access log again");
                self.output = output;
            }
            Err(error) => {
                error!(log = %self.output.name(), %error, "open the access log again: the old file is written on");
            }
        }
        self.note(flushed);
    }
}

struct Output {
    /// None of standard output.
    path: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        let (path, file) = if path == Path::new("-") {
            // Not Rust's own handle, which would hold back what is no whole line.
            let stdout = rustix::io::dup(rustix::stdio::stdout())?;
            (None, stdout.into())
        } else {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            (Some(path.to_owned()), file)
        };
        let writer = BufWriter::with_capacity(64 << 10, file);
        Ok(Self { path, writer })
    }

    fn name(&self) -> std::path::Display<'_> {
        let path = self.path.as_deref();
        path.unwrap_or(Path::new("-")).display()
    }
}
