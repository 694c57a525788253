//! A clock of its own for one process, which a test sets.
//!
//! Programs read the time of day from a page that the kernel maps into them (vdso(7)), without a call. So they are started
//! without knowing of that page: ptrace(2) stops them before their first instruction, and takes it off the list of what the
//! kernel tells them (getauxval(3)). Then they ask by a call, which a thread here answers (seccomp_unotify(2)). What they
//! start knows of the page again, and has the machine's clock. What time has passed is counted by another clock, which stays
//! the machine's.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use nix::libc;

use super::sys::{self, Notification, When};
use super::trap;

/// A clock that is ahead of the machine's, or behind. Clones are one clock.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Sets it to so many seconds after the machine's.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    /// Starts `program` by `command`, which ends in running it, with this clock. `spawn` starts the command and tells its id.
    #[track_caller]
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        mut command: Command,
        program: &Path,
        spawn: impl FnOnce(Command) -> (T, u32) + Send + 'static,
    ) -> T {
        let program = fs::canonicalize(program).expect("there is such a program");
        sys::stop_at_exec(&mut command);
        let (asks, clock) = (
            [(libc::SYS_clock_gettime, When::Is(0, 0))], // CLOCK_REALTIME
            self.clone(),
        );
        trap::spawn_held(
            &asks,
            move || {
                let (started, pid) = spawn(command);
                let hide = || {
                    hide_vdso(pid);
                    fs::read_link(format!("/proc/{pid}/exe")).expect("it runs") == program
                };
                sys::until_exec(pid.cast_signed(), hide).expect("the program starts");
                started
            },
            move |listener, held| clock.answer(listener, held),
        )
    }

    fn answer(&self, listener: &OwnedFd, held: &Notification) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("after 1970");
        let seconds = now.as_secs().cast_signed() + self.0.load(Ordering::Relaxed);
        let mut told = seconds.to_ne_bytes().to_vec();
        told.extend(i64::from(now.subsec_nanos()).to_ne_bytes());
        let memory = File::options()
            .write(true)
            .open(format!("/proc/{}/mem", held.pid));
        let written = memory.and_then(|memory| memory.write_all_at(&told, held.data.args[1]));
        let error = written.err().map(|_| libc::EFAULT);
        trap::settle(held, || sys::answer(listener.as_fd(), held, error));
    }
}

/// Makes a process, which has not begun, unaware of the page that has the time.
fn hide_vdso(pid: u32) {
    const AT_IGNORE: u64 = 1;
    const AT_SYSINFO_EHDR: u64 = 33;
    let list = fs::read(format!("/proc/{pid}/auxv")).expect("the kernel's list");
    let entry = list
        .chunks_exact(16)
        .position(|entry| entry[..8] == AT_SYSINFO_EHDR.to_ne_bytes())
        .expect("it is told of the page");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its memory");
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let bounds = stack.and_then(|line| line.split(' ').next()?.split_once('-'));
    let (from, to) = bounds.expect("a stack");
    let address = |text| u64::from_str_radix(text, 16).expect("an address");
    let (from, to) = (address(from), address(to));
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .expect("open its memory");
    let mut bytes = vec![0; usize::try_from(to - from).expect("a small stack")];
    memory.read_exact_at(&mut bytes, from).expect("read it");
    let at = bytes
        .windows(list.len())
        .position(|window| window == list)
        .expect("the list is on the stack");
    let at = from + (at + entry * 16) as u64;
    memory
        .write_all_at(&AT_IGNORE.to_ne_bytes(), at)
        .expect("write it");
}
