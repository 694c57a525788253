//! The container, or the further process in one, as libcontainer makes it.

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::pipe::{PipeFlags, pipe_with};

use super::payload::Launcher;
use super::stdio::{Console, Ends, Stdio};
use super::trace;
use crate::cgroups::{self, Joined};
use crate::group_values;
use crate::plan::{Plan, Role};
use crate::protocol::Fault;
use crate::status::{self, EXIT_FILE, PID_FILE, Pids};

/// libcontainer's directory in the run directory.
const STATE: &str = "oci";

/// A process to be, held until it is started.
pub(super) struct Container {
    pub(super) plan: Plan,
    stage: Stage,
}

enum Stage {
    /// The first process waits for the word. Its report ends when it executes the program.
    Created {
        pid: i32,
        stdio: Stdio,
        report: OwnedFd,
    },
    /// A further process, of which nothing exists yet.
    Prepared,
    Started {
        pid: i32,
    },
    Failed,
}

impl Container {
    /// Makes the container of the bundle in the working directory.
    pub(super) fn create(plan: Plan) -> Result<Self, Fault> {
        let (ends, mut builder) = prepare(&plan)?;
        let (report, writer) = report_pipe()?;
        builder = builder.with_executor(Launcher::new(plan.payload.clone(), &plan.role, writer));
        let built = Joined::make(&plan.cgroup)
            .map_err(|error| Fault::internal(format!("enter cgroup2: {error}")))
            .and_then(|joined| {
                let built = builder
                    .as_init(directory(Path::new(""))?)
                    .with_systemd(false)
                    .with_detach(true)
                    .build();
                drop(joined);
                built.map_err(|error| fault(&report, &error))
            });
        let container = built.and_then(|container| {
            let pid = container
                .pid()
                .ok_or_else(|| Fault::internal("libcontainer names no process"))?
                .as_raw();
            let stdio = ends
                .connect()
                .map_err(|error| Fault::internal(format!("receive the terminal: {error}")))?;
            group_values::write(&plan.group_values, &plan.cgroup)
                .map_err(|error| Fault::internal(format!("limit the container: {error}")))?;
            Ok(Stage::Created { pid, stdio, report })
        });
        match container {
            Ok(stage) => Ok(Self { plan, stage }),
            Err(fault) => {
                remove_cgroup(&plan);
                Err(fault)
            }
        }
    }

    /// Prepares a further process in the container of `container_dir`.
    pub(super) fn join(container_dir: &Path, plan: Plan) -> Result<Self, Fault> {
        running(container_dir, &plan.id)?;
        Ok(Self {
            plan,
            stage: Stage::Prepared,
        })
    }

    /// The process, once there is one.
    pub(super) fn pid(&self) -> Option<i32> {
        match self.stage {
            Stage::Created { pid, .. } | Stage::Started { pid } => Some(pid),
            Stage::Prepared | Stage::Failed => None,
        }
    }

    /// The terminal of a process that waits for the word.
    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        match &self.stage {
            Stage::Created { stdio, .. } => stdio.terminal(),
            Stage::Prepared | Stage::Started { .. } | Stage::Failed => None,
        }
    }

    /// Gives the word. The program is executed when the report ends without a fault.
    pub(super) fn start(&mut self) -> Result<(Stdio, OwnedFd), Fault> {
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Created { pid, stdio, report } => {
                self.stage = Stage::Started { pid };
                let state = directory(Path::new(STATE))?.join(&self.plan.id);
                libcontainer::container::Container::load(state)
                    .and_then(|mut container| container.start())
                    .map_err(|error| fault(&report, &error))?;
                Ok((stdio, report))
            }
            Stage::Prepared => {
                let Role::Exec(container_dir) = &self.plan.role else {
                    return Err(Fault::internal("an exec without a container"));
                };
                let (pid, stdio, report) = enter(container_dir, &self.plan)?;
                self.stage = Stage::Started { pid };
                Ok((stdio, report))
            }
            started @ Stage::Started { .. } => {
                self.stage = started;
                Err(Fault::internal("started already"))
            }
            Stage::Failed => Err(Fault::not_running("it could not be started before")),
        }
    }

    /// Removes what the container leaves outside its run directory, whatever state it is in.
    pub(super) fn destroy(&self) {
        if self.plan.role == Role::Init {
            remove_cgroup(&self.plan);
        }
    }
}

fn remove_cgroup(plan: &Plan) {
    if let Err(error) = cgroups::remove(&plan.cgroup) {
        eprintln!("{error}");
    }
}

