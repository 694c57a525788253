//! Who changed what by the API: a line of JSON for each change, in a file that is bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::container::locked;

/// Where it is in the data directory, unless `daemon --audit-log` says otherwise.
pub(crate) const FILE: &str = "audit.log";
/// Bytes of a file before the next is begun.
const LARGEST: u64 = 10 << 20;
/// Files that are kept beside the present one, as `audit.log.1`, the newest.
const KEPT: usize = 4;

/// Who is at the other end of a connection to the API.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Peer {
    /// Of the unix socket, as the kernel says.
    Process {
        uid: u32,
        gid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
    /// Of TCP, as its certificate says.
    Certificate {
        #[serde(rename = "certificate")]
        name: String,
        address: SocketAddr,
    },
    /// Of the dashboard, on this machine.
    Page { page: SocketAddr },
    /// The kernel did not say.
    Unknown {},
}

/// A request that changes something, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) time: Timestamp,
    #[serde(flatten)]
    pub(crate) peer: Peer,
    pub(crate) method: String,
    /// Without the API's version and without a query, which may hold anything.
    pub(crate) path: String,
    /// What the request calls what it is about, where the path does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// What was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The answer's status; absent if the client did not wait for it.
    pub(crate) result: Option<u16>,
}

/// Where changes are written down.
pub(crate) struct AuditLog {
    path: PathBuf,
    largest: u64,
    state: Mutex<State>,
}

struct State {
    file: File,
    size: u64,
    /// Whether the last line could not be written, and that was told.
    failing: bool,
}

impl AuditLog {
    /// Goes on with the file at `path`.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::bounded(path, LARGEST)
    }

    fn bounded(path: &Path, largest: u64) -> anyhow::Result<Self> {
        let opened = begin(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) =
            opened.with_context(|| format!("open the audit log {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            largest,
            state: Mutex::new(State {
                file,
                size,
                failing: false,
            }),
        })
    }

    /// Writes a change down. One that cannot be is told in the daemon's log, in full.
    pub(crate) fn note(&self, change: &Change) {
        let mut line = serde_json::to_vec(change).expect("it is JSON");
        line.push(b'\n');
        let mut state = locked(&self.state);
        match self.append(&mut state, &line) {
            Ok(()) => state.failing = false,
            Err(error) => {
                if !state.failing {
                    let path = self.path.display();
                    tracing::error!(%error, %path, "changes cannot be written down in the audit log, but here");
                }
                state.failing = true;
                tracing::warn!(change = %String::from_utf8_lossy(&line).trim_end(), "not in the audit log");
            }
        }
    }

    fn append(&self, state: &mut State, line: &[u8]) -> io::Result<()> {
        if state.size + line.len() as u64 > self.largest {
            for number in (1..KEPT).rev() {
                rename(&self.numbered(number), &self.numbered(number + 1))?;
            }
            rename(&self.path, &self.numbered(1))?;
            state.file = begin(&self.path)?;
            state.size = 0;
        }
        state.file.write_all(line)?;
        state.size += line.len() as u64;
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn begin(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: usize) -> Change {
        Change {
            time: Timestamp::UNIX_EPOCH,
            peer: Peer::Process {
                uid: 0,
                gid: 0,
                pid: Some(1),
            },
            method: "POST".to_owned(),
            path: format!("/containers/{number}/start"),
            name: None,
            id: None,
            result: Some(204),
        }
    }

    #[test]
    fn files_are_as_many_and_as_large_as_may_be() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join(FILE);
        for _ in 0..2 {
            // As often as the daemon starts.
            let log = AuditLog::bounded(&path, 1000)?;
            (0..100).for_each(|number| log.note(&change(number)));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(directory.path())? {
            let entry = entry?;
            assert!(entry.metadata()?.len() <= 1000);
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let expected = ["", ".1", ".2", ".3", ".4"].map(|end| format!("{FILE}{end}"));
        assert_eq!(names, expected);
        let newest = fs::read_to_string(&path)?;
        let newest = newest.lines().next_back().map(str::to_owned);
        assert_eq!(
            newest.as_deref(),
            Some(
                r#"{"time":"1970-01-01T00:00:00Z","uid":0,"gid":0,"pid":1,"method":"POST","path":"/containers/99/start","result":204}"#
            )
        );
        Ok(())
    }
}
