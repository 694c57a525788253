//! A shim as the daemon sees it: a run directory, and a socket in it.

mod attach;
mod spawn;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use attach::{Attach, AttachError, AttachInput, AttachOptions, AttachOutput, Output};
pub use spawn::Shims;

use crate::bundle::BundleError;
use crate::cleanup;
use crate::protocol::{Answer, Fault, FaultKind, LONGEST_LINE, Op, Request, SOCKET, VERSION};
use crate::shim::LOG_FILE;
use crate::status::ExitStatus;
use crate::time;

/// A shim answers at once; one that does not is stopped or starved.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one may take to answer an earlier daemon's successor, which has others to look after.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// A container, or a further process in one, held by its shim. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Shim {
    run_dir: PathBuf,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShimState {
    /// The process, in this machine's numbers. An exec has none until it is started.
    pub pid: Option<u32>,
    /// When it was started, if it was.
    pub started_at: Option<SystemTime>,
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be executed, in the words by which Docker's clients choose 126 or 127.
    #[error("{0}")]
    Executable(String),
    /// The container that an exec is for does not run.
    #[error("{0}")]
    NotRunning(String),
    /// The container could not be set up.
    #[error("{0}")]
    Setup(String),
    /// An exec asks for something that the container does not have.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The shim itself could not be run.
    #[error("run {} shim {}", binary.display(), run_dir.display())]
    Launch {
        /// The nuncio binary.
        binary: PathBuf,
        /// The run directory.
        run_dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shim ended without a word; its log may know more.
    #[error("the shim of {} ended without an answer; see {}", run_dir.display(), run_dir.join(LOG_FILE).display())]
    Silent {
        /// The run directory.
        run_dir: PathBuf,
    },
}

/// Why a shim cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The process ended and its shim with it.
    #[error("it has ended with exit code {}", .0.code)]
    Gone(ExitStatus),
    /// The shim was killed. What was left of the container has been killed now and this recorded as its end.
    #[error("its shim was killed; it was ended with exit code {}", .0.code)]
    Dead(ExitStatus),
    /// It lives, but is stopped or starved. It can be asked and waited for like any other.
    #[error("the shim in {} did not answer for {} s", .0.run_dir.display(), FIRST_ANSWER.as_secs())]
    Slow(Shim),
    /// There was nothing to take over.
    #[error("take over the shim in {}", run_dir.display())]
    Io {
        /// The run directory.
        run_dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The program cannot be executed, in the words by which Docker's clients choose 126 or 127.
    #[error("{0}")]
    Executable(String),
    /// It does not run.
    #[error("{0}")]
    NotRunning(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The shim does not answer.
    #[error("ask the shim in {}", run_dir.display())]
    Io {
        /// The run directory.
        run_dir: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ShimError {
    /// Whether it could not be done since the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self {
            Self::NotRunning(_) => true,
            Self::Io { source, .. } => is_gone(source),
            Self::Executable(_) | Self::Failed(_) => false,
        }
    }
}

impl Shim {
    /// What became of it, by what it told its parent.
    fn reported(run_dir: &Path, report: &str) -> Result<Self, SpawnError> {
        match serde_json::from_str::<Result<(), Fault>>(report) {
            Ok(Ok(())) => Ok(Self {
                run_dir: run_dir.into(),
            }),
            Ok(Err(Fault { kind, message })) => Err(match kind {
                FaultKind::Executable => SpawnError::Executable(message),
                FaultKind::NotRunning => SpawnError::NotRunning(message),
                FaultKind::Internal => SpawnError::Setup(message),
            }),
            Err(_) => Err(SpawnError::Silent {
                run_dir: run_dir.into(),
            }),
        }
    }

    /// Takes over what an earlier daemon left in `run_dir`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; if it is [`Gone`](ConnectError::Gone) or [`Dead`](ConnectError::Dead) nothing runs any more.
    pub async fn connect(run_dir: &Path) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Io {
            run_dir: run_dir.into(),
            source,
        };
        let shim = Self {
            run_dir: std::path::absolute(run_dir).map_err(failed)?,
        };
        if let Some(status) = ExitStatus::load(run_dir).map_err(failed)? {
            return Err(ConnectError::Gone(status));
        }
        let Ok(state) = timeout(FIRST_ANSWER, shim.state()).await else {
            return Err(ConnectError::Slow(shim));
        };
        match state {
            Ok(_) => Ok(shim),
            Err(ShimError::Io { source, .. }) if is_gone(&source) => match shim.last_will().await {
                Ok((status, true)) => Err(ConnectError::Gone(status)),
                Ok((status, false)) => Err(ConnectError::Dead(status)),
                Err(source) => Err(failed(source)),
            },
            Err(ShimError::Io { source, .. }) => Err(failed(source)),
            Err(other) => Err(failed(io::Error::other(other))),
        }
    }

    /// The directory it was made in.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Whether it runs, and as which process.
    ///
    /// # Errors
    ///
    /// [`ShimError`], if it has ended or its shim does not answer.
    pub async fn state(&self) -> Result<ShimState, ShimError> {
        match self.ask(Op::State).await? {
            Answer::State { pid, started_at } => Ok(ShimState {
                pid: pid.map(i32::cast_unsigned),
                started_at: started_at.map(time::system),
            }),
            other => Err(ShimError::Failed(format!(
                "the shim answered {other:?} when asked for its state"
            ))),
        }
    }

    /// Executes the program; returns when that has happened, or why it cannot.
    ///
    /// # Errors
    ///
    /// [`ShimError`]; it has ended then, with 127, 126 or 128.
    pub async fn start(&self) -> Result<(), ShimError> {
        self.ask(Op::Start).await.map(drop)
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    ///
    /// [`ShimError`], if it has ended or the kernel knows no such signal.
    pub async fn signal(&self, signal: i32) -> Result<(), ShimError> {
        self.ask(Op::Signal { signal, all: false }).await.map(drop)
    }

    /// Sends a signal to every process of the container; of an exec, to those of its process group.
    ///
    /// # Errors
    ///
    /// As [`signal`](Self::signal).
    pub async fn signal_all(&self, signal: i32) -> Result<(), ShimError> {
        self.ask(Op::Signal { signal, all: true }).await.map(drop)
    }

    /// Sets the size of its terminal, in characters. Before [`start`](Self::start) too.
    ///
    /// # Errors
    ///
    /// [`ShimError`], if it has no terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<(), ShimError> {
        self.ask(Op::Resize { width, height }).await.map(drop)
    }

    /// Joins in: its output from now on, and its input. Any number of clients may.
    ///
    /// A client that reads nothing while output waits stops the process for 10 seconds at most, and is let go then.
    ///
    /// # Errors
    ///
    /// [`ShimError`], if it has ended.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attach, ShimError> {
        let AttachOptions {
            stdin,
            stdout,
            stderr,
        } = options;
        let (_, stream) = self
            .exchange(Op::Attach {
                stdin,
                stdout,
                stderr,
            })
            .await?;
        Ok(Attach::new(stream))
    }

    /// Waits for its end. Cancel safe, and any number may wait. Should the shim be killed, what is left of the
    /// container is killed, and that is its end.
    ///
    /// # Errors
    ///
    /// What the kernel says when the run directory cannot be read or leftovers cannot be killed.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        match self.exchange_unhurried(Op::Wait).await {
            Ok(_) => {}
            Err(ShimError::Io { source, .. }) if !is_gone(&source) => return Err(source),
            Err(ShimError::Io { .. }) => {}
            Err(other) => return Err(io::Error::other(other)),
        }
        self.last_will().await.map(|(status, _)| status)
    }

    /// How it ended, and whether that was recorded by its shim; if not, now by us.
    async fn last_will(&self) -> io::Result<(ExitStatus, bool)> {
        if let Some(status) = ExitStatus::load(&self.run_dir)? {
            return Ok((status, true));
        }
        let run_dir = self.run_dir.clone();
        let buried = tokio::task::spawn_blocking(move || cleanup::bury(&run_dir)).await;
        Ok((buried.map_err(io::Error::other)??, false))
    }

    async fn ask(&self, op: Op) -> Result<Answer, ShimError> {
        self.exchange(op).await.map(|(answer, _)| answer)
    }

    async fn exchange(&self, op: Op) -> Result<(Answer, BufReader<UnixStream>), ShimError> {
        match timeout(PATIENCE, self.exchange_unhurried(op)).await {
            Ok(answered) => answered,
            Err(_) => {
                let text = format!("no answer for {} s", PATIENCE.as_secs());
                Err(ShimError::Io {
                    run_dir: self.run_dir.clone(),
                    source: io::Error::new(io::ErrorKind::TimedOut, text),
                })
            }
        }
    }

    async fn exchange_unhurried(
        &self,
        op: Op,
    ) -> Result<(Answer, BufReader<UnixStream>), ShimError> {
        let exchanged = async {
            let mut stream = BufReader::new(connect(&self.run_dir).await?);
            let mut line = serde_json::to_vec(&Request { v: VERSION, op })?;
            line.push(b'\n');
            stream.write_all(&line).await?;
            let mut line = String::new();
            (&mut stream)
                .take(LONGEST_LINE)
                .read_line(&mut line)
                .await?;
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((serde_json::from_str(&line)?, stream))
        };
        match exchanged.await {
            Ok((Answer::Failed(Fault { kind, message }), _)) => Err(match kind {
                FaultKind::Executable => ShimError::Executable(message),
                FaultKind::NotRunning => ShimError::NotRunning(message),
                FaultKind::Internal => ShimError::Failed(message),
            }),
            Ok(answered) => Ok(answered),
            Err(source) => Err(ShimError::Io {
                run_dir: self.run_dir.clone(),
                source,
            }),
        }
    }
}

/// An address has room for 107 bytes, a path for more: the directory is named by a descriptor.
async fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    use rustix::fs::{Mode, OFlags, open};
    use std::os::fd::AsRawFd;
    let directory = open(
        run_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd())).await
}

/// Whether this is how it looks when there is no shim any more.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof
    )
}