/// Starts a further process: libcontainer waits for its execve(2).
fn enter(container_dir: &Path, plan: &Plan) -> Result<(i32, Stdio, OwnedFd), Fault> {
    running(container_dir, &plan.id)?;
    copy_state(container_dir, &plan.id)?;
    let (ends, builder) = prepare(plan)?;
    let (report, writer) = report_pipe()?;
    let builder = builder.with_executor(Launcher::new(plan.payload.clone(), &plan.role, writer));
    let joined = Joined::enter(&plan.cgroup)
        .map_err(|error| Fault::internal(format!("enter cgroup2: {error}")))?;
    let process = directory(Path::new(crate::bundle::PROCESS_FILE))?;
    let built = builder
        .as_tenant()
        .with_process(Some(process))
        .with_detach(true)
        .build();
    drop(joined);
    let pid = built.map_err(|error| fault(&report, &error))?.as_raw();
    let stdio = ends
        .connect()
        .map_err(|error| Fault::internal(format!("receive the terminal: {error}")))?;
    Ok((pid, stdio, report))
}

/// Copies what libcontainer says of the container into the working directory: it leaves a socket or a link beside that for
/// each further process, and there they go with the process.
fn copy_state(container_dir: &Path, id: &str) -> Result<(), Fault> {
    let own = Path::new(STATE).join(id);
    let copied = fs::create_dir_all(&own).and_then(|()| {
        let state = Path::new("state.json");
        fs::copy(
            container_dir.join(STATE).join(id).join(state),
            own.join(state),
        )
    });
    copied.map(drop).map_err(|error| {
        Fault::internal(format!(
            "copy what libcontainer says of container {id}: {error}"
        ))
    })
}

/// That the container runs, and is not a stranger with its process number.
fn running(container_dir: &Path, id: &str) -> Result<(), Fault> {
    let ended = container_dir.join(EXIT_FILE).exists();
    let pids: Option<Pids> = status::load(&container_dir.join(PID_FILE)).unwrap_or_default();
    match pids {
        Some(Pids {
            init: Some(init),
            started_at: Some(_),
            ..
        }) if !ended && init.is_alive() => Ok(()),
        _ => Err(Fault::not_running(format!("container {id} is not running"))),
    }
}

fn prepare(plan: &Plan) -> Result<(Ends, ContainerBuilder), Fault> {
    let invalid = |error: libcontainer::error::LibcontainerError| Fault::internal(chain(&error));
    let mut builder = ContainerBuilder::new(plan.id.clone(), SyscallType::default())
        .with_root_path(directory(Path::new(STATE))?)
        .map_err(invalid)?;
    let failed = |error: io::Error| Fault::internal(format!("make the standard streams: {error}"));
    if plan.tty {
        let console = Console::listen().map_err(failed)?;
        builder = builder.with_console_socket(Some(directory(Path::new(Console::SOCKET))?));
        return Ok((Ends::Terminal(console), builder));
    }
    let (ends, [stdin, stdout, stderr]) = Ends::pipes(plan.stdin).map_err(failed)?;
    Ok((
        ends,
        builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr),
    ))
}

/// `path`, absolute.
fn directory(path: &Path) -> Result<PathBuf, Fault> {
    let current = std::env::current_dir()
        .map_err(|error| Fault::internal(format!("working directory: {error}")))?;
    Ok(current.join(path))
}

fn report_pipe() -> Result<(OwnedFd, OwnedFd), Fault> {
    pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| Fault::internal(format!("make a pipe: {}", io::Error::from(errno))))
}

/// What our payload said, or else libcontainer; that keeps causes to itself but logs them.
fn fault(report: &OwnedFd, error: &dyn Error) -> Fault {
    let said = rustix::io::ioctl_fionbio(report, true).ok().and_then(|()| {
        let mut text = Vec::new();
        let mut pipe = fs::File::from(report.try_clone().ok()?);
        let _ = pipe.read_to_end(&mut text); // EAGAIN: all is read
        serde_json::from_slice(&text).ok()
    });
    said.unwrap_or_else(|| match trace::first_error() {
        Some(cause) => Fault::internal(format!("{}: {cause}", chain(error))),
        None => Fault::internal(chain(error)),
    })
}

/// The error and its causes, those left out that repeat what was said.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Records the process that was started at `time`.
pub(super) fn record_start(pid: i32, time: Timestamp) -> io::Result<()> {
    let path = Path::new(PID_FILE);
    let mut pids: Pids = status::load(path)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "pid.json is missing"))?;
    pids.init = status::Process::of(pid).ok(); // it may have ended
    pids.started_at = Some(time);
    status::save(path, &pids)
}
