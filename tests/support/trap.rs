//! Kills a process at a system call of the test's choice.
//!
//! The process is started by a thread with a seccomp filter, which it inherits, as does all that it starts: the calls by
//! which something changes on disk, in mounts or links are held until a thread here lets them go, or kills instead. That
//! thread ends with the last process that has the filter.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::sys::{self, Notification, When};

/// What a call is made on: the argument with that number.
#[derive(Clone, Copy)]
enum On {
    Path(usize),
    File(usize),
    /// Counted only where this is a file, and not the log.
    FileNotStream(usize),
}

/// Calls by which something changes for the next daemon.
const CALLS: &[(&str, libc::c_long, When, On)] = &[
    (
        "copy_file_range",
        libc::SYS_copy_file_range,
        When::Always,
        On::File(2),
    ),
    ("fdatasync", libc::SYS_fdatasync, When::Always, On::File(0)),
    ("fsync", libc::SYS_fsync, When::Always, On::File(0)),
    ("ftruncate", libc::SYS_ftruncate, When::Always, On::File(0)),
    ("linkat", libc::SYS_linkat, When::Always, On::Path(3)),
    ("mkdirat", libc::SYS_mkdirat, When::Always, On::Path(1)),
    ("mount", libc::SYS_mount, When::Always, On::Path(1)),
    (
        "move_mount",
        libc::SYS_move_mount,
        When::Always,
        On::Path(3),
    ),
    (
        "openat",
        libc::SYS_openat,
        When::Bits(2, libc::O_CREAT.cast_unsigned()),
        On::Path(1),
    ),
    ("pwrite64", libc::SYS_pwrite64, When::Always, On::File(0)),
    ("renameat", libc::SYS_renameat, When::Always, On::Path(3)),
    ("renameat2", libc::SYS_renameat2, When::Always, On::Path(3)),
    // A netlink socket's address has this length.
    ("sendto", libc::SYS_sendto, When::Is(5, 12), On::File(0)),
    ("symlinkat", libc::SYS_symlinkat, When::Always, On::Path(2)),
    ("syncfs", libc::SYS_syncfs, When::Always, On::File(0)),
    ("umount2", libc::SYS_umount2, When::Always, On::Path(0)),
    ("unlinkat", libc::SYS_unlinkat, When::Always, On::Path(1)),
    ("write", libc::SYS_write, When::Always, On::FileNotStream(0)),
    (
        "writev",
        libc::SYS_writev,
        When::Always,
        On::FileNotStream(0),
    ),
    #[cfg(target_arch = "x86_64")]
    ("link", libc::SYS_link, When::Always, On::Path(1)),
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir, When::Always, On::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("rename", libc::SYS_rename, When::Always, On::Path(1)),
    #[cfg(target_arch = "x86_64")]
    ("rmdir", libc::SYS_rmdir, When::Always, On::Path(0)),
    #[cfg(target_arch = "x86_64")]
    ("symlink", libc::SYS_symlink, When::Always, On::Path(1)),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink, When::Always, On::Path(0)),
];

/// What a process is about to do, and whether it will.
#[derive(Default)]
struct State {
    /// Which of the calls it does not live to make, counted from 1.
    deadly: Option<usize>,
    /// The calls since the trap was set, each in words.
    seen: Vec<String>,
}

/// A process that can be killed as it is about to make a call.
#[derive(Clone)]
pub(crate) struct Trap(Arc<Mutex<State>>);

