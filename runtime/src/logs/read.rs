//! Reads a log, from its end if wished, and follows it while the container runs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::files::{self, Part};
use super::{Entry, LogLine};
use crate::{sys, time};

/// Which lines of a log are wanted.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Only the last lines; `None` is all.
    pub tail: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<SystemTime>,
    /// Only lines up to this time.
    pub until: Option<SystemTime>,
    /// Wait for further lines until this is cancelled, which says that the container has ended; `None` stops at the end.
    pub follow: Option<CancellationToken>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogsError {
    /// A file or a watch failed.
    #[error("read log {}", path.display())]
    Io {
        /// The log.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A line is not one of ours.
    #[error("log {} has a line that is no log entry: {line:?}", path.display())]
    Entry {
        /// The log.
        path: PathBuf,
        /// Its beginning.
        line: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// An entry longer than this is none of ours: a piece of 16 KiB grows sixfold at most.
const LONGEST_ENTRY: usize = 256 << 10;
const BLOCK: usize = 32 << 10;

/// The lines of a log, in order.
pub struct Logs {
    path: PathBuf,
    query: LogQuery,
    part: Option<Part>,
    ready: VecDeque<LogLine>,
    /// Bytes of a line that is not complete yet.
    partial: Vec<u8>,
    watch: Option<AsyncFd<OwnedFd>>,
    /// Asked for lines after `until`, or failed.
    done: bool,
}

/// Opens the log whose newest file is `path`; a log that does not exist yet has no lines.
///
/// # Errors
///
/// [`ReadLogsError`] if a file is there but cannot be read.
pub fn read(path: &Path, query: LogQuery) -> Result<Logs, ReadLogsError> {
    let failed = |source| ReadLogsError::Io {
        path: path.into(),
        source,
    };
    // the watch first, so that nothing falls between looking and waiting
    let watch = query
        .follow
        .is_some()
        .then(|| watch(path))
        .transpose()
        .map_err(failed)?;
    let part = match query.tail {
        Some(lines) => files::tail(path, lines),
        None => files::oldest(path),
    };
    Ok(Logs {
        path: path.into(),
        part: part.map_err(failed)?,
        query,
        ready: VecDeque::new(),
        partial: Vec::new(),
        watch,
        done: false,
    })
}

impl Logs {
    /// The next line; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ReadLogsError`] if a file cannot be read or is no log; there are no lines after that.
    pub async fn next(&mut self) -> Result<Option<LogLine>, ReadLogsError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.done {
                return Ok(None);
            }
            // asked before reading, so that what was written before the end is still found
            let ended = self
                .query
                .follow
                .as_ref()
                .is_none_or(CancellationToken::is_cancelled);
            match self.fill() {
                Ok(true) => {}
                Ok(false) if ended => self.done = true,
                Ok(false) => self.changed().await.map_err(|source| self.failed(source))?,
                Err(error) => {
                    self.done = true;
                    return Err(error);
                }
            }
        }
    }

    /// Reads a block; `false` if there is nothing to read now.
    fn fill(&mut self) -> Result<bool, ReadLogsError> {
        let mut block = [0; BLOCK];
        let Some(part) = &mut self.part else {
            self.part = files::oldest(&self.path).map_err(|source| self.failed(source))?;
            return Ok(self.part.is_some());
        };
        let mut read = part.read(&mut block);
        if matches!(read, Ok(0)) {
            let next = files::after(&self.path, part).map_err(|source| self.failed(source))?;
            let Some(next) = next else { return Ok(false) };
            let part = self.part.as_mut().expect("looked at above");
            // it may have grown between its end and the look for a newer one
            read = part.read(&mut block);
            if matches!(read, Ok(0)) {
                self.part = Some(next);
                self.partial.clear();
                return Ok(true);
            }
        }
        let read = read.map_err(|source| self.failed(source))?;
        self.partial.extend_from_slice(&block[..read]);
        self.split()?;
        Ok(true)
    }

    /// Moves complete lines from `partial` to `ready`.
    fn split(&mut self) -> Result<(), ReadLogsError> {
        let mut start = 0;
        while let Some(length) = self.partial[start..].iter().position(|byte| *byte == b'\n') {
            let bytes = &self.partial[start..start + length];
            start += length + 1;
            let entry: Entry =
                serde_json::from_slice(bytes).map_err(|source| self.malformed(bytes, source))?;
            let line = LogLine {
                stream: entry.stream,
                time: time::system(entry.time),
                text: entry.log.into_owned(),
            };
            if self.query.until.is_some_and(|until| line.time > until) {
                self.done = true;
                break;
            }
            if self.query.since.is_none_or(|since| line.time >= since) {
                self.ready.push_back(line);
            }
        }
        self.partial.drain(..start);
        if self.partial.len() > LONGEST_ENTRY {
            let source =
                serde_json::Error::io(io::Error::new(io::ErrorKind::InvalidData, "no end of line"));
            return Err(self.malformed(&self.partial, source));
        }
        Ok(())
    }

    /// Waits until a file of the log's directory changed, or the container ended.
    async fn changed(&self) -> io::Result<()> {
        let (Some(watch), Some(stop)) = (&self.watch, &self.query.follow) else {
            return Ok(());
        };
        let mut ready = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ready = watch.readable() => ready?,
        };
        let mut events = [0; 4096];
        match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut events)?)) {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> ReadLogsError {
        ReadLogsError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn malformed(&self, bytes: &[u8], source: serde_json::Error) -> ReadLogsError {
        let line = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        ReadLogsError::Entry {
            path: self.path.clone(),
            line,
            source,
        }
    }
}

fn watch(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let flags =
        inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, directory, flags)?;
    sys::register(fd, Interest::READABLE)
}

#[cfg(test)]
mod tests;
