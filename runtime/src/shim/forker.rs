//! The process that forks a daemon's shims.
//!
//! A program that is executed has its addresses written into it first, which takes time and more than a megabyte that
//! each process has for itself. What is forked shares all that with its siblings. So the daemon executes this once, while
//! it is nothing but a loop without threads or state, and has it fork.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::{begin, report_to, run};
use crate::protocol::Fault;
use crate::sys::{self, Forked};

/// Bytes of a path, by the kernel's own bound (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// The hidden sub-command `nuncio shims [OWNER]`: a socket is its standard input, on which each message is a run directory,
/// with the pipe on which to tell what became of its shim. Ends with the last daemon that holds the other end.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fork shims: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns in each shim too, when that has ended.
fn serve() -> io::Result<ExitCode> {
    sys::leave_children(true)?; // a shim that ends is not waited for
    let mut buffer = vec![0; LONGEST_PATH];
    loop {
        let Some((run_dir, report)) = receive(&mut buffer)? else {
            return Ok(ExitCode::SUCCESS);
        };
        match sys::fork() {
            Ok(Forked::Parent(_)) => {}
            Ok(Forked::Child) => return Ok(shim(&run_dir, report)),
            Err(error) => {
                let fault = Fault::internal(format!("fork a shim: {error}"));
                report_to(&mut File::from(report), &Err(fault));
            }
        }
    }
}

/// The next order; none when the daemon is gone.
fn receive(buffer: &mut [u8]) -> io::Result<Option<(PathBuf, OwnedFd)>> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = recvmsg(
            rustix::stdio::stdin(),
            &mut into,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = match received {
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
            Ok(received) if received.bytes == 0 => return Ok(None),
            Ok(received) if received.flags.contains(ReturnFlags::TRUNC) => 0,
            Ok(received) => received.bytes,
        };
        let report = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        // an order that is none has nobody to be told of it
        if let Some(report) = report.filter(|_| length > 0) {
            return Ok(Some((OsStr::from_bytes(&buffer[..length]).into(), report)));
        }
    }
}

fn shim(run_dir: &Path, report: OwnedFd) -> ExitCode {
    let begun = sys::leave_children(false)
        .and_then(|()| Ok(rustix::stdio::dup2_stdout(&report)?))
        .and_then(|()| {
            drop(report); // its parent waits for the last of them to be closed
            let words = ["nuncio".as_ref(), "shim".as_ref(), run_dir.as_os_str()];
            sys::name_process(c"nuncio-shim", &words);
            begin(run_dir)
        });
    match begun {
        Ok(()) => run(run_dir),
        Err(error) => {
            let text = format!("shim in {}: {error}", run_dir.display());
            report_to(&mut io::stdout(), &Err(Fault::internal(text)));
            ExitCode::FAILURE
        }
    }
}
