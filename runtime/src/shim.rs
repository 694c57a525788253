//! The process beside each container and each exec, which outlives the daemon.
//!
//! It calls libcontainer while it has one thread, then runs one loop: it holds the process's terminal or pipes, writes
//! the log, serves `shim.sock`, reaps, and leaves the exit status. `status.rs` tells the files, `protocol.rs` the socket.
//!
//! If a shim is killed its container is lost: nobody holds the pipes any more. Whoever then looks, through
//! [`Shim::connect`](crate::Shim::connect) or [`Shim::wait`](crate::Shim::wait), kills what is left and records 137.

mod container;
pub mod forker;
mod hub;
mod payload;
mod serve;
mod stdio;
mod trace;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Pid};

use crate::plan::{Plan, Role};
use crate::protocol::{Fault, SOCKET};
use crate::status::{self, PID_FILE, Pids, Process};
use crate::sys::{self, Forked};
use container::Container;

pub(crate) const LOG_FILE: &str = "shim.log";

/// The hidden sub-command `nuncio shim RUN_DIR`. To be called first thing in `main`, before there is any thread.
///
/// Its parent gets one line of JSON on standard output: `"Ok"` once the container is created, or why it is not. The
/// process that was called ends then; the shim is its child.
#[must_use]
pub fn main(run_dir: &Path) -> ExitCode {
    match leave(run_dir) {
        Ok(true) => run(run_dir),
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            report(&Err(Fault::internal(format!(
                "shim in {}: {error}",
                run_dir.display()
            ))));
            ExitCode::FAILURE
        }
    }
}

/// Leaves the parent; `true` in the process that goes on.
fn leave(run_dir: &Path) -> io::Result<bool> {
    match sys::fork()? {
        Forked::Parent(_) => Ok(false),
        Forked::Child => begin(run_dir).map(|()| true),
    }
}

/// Leaves the parent's session, terminal and working directory.
fn begin(run_dir: &Path) -> io::Result<()> {
    rustix::process::chdir(run_dir)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(LOG_FILE)?;
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Pid::from_raw(1))?;
    rustix::stdio::dup2_stderr(&log)?;
    trace::install(log);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(())
}

fn run(run_dir: &Path) -> ExitCode {
    match create() {
        Ok((container, listener)) => {
            report(&Ok(()));
            if let Err(error) = silence() {
                eprintln!("close standard output: {error}");
            }
            match serve::run(container, listener) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("shim in {}: {error}", run_dir.display());
                    ExitCode::FAILURE
                }
            }
        }
        Err(fault) => {
            eprintln!("{}", fault.message);
            let _ = fs::remove_file(SOCKET); // it may not have come so far
            report(&Err(fault));
            ExitCode::FAILURE
        }
    }
}

/// Prepares the container up to the point where only the word to start is missing.
fn create() -> Result<(Container, UnixListener), Fault> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Fault::internal(format!("{what}: {error}"))
    };
    let plan = Plan::load(Path::new("")).map_err(failed("read the plan"))?;
    // it listens before there is a container, so that whoever finds the container finds its shim;
    // relative, for an address has room for 107 bytes only
    let _ = fs::remove_file(SOCKET); // of an earlier run
    let listener = UnixListener::bind(SOCKET).map_err(failed("listen on shim.sock"))?;
    let mut pids = Pids {
        v: 1,
        shim: Process::of(own_pid()).map_err(failed("read /proc"))?,
        init: None,
        started_at: None,
    };
    status::save(Path::new(PID_FILE), &pids).map_err(failed("write pid.json"))?;

    let container = match &plan.role {
        Role::Init => Container::create(plan)?,
        Role::Exec(container_dir) => Container::join(&container_dir.clone(), plan)?,
    };
    // libcontainer made this process undumpable
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable); // worth no failure
    let recorded = container
        .pid()
        .map(Process::of)
        .transpose()
        .and_then(|init| {
            pids.init = init;
            status::save(Path::new(PID_FILE), &pids)
        });
    if let Err(error) = recorded {
        container.destroy();
        return Err(failed("write pid.json")(error));
    }
    Ok((container, listener))
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Tells the parent; it may be gone.
fn report(result: &Result<(), Fault>) {
    report_to(&mut io::stdout(), result);
}

fn report_to(parent: &mut impl Write, result: &Result<(), Fault>) {
    let line = serde_json::to_string(result).expect("text always encodes");
    let _ = writeln!(parent, "{line}");
}

/// Closes the parent's pipe, by which it knows that all is said.
fn silence() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}
