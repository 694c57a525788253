//! Seccomp's user notification (seccomp_unotify(2)), stopping a program before it begins (ptrace(2)), and what ethtool(8)
//! does, which no safe wrapper has.

#![allow(
    unsafe_code,
    reason = "no safe wrapper has seccomp's user notification, nor ethtool's commands"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

pub(super) use nix::libc::seccomp_notif as Notification;

/// Of linux/if_packet.h.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

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
    let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("one bit");
    respond(listener, held, 0, flags)
}

/// Answers a held call in the kernel's place: with zero, or an error.
///
/// # Errors
///
/// `ENOENT` if who was about to make it is no more.
pub(super) fn answer(
    listener: BorrowedFd<'_>,
    held: &Notification,
    error: Option<libc::c_int>,
) -> io::Result<()> {
    respond(listener, held, -error.unwrap_or_default(), 0)
}

fn respond(
    listener: BorrowedFd<'_>,
    held: &Notification,
    error: libc::c_int,
    flags: u32,
) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id: held.id,
        val: 0,
        error,
        flags,
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

/// Has `command` stop before the first instruction of what it runs, and of what that runs in its place, until the thread that
/// starts it lets it go on by [`until_exec`].
pub(super) fn stop_at_exec(command: &mut Command) {
    let trace_me = || ptrace(libc::PTRACE_TRACEME, 0, 0);
    // SAFETY: between fork and exec this makes one system call, and allocates nothing.
    unsafe { command.pre_exec(trace_me) };
}

/// Lets a process go on from program to program, until `is_it` says that one is the one to let go for good. To be called by the
/// thread that started it.
///
/// # Errors
///
/// As waitpid(2) and ptrace(2).
pub(super) fn until_exec(pid: libc::pid_t, mut is_it: impl FnMut() -> bool) -> io::Result<()> {
    loop {
        match waitpid(Pid::from_raw(pid), None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) if is_it() => {
                return ptrace(libc::PTRACE_DETACH, pid, 0);
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => ptrace(libc::PTRACE_CONT, pid, 0)?,
            WaitStatus::Stopped(_, signal) => {
                ptrace(libc::PTRACE_CONT, pid, signal as libc::c_int)?;
            }
            ended => return Err(io::Error::other(format!("{ended:?}"))),
        }
    }
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    let signal = std::ptr::without_provenance_mut::<libc::c_void>(signal.unsigned_abs() as usize);
    // SAFETY: none of the requests made here reads or writes memory of this process.
    let done = unsafe { libc::ptrace(request, pid, none, signal) };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether a link of this thread's network namespace leaves checksums to the device beneath it, or `set` to.
///
/// # Errors
///
/// `ENODEV` if there is no such link.
pub(super) fn tx_checksum(link: &str, set: Option<bool>) -> io::Result<bool> {
    /// `ETHTOOL_GTXCSUM` and `ETHTOOL_STXCSUM`.
    const COMMANDS: [u32; 2] = [0x16, 0x17];
    let any = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let command = COMMANDS[usize::from(set.is_some())];
    let mut value = [command, u32::from(set.unwrap_or_default())];
    // SAFETY: all of the structure's fields are integers and pointers, of which zero is one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: both outlive the call, and these commands read and write a `struct ethtool_value`, two words.
    let done = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(done)?;
    Ok(value[1] != 0)
}

/// Has a packet socket give each frame that comes in, and take it, behind a `struct virtio_net_hdr`, which says what is to be
/// computed yet.
///
/// # Errors
///
/// As setsockopt(2).
pub(super) fn set_up_for_relaying(socket: BorrowedFd<'_>) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&yes)).expect("a few bytes");
    for option in [libc::PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
        // SAFETY: these options read one int, which outlives the call.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const yes).cast(),
                length,
            )
        };
        nix::errno::Errno::result(done)?;
    }
    Ok(())
}

/// Has a packet socket hear and speak by one link alone.
///
/// # Errors
///
/// As bind(2).
pub(super) fn bind_to_link(socket: BorrowedFd<'_>, link: u32) -> io::Result<()> {
    // SAFETY: all of the structure's fields are integers, of which zero is one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("a small number");
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .expect("a small number")
        .to_be();
    address.sll_ifindex = i32::try_from(link).expect("a link's index");
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("a few bytes");
    // SAFETY: the address outlives the call, and is as long as said.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    nix::errno::Errno::result(done)?;
    Ok(())
}
