//! Kills a process at a system call of the test's choice, by strace.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::tool;

/// A process is killed as it is about to make a call, while this is kept.
pub(crate) struct Trap(Child);

impl Trap {
    /// Kills `pid`, or what it spawns, as any of its threads makes the system call `call` for the `nth` time from now on.
    /// The call is not made any more.
    #[track_caller]
    pub(crate) fn set(pid: u32, call: &str, nth: usize) -> Self {
        let mut strace = Command::new(tool("strace"))
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=KILL:when={nth}")])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start strace");
        let told = strace.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(told).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        assert!(first.contains(" attached"), "strace: {first}");
        // What it tells of further threads and processes is of no interest, but must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
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
        let _ = self.0.wait();
    }
}
