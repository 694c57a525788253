//! Kills a process at a system call of the test's choice, by strace.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::tool;

/// How long strace may take to attach: it takes milliseconds, or hangs.
const ATTACHES: Duration = Duration::from_secs(15);
/// How long it may take to end.
const ENDS: Duration = Duration::from_secs(5);

/// A process is killed as it is about to make a call, while this is kept.
pub(crate) struct Trap(Child);

impl Trap {
    /// Kills `pid`, or what it spawns, as any of its threads makes the system call `call` for the `nth` time from now on.
    /// The call is not made any more.
    ///
    /// A call that is made while strace still attaches may kill it, too, and then strace waits for a thread that has
    /// ended: it is given up, and the process is dead from the beginning.
    #[track_caller]
    pub(crate) fn set(pid: u32, call: &str, nth: usize) -> Self {
        let fault = format!("inject={call}:signal=KILL:when={nth}");
        Self::attach(pid, &["-e", &format!("trace={call}"), "-e", &fault])
    }

    /// Has `pid`, and what it spawns, find no file at `path`.
    #[track_caller]
    pub(crate) fn hide(pid: u32, path: &str) -> Self {
        let fault = "inject=openat:error=ENOENT";
        Self::attach(pid, &["-P", path, "-e", "trace=openat", "-e", fault])
    }

    #[track_caller]
    fn attach(pid: u32, what: &[&str]) -> Self {
        let mut strace = Command::new(tool("strace"))
            .args(["-f", "-o", "/dev/null"])
            .args(what)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start strace");
        let told = strace.stderr.take().expect("it is piped");
        let lines = BufReader::new(told).lines().map_while(Result::ok);
        let (tell, hear) = mpsc::channel();
        // What it tells of further threads and processes is of no interest, but must not fill the pipe.
        std::thread::spawn(move || {
            for line in lines {
                let _ = tell.send(line);
            }
        });
        match hear.recv_timeout(ATTACHES) {
            Ok(first) => assert!(first.contains(" attached"), "strace: {first}"),
            Err(RecvTimeoutError::Timeout) => strace.kill().expect("give it up"),
            Err(RecvTimeoutError::Disconnected) => panic!("strace ended at once"),
        }
        Self(strace)
    }
}

impl Trap {
    /// As [`Trap::set`], of a command from its beginning on. What it writes is not kept.
    #[track_caller]
    pub(crate) fn spawn(command: &Command, call: &str, nth: usize) -> (Child, Self) {
        // It waits for a line, so that the trap is there before it does anything.
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "read go; exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        let mut child = shell.spawn().expect("start a shell");
        let trap = Self::set(child.id(), call, nth);
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(b"go\n").expect("the shell reads");
        (child, trap)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM); // it lets go of what it traces
        }
        let deadline = Instant::now() + ENDS;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill(); // the kernel lets go for it
        let _ = self.0.wait();
    }
}
