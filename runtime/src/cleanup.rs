//! Takes away what a container left, however it ended.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::libc::SIGKILL;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd;

use crate::cgroups;
use crate::plan::{Plan, Role};
use crate::status::{self, ExitStatus, PID_FILE, Pids, Process};
use crate::sys;
use crate::time;

/// Longer than any process takes to die that is not stuck in the kernel.
const LIMIT: Duration = Duration::from_secs(10);

/// Removes a container's processes, cgroups and run directory, in whatever state they are. A directory that is not
/// there is no error, so it can be repeated.
///
/// # Errors
///
/// The first thing that could not be removed; everything else is.
pub fn cleanup(run_dir: &Path) -> io::Result<()> {
    let stopped = stop(run_dir).map(drop);
    match fs::remove_dir_all(run_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => stopped.and(Err(error)),
        _ => stopped,
    }
}

/// Removes the cgroups `<parent>` that containers were made in, those excepted that are in use.
pub fn remove_cgroup_parent(parent: &str) {
    cgroups::remove_empty(Path::new(parent));
}

/// Ends what a killed shim left and records it.
pub(crate) fn bury(run_dir: &Path) -> io::Result<ExitStatus> {
    let pids = stop(run_dir)?;
    // the shim may have written it while it was being looked for
    if let Some(status) = ExitStatus::load(run_dir)? {
        return Ok(status);
    }
    let started_at = pids.and_then(|pids| pids.started_at).map(time::system);
    let status = ExitStatus::killed(SIGKILL, started_at);
    status.save(run_dir)?;
    Ok(status)
}

/// Kills the shim, the process, and what else is in the container's cgroups.
fn stop(run_dir: &Path) -> io::Result<Option<Pids>> {
    let plan = match Plan::load(run_dir) {
        Ok(plan) => Some(plan),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let pids: Option<Pids> = status::load(&run_dir.join(PID_FILE))?;
    if let Some(pids) = &pids {
        // the shim first, or it would record an end that it did not cause
        for process in [Some(pids.shim), pids.init].into_iter().flatten() {
            kill(process)?;
        }
    }
    match plan {
        Some(plan) if plan.role == Role::Init => cgroups::remove(&plan.cgroup)?,
        _ => {}
    }
    Ok(pids)
}

/// Kills `process`, but nobody who was given its number since.
fn kill(process: Process) -> io::Result<()> {
    let pidfd = match Pid::from_raw(process.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => pidfd,
        Some(Err(rustix::io::Errno::SRCH)) | None => return Ok(()),
        Some(Err(errno)) => return Err(errno.into()),
    };
    if !process.is_alive() {
        return Ok(()); // looked at after opening, so the descriptor is surely not the process's
    }
    match sys::pidfd_kill(pidfd.as_fd(), SIGKILL) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => Err(error),
        _ => cgroups::wait_end(&pidfd, LIMIT),
    }
}
