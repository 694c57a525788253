//! A process of the host that outlives the daemon, which starts it, finds it again by its socket, and ends it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

/// How long a new process may take to answer.
const START: Duration = Duration::from_secs(10);
/// Pause between two looks for a new process's socket.
const LOOK: Duration = Duration::from_millis(10);

/// The way to such a process.
pub(super) struct HostProcess {
    binary: PathBuf,
    /// What it is, in messages: `the host's ambassador`.
    what: &'static str,
    pub(super) socket: PathBuf,
    log: PathBuf,
}

impl HostProcess {
    /// `name` is that of its socket and its log in `exec_root`.
    pub(super) fn new(binary: PathBuf, exec_root: &Path, name: &str, what: &'static str) -> Self {
        Self {
            binary,
            what,
            socket: exec_root.join(format!("{name}.sock")),
            log: exec_root.join(format!("{name}.log")),
        }
    }

    /// Whether the process is there.
    pub(super) async fn answers(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Connects to it, and starts it with `arguments` if it is not there.
    pub(super) async fn connect(&self, arguments: &[OsString]) -> anyhow::Result<UnixStream> {
        match UnixStream::connect(&self.socket).await {
            Ok(stream) => Ok(stream),
            Err(_) => self.spawn(arguments).await,
        }
    }

    async fn spawn(&self, arguments: &[OsString]) -> anyhow::Result<UnixStream> {
        super::state_file::remove(&self.socket)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut child = Command::new(&self.binary)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        let (what, log) = (self.what, self.log.display());
        let deadline = Instant::now() + START;
        let stream = loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .with_context(|| format!("{what} does not answer, see {log}"));
                }
                Err(_) => {}
            }
            if let Some(status) = child.try_wait()? {
                bail!("{what} ended at once ({status}), see {log}");
            }
            sleep(LOOK).await;
        };
        tracing::info!(pid = child.id(), "started {what}");
        std::thread::spawn(move || child.wait()); // reaps it, should it end before the daemon
        Ok(stream)
    }

    /// Ends the process, when nothing is left for it to carry.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        let Ok(stream) = std::os::unix::net::UnixStream::connect(&self.socket) else {
            return Ok(());
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        rustix::process::kill_process(peer.pid, rustix::process::Signal::TERM)?;
        Ok(super::state_file::remove(&self.socket)?)
    }
}
