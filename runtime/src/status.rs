//! What a shim leaves in its run directory for whoever comes later, each file replaced atomically.
//!
//! | file | says |
//! |---|---|
//! | `shim.json` | what to run, see `plan.rs` |
//! | `pid.json` | which processes are the shim and the container's first, with their start times |
//! | `exit.json` | how the container ended; it exists before `shim.sock` is gone |

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::time;

pub(crate) const PID_FILE: &str = "pid.json";
pub(crate) const EXIT_FILE: &str = "exit.json";

/// How a container, or a process in it, ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExitStatus {
    /// The exit code as Docker tells it: 128 and the signal for a process that was killed.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom: bool,
    /// When its process began, if it ever did.
    pub started_at: Option<SystemTime>,
    /// When it ended, or was found to have ended.
    pub finished_at: SystemTime,
}

#[derive(Deserialize, Serialize)]
struct ExitFile {
    v: u32,
    code: i32,
    signal: Option<i32>,
    oom: bool,
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
}

impl ExitStatus {
    /// Of a process that `signal` ended.
    pub(crate) fn killed(signal: i32, started_at: Option<SystemTime>) -> Self {
        Self {
            code: 128 + signal,
            signal: Some(signal),
            oom: false,
            started_at,
            finished_at: SystemTime::now(),
        }
    }

    /// `None` while nothing has been written.
    pub(crate) fn load(run_dir: &Path) -> io::Result<Option<Self>> {
        Ok(
            load::<ExitFile>(&run_dir.join(EXIT_FILE))?.map(|file| Self {
                code: file.code,
                signal: file.signal,
                oom: file.oom,
                started_at: file.started_at.map(time::system),
                finished_at: time::system(file.finished_at),
            }),
        )
    }

    pub(crate) fn save(&self, run_dir: &Path) -> io::Result<()> {
        let file = ExitFile {
            v: 1,
            code: self.code,
            signal: self.signal,
            oom: self.oom,
            started_at: self.started_at.map(time::timestamp),
            finished_at: time::timestamp(self.finished_at),
        };
        save(&run_dir.join(EXIT_FILE), &file)
    }
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Ticks since boot, field 22 of `/proc/<pid>/stat`.
    start: u64,
}

impl Process {
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // the name, in parentheses, may hold anything, so count from the last one
        let start = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok());
        let start = start.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat: {stat}"),
            )
        })?;
        Ok(Self { pid, start })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// The contents of `pid.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Pids {
    pub(crate) v: u32,
    pub(crate) shim: Process,
    /// The container's first process; of an exec only once it was started.
    pub(crate) init: Option<Process>,
    pub(crate) started_at: Option<Timestamp>,
}

/// `None` if there is no such file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", path.display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Readers see the old contents or the new ones, never half of them.
pub(crate) fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let draft = path.with_extension("json.new");
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_its_successor() {
        let mine = Process::of(std::process::id().cast_signed()).expect("I run");
        assert!(mine.is_alive());
        assert!(
            !Process {
                start: mine.start + 1,
                ..mine
            }
            .is_alive()
        );
    }

    #[test]
    fn exit_status_survives_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(ExitStatus::load(directory.path()).expect("readable"), None);
        let status = ExitStatus::killed(9, Some(SystemTime::UNIX_EPOCH));
        status.save(directory.path()).expect("written");
        assert_eq!(
            ExitStatus::load(directory.path()).expect("readable"),
            Some(status)
        );
    }
}