impl Trap {
    /// Starts `command`, which is killed as it is about to make its call number `deadly`.
    ///
    /// Only this one process is: what it starts lives on, but for what ends with it.
    #[track_caller]
    pub(crate) fn spawn(mut command: Command, deadly: Option<usize>) -> (Child, Self) {
        let state = State {
            deadly,
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let calls: Vec<_> = CALLS
            .iter()
            .map(|&(_, number, when, _)| (number, when))
            .collect();
        let theirs = Arc::clone(&state);
        let child = spawn_held(
            &calls,
            move || command.spawn().expect("start the program"),
            move |listener, held| decide(listener, held, &theirs),
        );
        (child, Self(state))
    }

    /// Of the calls from now on, number `deadly` is not made: the process is killed. Those since this was last said, or
    /// since the start, a deadly one included.
    pub(crate) fn set(&self, deadly: Option<usize>) -> Vec<String> {
        let next = State {
            deadly,
            ..State::default()
        };
        std::mem::replace(&mut *self.state(), next).seen
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `spawn` start something that makes none of `calls` before `decide` has it go on, or answers in the kernel's place.
#[track_caller]
pub(super) fn spawn_held<T: Send + 'static>(
    calls: &[(libc::c_long, When)],
    spawn: impl FnOnce() -> T + Send + 'static,
    decide: impl Fn(&OwnedFd, &Notification) + Send + 'static,
) -> T {
    let (tell, hear) = mpsc::channel();
    let calls = calls.to_vec();
    let starter = thread::spawn(move || {
        let listener = sys::hold_calls(&calls).expect("hold system calls");
        tell.send(listener).expect("it is waited for");
        spawn()
    });
    let listener = hear.recv().expect("the filter is there");
    thread::spawn(move || serve(&listener, decide));
    starter.join().expect("the program starts")
}

/// Decides about every held call until nobody is left to make one.
fn serve(listener: &OwnedFd, decide: impl Fn(&OwnedFd, &Notification)) {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue; // a signal
        }
        let revents = ready[0].revents();
        if !revents.contains(PollFlags::IN) {
            if revents.contains(PollFlags::HUP) {
                return; // the last process with the filter is gone
            }
            continue; // POLLERR: a signal
        }
        // Else its process is gone.
        if let Ok(held) = sys::next_call(listener.as_fd()) {
            decide(listener, &held);
        }
    }
}

/// Lets a call go, or kills who is about to make it.
fn decide(listener: &OwnedFd, held: &Notification, state: &Mutex<State>) {
    if let Some((process, words)) = counted(held) {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .deadly
            .is_some_and(|deadly| state.seen.len() >= deadly)
        {
            return; // it is dying
        }
        state.seen.push(words);
        if state.deadly == Some(state.seen.len()) {
            let _ = kill(process, Signal::SIGKILL);
            return;
        }
    }
    let_go(listener, held);
}

/// A call that nobody lets go is held for ever.
pub(super) fn let_go(listener: &OwnedFd, held: &Notification) {
    settle(held, || sys::let_go(listener.as_fd(), held));
}

/// Tells the kernel what becomes of a held call, however often that takes.
pub(super) fn settle(held: &Notification, tell: impl Fn() -> std::io::Result<()>) {
    loop {
        match tell() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return, // who would make it is gone
            Err(error) => {
                return eprintln!("settle call {} of {}: {error}", held.data.nr, held.pid);
            }
            Ok(()) => return,
        }
    }
}

/// The process that is about to make a call, and what that is in words, if it counts: if this process started that one,
/// and the call is not on a stream.
fn counted(held: &Notification) -> Option<(Pid, String)> {
    let status = fs::read_to_string(format!("/proc/{}/status", held.pid)).ok()?;
    let number = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().parse::<i32>().ok()
    };
    let process = number("Tgid:")?;
    if number("PPid:")? != std::process::id().cast_signed() {
        return None;
    }
    let called = libc::c_long::from(held.data.nr);
    let &(name, _, _, on) = CALLS.iter().find(|&&(_, number, ..)| number == called)?;
    let file = |index: usize| {
        let descriptor = held.data.args[index];
        let path = fs::read_link(format!("/proc/{process}/fd/{descriptor}")).unwrap_or_default();
        path.display().to_string()
    };
    let what = match on {
        On::Path(index) => path_at(process, held.data.args[index]),
        On::File(index) => file(index),
        On::FileNotStream(index) => {
            Some(file(index)).filter(|path| held.data.args[index] > 2 && path.starts_with('/'))?
        }
    };
    Some((Pid::from_raw(process), format!("{name} {what}")))
}

/// The path that lies at an address in the memory of `process`.
fn path_at(process: i32, address: u64) -> String {
    let mut bytes = vec![0; 256];
    let read = File::open(format!("/proc/{process}/mem"))
        .and_then(|memory| memory.read_at(&mut bytes, address));
    bytes.truncate(read.unwrap_or_default());
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}
