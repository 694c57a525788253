//! Making shims.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;

use super::{Shim, SpawnError};
use crate::bundle;
use crate::protocol::LONGEST_LINE;
use crate::spec::ExecSpec;

/// Makes shims, by a process that forks them; without it, each by executing the binary.
pub struct Shims {
    binary: PathBuf,
    owner: Option<PathBuf>,
    forker: Mutex<Option<Forker>>,
}

/// The other end of [`shim::forker`](crate::shim::forker).
struct Forker {
    process: Child,
    orders: OwnedFd,
}

impl Shims {
    /// `binary` is run as `binary shims`, which has to call [`shim::forker::main`](crate::shim::forker::main), or as
    /// `binary shim RUN_DIR`, which has to call [`shim::main`](crate::shim::main).
    #[must_use]
    pub fn new(binary: PathBuf) -> Self {
        Self {
            binary,
            owner: None,
            forker: Mutex::default(),
        }
    }

    /// Has `owner` in the command line of the process that forks, so that who looks at processes sees whose it is.
    #[must_use]
    pub fn owned_by(self, owner: PathBuf) -> Self {
        Self {
            owner: Some(owner),
            ..self
        }
    }

    /// Creates the container of the bundle in `run_dir`. Its process waits for [`start`](Shim::start).
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is left then but `run_dir`.
    pub async fn spawn(&self, run_dir: &Path) -> Result<Shim, SpawnError> {
        let failed = |source| SpawnError::Launch {
            binary: self.binary.clone(),
            run_dir: run_dir.into(),
            source,
        };
        let run_dir = &std::path::absolute(run_dir).map_err(failed)?;
        let report = match self.order(run_dir) {
            Ok(report) => {
                let report = pipe::Receiver::from_owned_fd(report).map_err(failed)?;
                read(report).await.map_err(failed)?
            }
            Err(error) => {
                tracing::warn!(%error, "fork a shim: executing the binary instead");
                execute(&self.binary, run_dir).await.map_err(failed)?
            }
        };
        Shim::reported(run_dir, &report)
    }

    /// Prepares a further process in the container of `container_dir`; [`start`](Shim::start) makes it.
    /// Unless it is started it ends with the container, or by [`signal`](Shim::signal).
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is left then but `run_dir`.
    pub async fn spawn_exec(
        &self,
        container_dir: &Path,
        run_dir: &Path,
        spec: &ExecSpec,
    ) -> Result<Shim, SpawnError> {
        let container_dir = std::path::absolute(container_dir);
        let container_dir = container_dir.map_err(|source| SpawnError::Launch {
            binary: self.binary.clone(),
            run_dir: run_dir.into(),
            source,
        })?;
        bundle::write_exec(run_dir, &container_dir, spec)?;
        self.spawn(run_dir).await
    }

    /// Has a shim forked, and gives the pipe on which it tells what became of it.
    fn order(&self, run_dir: &Path) -> io::Result<OwnedFd> {
        let (report, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut forker = self.forker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*forker
            && known.order(run_dir, &writer).is_ok()
        {
            return Ok(report);
        }
        let new = Forker::start(&self.binary, self.owner.as_deref())?; // the first, or in place of one that was killed
        new.order(run_dir, &writer)?;
        *forker = Some(new);
        Ok(report)
    }
}

impl fmt::Debug for Shims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shims")
            .field("binary", &self.binary)
            .finish_non_exhaustive()
    }
}

impl Forker {
    fn start(binary: &Path, owner: Option<&Path>) -> io::Result<Self> {
        let (orders, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let process = Command::new(binary)
            .arg("shims")
            .args(owner)
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            .process_group(0) // a signal from a terminal is the daemon's
            .spawn()?;
        Ok(Self { process, orders })
    }

    fn order(&self, run_dir: &Path, report: &OwnedFd) -> io::Result<()> {
        let descriptors = [report.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let message = [IoSlice::new(run_dir.as_os_str().as_bytes())];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.orders, &message, &mut control, flags)?;
        Ok(())
    }
}

impl Drop for Forker {
    /// One that was killed is to be waited for. A living one ends when it hears no more orders, with its parent or later.
    fn drop(&mut self) {
        let _ = self.process.try_wait();
    }
}

async fn execute(binary: &Path, run_dir: &Path) -> io::Result<String> {
    let mut child = tokio::process::Command::new(binary)
        .arg("shim")
        .arg(run_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env_clear()
        .spawn()?;
    let report = match child.stdout.take() {
        Some(stdout) => read(stdout).await?,
        None => String::new(),
    };
    child.wait().await?;
    Ok(report)
}

async fn read(report: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut text = String::new();
    report.take(LONGEST_LINE).read_to_string(&mut text).await?;
    Ok(text)
}
