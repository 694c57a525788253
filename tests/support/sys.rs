//! Seccomp's user notification (seccomp_unotify(2)), which no safe wrapper has.

#![allow(
    unsafe_code,
    reason = "no safe wrapper has seccomp's user notification"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

pub(super) use nix::libc::seccomp_notif as Notification;

/// Where `struct seccomp_data` has the call's number, and half of its arguments that is enough for flags and lengths.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// Which calls are told of.
#[derive(Clone, Copy)]
pub(super) enum When {
    Always,
    /// If the argument has one of these bits.
    Bits(u32, u32),
    /// If the argument is this.
    Is(u32, u32),
}

/// From now on this thread, and all that it starts, makes none of `calls` before it is told by the answer to a
/// [`Notification`] to go on. The descriptor is where these come from; once it is closed such calls fail with `ENOSYS`.
///
/// # Errors
///
/// As seccomp(2): `EACCES` without `CAP_SYS_ADMIN`, `EINVAL` before Linux 5.19.
pub(super) fn hold_calls(calls: &[(libc::c_long, When)]) -> io::Result<OwnedFd> {
    let mut filter = filter(calls);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a short list"),
        filter: filter.as_mut_ptr(),
    };
    // The second flag: no signal but one that kills makes a held call be made, and told of, again.
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the program and its filter outlive the call, which copies them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    let listener = i32::try_from(listener).expect("a descriptor");
    // SAFETY: the call made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn filter(calls: &[(libc::c_long, When)]) -> Vec<libc::sock_filter> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("an instruction"),
        jt: 0,
        jf: 0,
        k,
    };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let unless = |test: u32, k: u32, skip: u8| libc::sock_filter {
        jf: skip,
        ..statement(libc::BPF_JMP | test | libc::BPF_K, k)
    };
    let give = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let hold = give(libc::SECCOMP_RET_USER_NOTIF);
    let mut filter = Vec::new();
    for &(number, when) in calls {
        let number = u32::try_from(number).expect("a system call's number");
        let argument = |index: u32| load(FIRST_ARGUMENT + 8 * index);
        filter.push(load(NUMBER));
        match when {
            When::Always => filter.extend([unless(libc::BPF_JEQ, number, 1), hold]),
            When::Bits(index, bits) => filter.extend([
                unless(libc::BPF_JEQ, number, 3),
                argument(index),
                unless(libc::BPF_JSET, bits, 1),
                hold,
            ]),
            When::Is(index, value) => filter.extend([
                unless(libc::BPF_JEQ, number, 3),
                argument(index),
                unless(libc::BPF_JEQ, value, 1),
                hold,
            ]),
        }
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    filter
}

/// The next call that is held.
///
/// # Errors
///
/// `ENOENT` if who was about to make it is no more.
pub(super) fn next_call(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: it is all integers, and the kernel asks for zeros.
    let mut held: Notification = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the one structure it is given.
    let got = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut held,
        )
    };
    if got < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(held)
    }
}

/// Lets a held call be made.
///
/// # Errors
///
/// `ENOENT` if who was about to make it is no more.
pub(super) fn let_go(listener: BorrowedFd<'_>, held: &Notification) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id: held.id,
        val: 0,
        error: 0,
        flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("one bit"),
    };
    // SAFETY: the kernel reads the one structure it is given.
    let sent = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
