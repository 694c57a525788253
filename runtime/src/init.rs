//! `nuncio init`: pid 1 of a container that was asked for `--init`.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::{self, Forked};

/// The hidden sub-command `nuncio init -- PROGRAM ARGS`: runs the program, hands it every signal, reaps every orphan,
/// and ends as the program does. `args` is what follows `init`. To be called before there is any thread.
#[must_use]
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.skip_while(|arg| arg == "--").collect();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let program = args
                .first()
                .map(|program| program.to_string_lossy())
                .unwrap_or_default();
            eprintln!("init: exec {program:?}: {error}");
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    }
}

fn run(args: &[OsString]) -> io::Result<u8> {
    let args: Vec<_> = args
        .iter()
        .map(|arg| CString::new(arg.clone().into_vec()))
        .collect::<Result<_, _>>()?;
    let program = args
        .first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program is named"))?;
    // those are for this process: faults of its own, and stops that its terminal wants to make
    let mut awaited = SigSet::all();
    for own in [
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
    ] {
        awaited.remove(own);
    }
    awaited.thread_block()?;
    let child = match sys::fork()? {
        Forked::Parent(child) => Pid::from_raw(child),
        Forked::Child => {
            // a group of its own in the foreground, so that a typed Ctrl-C reaches it once only
            let own = Pid::from_raw(0);
            nix::unistd::setpgid(own, own)?;
            match nix::unistd::tcsetpgrp(io::stdin(), nix::unistd::getpid()) {
                Ok(())
                | Err(
                    nix::errno::Errno::ENOTTY | nix::errno::Errno::ENXIO | nix::errno::Errno::EBADF,
                ) => {}
                Err(errno) => return Err(errno.into()),
            }
            sys::reset_signals()?;
            match nix::unistd::execvp(program, &args) {
                Ok(never) => match never {},
                Err(errno) => return Err(errno.into()),
            }
        }
    };
    loop {
        let signal = sys::wait_signal(&awaited)?;
        match signal {
            libc::SIGCHLD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            // the terminal asks a background process to stop, which pid 1 must not
            libc::SIGTTIN | libc::SIGTTOU => {}
            forwarded => match sys::kill(child.as_raw(), forwarded) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => {}
            },
        }
    }
}

/// Waits for all that have ended; the code to end with if `child` is among them.
fn reap(child: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => {
                code = Some(status.to_le_bytes()[0]);
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = Some(128 + signal as u8);
            }
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(code),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
