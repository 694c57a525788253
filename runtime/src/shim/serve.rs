//! The shim's one loop, from the created container to the recorded end.

mod connection;
mod pump;

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus, pidfd_open, wait};
use tokio::io::Interest;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::container::{self, Container};
use super::hub::Hub;
use super::stdio::{self, Channel, Stdio};
use crate::cgroups;
use crate::logs::LogWriter;
use crate::plan::Role;
use crate::protocol::{Fault, FaultKind, SOCKET};
use crate::status::{self, ExitStatus, PID_FILE, Pids};
use crate::{memory, sys, time};

/// Output is read in pieces of this size.
const CHUNK: usize = 16 << 10;
/// Pieces of input that wait for the process.
const INPUT_QUEUE: usize = 8;
/// How long clients may take over the last output.
const FAREWELL: Duration = Duration::from_secs(15);

/// A shim that was asked nothing for this long gives back what it took meanwhile.
const QUIET: Duration = Duration::from_millis(500);

/// Serves until the process has ended, its output is delivered and its end recorded.
pub(super) fn run(container: Container, listener: StdUnixListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    LocalSet::new().block_on(&runtime, serve(container, listener))
}

/// What the tasks share.
struct Shim {
    container: RefCell<Container>,
    hub: Hub,
    input: mpsc::Sender<Input>,
    /// Taken when the process starts.
    input_queue: RefCell<Option<mpsc::Receiver<Input>>>,
    terminal: RefCell<Option<OwnedFd>>,
    /// The size asked for before there was a terminal.
    wanted_size: RefCell<Option<(u16, u16)>>,
    started_at: Cell<Option<SystemTime>>,
    /// It is not known yet whether the program could be executed.
    starting: Cell<bool>,
    /// How the process ended while that was not known.
    early_end: Cell<Option<ExitStatus>>,
    /// The process ended, with this; set by the reaper, or by a start that failed.
    ended: watch::Sender<Option<ExitStatus>>,
    /// The end is recorded in `exit.json`.
    recorded: watch::Sender<bool>,
    pumps: RefCell<JoinSet<()>>,
}

/// What goes to the process's standard input.
enum Input {
    Bytes(Bytes),
    End,
}

async fn serve(container: Container, listener: StdUnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let children = signal(SignalKind::child())?;
    // whoever stops the machine stops the container's processes too; the shim stays to tell how they ended
    let _deaf = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let (input, input_queue) = mpsc::channel(INPUT_QUEUE);
    let shim = Rc::new(Shim {
        container: RefCell::new(container),
        hub: Hub::default(),
        input,
        input_queue: RefCell::new(Some(input_queue)),
        terminal: RefCell::default(),
        wanted_size: RefCell::default(),
        started_at: Cell::default(),
        starting: Cell::default(),
        early_end: Cell::default(),
        ended: watch::Sender::new(None),
        recorded: watch::Sender::new(false),
        pumps: RefCell::default(),
    });
    let mut connections = JoinSet::new();
    let mut ended = shim.ended.subscribe();
    let status = {
        let reaper = reap(&shim, children);
        let orphaned = orphaned(&shim);
        tokio::pin!(reaper, orphaned);
        let quiet = sleep(QUIET);
        tokio::pin!(quiet);
        let mut has_worked = true;
        loop {
            tokio::select! {
                found = ended.wait_for(Option::is_some) => break found.ok().and_then(|status| *status),
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => connection::spawn(&mut connections, &shim, client),
                    Err(error) => eprintln!("accept: {error}"), // the client is gone already
                },
                Some(_) = connections.join_next() => { // each tells its own errors to its client
                    has_worked = true;
                    quiet.as_mut().reset(Instant::now() + QUIET);
                }
                () = &mut quiet, if has_worked => {
                    memory::give_back();
                    has_worked = false;
                }
                error = &mut reaper => return error,
                () = &mut orphaned => break Some(ExitStatus::killed(nix::libc::SIGKILL, None)),
            }
        }
    };
    let status = status.unwrap_or_else(|| ExitStatus::killed(nix::libc::SIGKILL, None));
    shim.finish(status).await;
    drop(listener);
    shim.recorded.send_replace(true);
    let farewell = async { while connections.join_next().await.is_some() {} };
    if timeout(FAREWELL, farewell).await.is_err() {
        eprintln!("{} clients did not take the end in time", connections.len());
    }
    Ok(())
}

/// Waits for every child, be it ours or one that the container's processes left. Returns only if it cannot.
async fn reap(shim: &Shim, mut children: Signal) -> io::Result<()> {
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => shim.reaped(pid, status),
                Ok(None) | Err(rustix::io::Errno::CHILD) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        if children.recv().await.is_none() {
            return Err(io::Error::other("no more SIGCHLD"));
        }
    }
}

/// Waits until the container has ended of an exec that nobody started; nobody ever will.
async fn orphaned(shim: &Shim) {
    let Role::Exec(container_dir) = shim.container.borrow().plan.role.clone() else {
        return std::future::pending().await;
    };
    let pids: Option<Pids> = status::load(&container_dir.join(PID_FILE)).unwrap_or_default();
    let init = pids
        .and_then(|pids| pids.init)
        .and_then(|init| Pid::from_raw(init.pid));
    if let Some(pidfd) = init.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
        && let Ok(pidfd) = sys::register(pidfd, Interest::READABLE)
    {
        let _ = pidfd.readable().await; // in either case it is over
    }
    if shim.container.borrow().pid().is_some() {
        std::future::pending::<()>().await; // its process tells of its own end
    }
}

