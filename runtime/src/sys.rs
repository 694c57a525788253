//! The few system calls that no safe wrapper has.
#![allow(
    unsafe_code,
    reason = "each is one call whose contract is met on the spot"
)]

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::ForkResult;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// Filters the system calls of this thread and its descendants from now on (seccomp(2)).
pub(crate) fn install_filter(program: &[Instruction]) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: program
            .len()
            .try_into()
            .map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `header` points to `len` instructions of the kernel's layout that outlive the call, which only reads them.
    let answer = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const header,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Who one is after [`fork`].
pub(crate) enum Forked {
    Child,
    /// And this is the child.
    Parent(i32),
}

/// Forks. Only for a process with one thread, whose child may then do what it likes.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the callers are the forker of shims, the shim before it starts its loop and pid 1 of a container, all
    // single-threaded, so the child inherits no lock that another thread holds.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => Ok(Forked::Child),
        Ok(ForkResult::Parent { child }) => Ok(Forked::Parent(child.as_raw())),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits for one of `signals`, real-time ones included, which are to be blocked.
pub(crate) fn wait_signal(signals: &SigSet) -> io::Result<i32> {
    loop {
        // SAFETY: the set is initialised and outlives the call; a null siginfo is allowed (sigwaitinfo(2)).
        let signal = unsafe { libc::sigwaitinfo(signals.as_ref(), std::ptr::null_mut()) };
        match signal {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            signal => return Ok(signal),
        }
    }
}

/// Sends any signal number, real-time ones included, to a process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) touches no memory of this process.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends any signal number to the process behind `pidfd`, or fails with `ESRCH` once that ended.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and a null siginfo is allowed (pidfd_send_signal(2)).
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives every signal its default action and blocks none, as a program expects to find them. Rust's start-up ignores
/// `SIGPIPE`, which execve(2) would hand on.
pub(crate) fn reset_signals() -> io::Result<()> {
    // the kernel's `struct sigaction`, all zero: the default action, no flags, an empty mask
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of this process, and the kernel only reads its 32 bytes. The call is
        // made raw because the C library refuses the signals it keeps for itself; SIGKILL and SIGSTOP the kernel refuses.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8,
            )
        };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Has the disk begin with `length` bytes of a file, and does not wait for it. That they reach it is for fsync(2) or
/// syncfs(2) to say, so that it cannot be done here is no error.
pub(crate) fn begin_writeback(file: BorrowedFd<'_>, from: u64, length: u64) {
    let (from, length) = (from.cast_signed(), length.cast_signed());
    // SAFETY: the descriptor is open for the call, which touches no memory of this process (sync_file_range(2)).
    unsafe { libc::sync_file_range(file.as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Has the allocator make few heaps and keep little of them free. Left to itself it makes one for each thread that allocates
/// at the same time as others, and maps no piece by itself that is smaller than the largest that was freed.
pub(crate) fn bound_heap() {
    #[cfg(target_env = "gnu")]
    for (what, value) in [
        (libc::M_ARENA_MAX, 2),
        (libc::M_MMAP_THRESHOLD, 128 << 10),
        (libc::M_TRIM_THRESHOLD, 256 << 10),
    ] {
        // SAFETY: it sets a number of the allocator's, which locks itself (mallopt(3)).
        unsafe { libc::mallopt(what, value) };
    }
}

/// Lets go of pages of the program's code from `start` to `end`, which are mapped and not writable.
pub(crate) fn let_go_of_code(start: usize, end: usize) {
    let length = end.saturating_sub(start);
    let start = std::ptr::without_provenance_mut(start);
    // SAFETY: nothing writes to such pages, so that they are read from the file again as they were (madvise(2)).
    unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
}

/// Has the allocator return whole pages that are free.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches only what is free, under the allocator's own locks (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Whether children that end are gone at once, and not waited for.
pub(crate) fn leave_children(unwaited: bool) -> io::Result<()> {
    let action = if unwaited {
        SigHandler::SigIgn
    } else {
        SigHandler::SigDfl
    };
    // SAFETY: neither action runs code of this process.
    unsafe { signal(Signal::SIGCHLD, action) }?;
    Ok(())
}

/// Shows `name` as this process's, and `words` as its command line if it has `CAP_SYS_RESOURCE`: a process that was not
/// executed for what it does is known by its parent's else.
pub(crate) fn name_process(name: &CStr, words: &[&OsStr]) {
    let _ = nix::sys::prctl::set_name(name); // it is for people to read
    let mut text = Vec::new();
    for word in words {
        text.extend_from_slice(word.as_bytes());
        text.push(0);
    }
    let text = text.leak();
    let ends = [
        (libc::PR_SET_MM_ARG_START, text.as_ptr_range().start),
        (libc::PR_SET_MM_ARG_END, text.as_ptr_range().end),
    ];
    for (end, address) in ends {
        // SAFETY: the kernel only notes the address, of bytes that are never freed, for whoever reads the command line.
        unsafe { libc::prctl(libc::PR_SET_MM, end, address, 0, 0) };
    }
}

/// `fd` in the event loop.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always gives the one descriptor that it keeps open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
