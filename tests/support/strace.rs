//! Hides a file from a process, by strace.

use std::io::{BufRead, BufReader};
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

/// A process and what it spawns find no file at a path, while this is kept.
pub(crate) struct Hidden(Child);

impl Hidden {
    /// Hides `path` from the process `pid`.
    #[track_caller]
    pub(crate) fn from(pid: u32, path: &str) -> Self {
        let fault = "inject=openat:error=ENOENT";
        let what = ["-P", path, "-e", "trace=openat", "-e", fault];
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

impl Drop for Hidden {
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