impl Shim {
    /// Starts the process, and its output and input with it.
    async fn start(self: &Rc<Self>) -> Result<(), Fault> {
        if self.ended.borrow().is_some() {
            return Err(Fault::not_running("it has ended already"));
        }
        if self.starting.get() || self.started_at.get().is_some() {
            return Err(Fault::internal("it was started already"));
        }
        self.starting.set(true);
        let launched = self.launch().await;
        self.starting.set(false);
        match (&launched, self.early_end.take()) {
            (Err(fault), _) => self.could_not_start(fault),
            (Ok(()), Some(status)) => self.end(ExitStatus {
                started_at: self.started_at.get(),
                ..status
            }),
            (Ok(()), None) => {}
        }
        launched
    }

    async fn launch(self: &Rc<Self>) -> Result<(), Fault> {
        let now = Timestamp::now();
        let (stdio, report) = self.container.borrow_mut().start()?;
        let failed = |what: &'static str| {
            move |error: io::Error| Fault::internal(format!("{what}: {error}"))
        };
        self.connect(stdio)
            .map_err(failed("connect the standard streams"))?;
        if let Some(fault) = pump::said(report)
            .await
            .map_err(failed("wait for the program"))?
        {
            return Err(fault);
        }
        let pid = self.container.borrow().pid().unwrap_or_default();
        container::record_start(pid, now).map_err(failed("write pid.json"))?;
        self.started_at.set(Some(time::system(now)));
        Ok(())
    }

    /// Ends with the code that Docker's client has for the words of `fault`.
    fn could_not_start(&self, fault: &Fault) {
        let missing = ["executable file not found", "no such file or directory"];
        let code = match fault.kind {
            FaultKind::Executable if missing.iter().any(|words| fault.message.contains(words)) => {
                127
            }
            FaultKind::Executable => 126,
            FaultKind::NotRunning | FaultKind::Internal => 128,
        };
        self.end(ExitStatus {
            code,
            signal: None,
            oom: false,
            started_at: None,
            finished_at: SystemTime::now(),
        });
    }

    /// The first end is the one that counts.
    fn end(&self, status: ExitStatus) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(status);
            first
        });
    }

    fn connect(self: &Rc<Self>, mut stdio: Stdio) -> io::Result<()> {
        let plan = self.container.borrow().plan.clone();
        let log = plan
            .log
            .map(|log| LogWriter::open(log.into()))
            .transpose()?;
        let log = Rc::new(RefCell::new(log));
        if let Some(terminal) = stdio.take_terminal() {
            if let Some((width, height)) = self.wanted_size.take() {
                stdio::resize(&terminal, width, height)?;
            }
            *self.terminal.borrow_mut() = Some(terminal);
        }
        for (stream, fd) in stdio.outputs {
            let channel = Channel::new(fd, Interest::READABLE)?;
            let pump = pump::output(self.clone(), channel, stream, log.clone(), plan.tty);
            self.pumps.borrow_mut().spawn_local(pump);
        }
        if let (Some(fd), Some(queue)) = (stdio.input, self.input_queue.take()) {
            let channel = Channel::new(fd, Interest::WRITABLE)?;
            tokio::task::spawn_local(pump::input(channel, queue, plan.tty));
        }
        Ok(())
    }

    fn reaped(&self, pid: Pid, status: WaitStatus) {
        if self.container.borrow().pid() != Some(pid.as_raw_nonzero().get()) {
            return; // an orphan
        }
        let started_at = self.started_at.get();
        let finished_at = SystemTime::now();
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus {
                code,
                signal: None,
                oom: false,
                started_at,
                finished_at,
            },
            (None, signal) => ExitStatus::killed(signal.unwrap_or(nix::libc::SIGKILL), started_at),
        };
        if self.starting.get() {
            self.early_end.set(Some(status));
        } else {
            self.end(status);
        }
    }

    /// Reads what output is left, cleans up, and records the end.
    async fn finish(&self, mut status: ExitStatus) {
        let mut pumps = self.pumps.take();
        while pumps.join_next().await.is_some() {}
        {
            let container = self.container.borrow();
            if container.plan.role == Role::Init {
                status.oom = cgroups::oom_killed(&container.plan.cgroup);
            }
            container.destroy();
        }
        if let Err(error) = status.save(Path::new("")) {
            eprintln!("write exit.json: {error}");
        }
        self.hub.close();
        if let Err(error) = fs::remove_file(SOCKET) {
            eprintln!("remove {SOCKET}: {error}");
        }
    }

    fn resize(&self, width: u16, height: u16) -> Result<(), Fault> {
        let (container, terminal) = (self.container.borrow(), self.terminal.borrow());
        match terminal.as_ref().or(container.terminal()) {
            Some(terminal) => stdio::resize(terminal, width, height)
                .map_err(|error| Fault::internal(format!("resize the terminal: {error}"))),
            None if container.plan.tty => {
                *self.wanted_size.borrow_mut() = Some((width, height));
                Ok(())
            }
            None => Err(Fault::internal("it has no terminal")),
        }
    }

    fn signal(&self, signal: i32, all: bool) -> Result<(), Fault> {
        let container = self.container.borrow();
        let failed = |error: io::Error| Fault::internal(format!("send signal {signal}: {error}"));
        if self.ended.borrow().is_some() {
            return Err(Fault::not_running("it has ended already"));
        }
        if all && container.plan.role == Role::Init {
            for pid in cgroups::processes(&container.plan.cgroup) {
                match sys::kill(pid, signal) {
                    Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
            return Ok(());
        }
        match container.pid() {
            // it leads a session, and what it began is in its process group unless it chose another
            Some(pid) if all => sys::kill(-pid, signal).map_err(failed),
            // it is our child and not reaped, so the number is still its own
            Some(pid) => sys::kill(pid, signal).map_err(failed),
            None => {
                self.end(ExitStatus::killed(signal, None));
                Ok(())
            }
        }
    }
}
