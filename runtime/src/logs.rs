//! The log of a container: one JSON object per line, as Docker's `json-file` driver writes it.

mod files;
mod read;
mod write;

use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use read::{LogQuery, Logs, ReadLogsError, read};
pub(crate) use write::LogWriter;

/// Which of its two outputs a process wrote to. With a terminal all is [`Stream::Stdout`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a container's output, or a part of one that is longer than 16 KiB.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogLine {
    /// Which output it came from.
    pub stream: Stream,
    /// When it was read.
    pub time: SystemTime,
    /// The text, with its newline if it ended with one.
    pub text: String,
}

/// A line of the file.
#[derive(Deserialize, Serialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: std::borrow::Cow<'a, str>,
    stream: Stream,
    time: Timestamp,
}
