//! What is said on `shim.sock`: per connection one request and one answer, each a line of JSON.
//!
//! After the answer to `attach` the connection carries bytes. Towards the shim they are standard input, as they are,
//! and a half-close is its end. Towards the client they are frames as Docker's: `[stream, 0, 0, 0, length as u32,
//! big-endian]`, the stream being 1, 2, or 3 for a message of the shim itself, which ends the connection.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::logs::Stream;

pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const VERSION: u32 = 1;
/// A request or an answer longer than this is none.
pub(crate) const LONGEST_LINE: u64 = 64 << 10;
/// The shim sends no longer payload in a frame.
pub(crate) const LONGEST_FRAME: usize = 64 << 10;
pub(crate) const HEADER: usize = 8;
/// A frame's stream that says why the shim ends the connection.
pub(crate) const NOTICE: u8 = 3;

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    pub(crate) v: u32,
    pub(crate) op: Op,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    State,
    Start,
    /// Answered when the process has ended.
    Wait,
    Signal {
        signal: i32,
        all: bool,
    },
    Resize {
        width: u16,
        height: u16,
    },
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    State {
        pid: Option<i32>,
        started_at: Option<Timestamp>,
    },
    Failed(Fault),
}

/// Why something did not happen, as it crosses from one process to another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) message: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// The program cannot be executed; the message has the words for 126 or 127.
    Executable,
    /// The container does not run, or no longer.
    NotRunning,
    /// Anything else.
    Internal,
}

impl Fault {
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            kind: FaultKind::Internal,
            message: message.into(),
        }
    }

    pub(crate) fn executable(message: impl ToString) -> Self {
        Self {
            kind: FaultKind::Executable,
            message: message.to_string(),
        }
    }

    pub(crate) fn not_running(message: impl Into<String>) -> Self {
        Self {
            kind: FaultKind::NotRunning,
            message: message.into(),
        }
    }
}

/// The header of a frame of `length` bytes.
pub(crate) fn header(stream: u8, length: usize) -> [u8; HEADER] {
    let length = u32::try_from(length).expect("a frame is short");
    let mut header = [stream, 0, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&length.to_be_bytes());
    header
}

pub(crate) fn number(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    }
}
