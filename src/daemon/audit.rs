//! Writes down who changed what by the API.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use serde::Serialize;

use super::caller::Caller;
use crate::cli::daemon::AuditLog;

/// When a file has this many bytes, another is begun.
const LARGEST: u64 = 10 << 20;
/// Files that are kept beside the one that is written, the newest with `.1` after its name.
const KEPT: u32 = 4;

/// A change that was asked for.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    /// When it was answered, RFC 3339.
    pub(crate) time: jiff::Timestamp,
    pub(crate) peer: &'a Caller,
    pub(crate) method: &'a str,
    /// With its query. What a body says, and headers, is not written: they may have secrets.
    pub(crate) path: &'a str,
    /// The HTTP status of the answer.
    pub(crate) status: u16,
    /// Seconds until the head of the answer.
    pub(crate) duration: f64,
}

/// The log, if there is one.
pub(crate) struct Audit(Option<Mutex<Log>>);

struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Audit {
    pub(super) fn open(place: &AuditLog) -> anyhow::Result<Self> {
        let AuditLog::File(path) = place else {
            return Ok(Self(None));
        };
        let log = Log::open(path);
        let log = log.with_context(|| format!("open the audit log {}", path.display()))?;
        Ok(Self(Some(Mutex::new(log))))
    }

    /// A full disk keeps nobody from being served: that is said in the daemon's own log, with the entry.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let Some(log) = &self.0 else { return };
        let mut line = serde_json::to_string(entry).expect("it is JSON");
        line.push('\n');
        let mut log = log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = log.write(line.as_bytes()) {
            tracing::error!(%error, path = %log.path.display(), entry = line.trim_end(), "write the audit log");
        }
    }
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + line.len() as u64 > LARGEST {
            for number in (1..KEPT).rev() {
                match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::rename(&self.path, self.numbered(1))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry<'_> {
        Entry {
            time: jiff::Timestamp::UNIX_EPOCH,
            peer: &Caller::Unknown,
            method: "POST",
            path,
            status: 204,
            duration: 0.5,
        }
    }

    #[test]
    fn files_are_bounded_in_size_and_number_and_nothing_is_cut() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let place = AuditLog::File(path.clone());
        let long = "x".repeat(1 << 20);
        for round in 0..7 {
            let audit = Audit::open(&place).expect("opens"); // anew: what is there counts
            for _ in 0..9 {
                audit.write(&entry(&format!("{round}{long}")));
            }
        }
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .expect("a directory")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        let expected = [
            "audit.log",
            "audit.log.1",
            "audit.log.2",
            "audit.log.3",
            "audit.log.4",
        ];
        assert_eq!(names, expected);
        for name in names {
            let text = std::fs::read_to_string(directory.path().join(&name)).expect("text");
            assert!(text.len() as u64 <= LARGEST, "{name}");
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect("whole lines");
                assert_eq!(value["status"], 204);
            }
        }
    }
}
