//! Commands with a deadline.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Arguments of a command: a string of words, or one argument each.
pub(crate) trait Args {
    /// The arguments.
    fn words(&self) -> Vec<String>;
}

impl Args for &str {
    fn words(&self) -> Vec<String> {
        self.split_whitespace().map(str::to_owned).collect()
    }
}

impl Args for &String {
    fn words(&self) -> Vec<String> {
        self.as_str().words()
    }
}

impl<const N: usize> Args for [&str; N] {
    fn words(&self) -> Vec<String> {
        self.iter().map(|&word| word.to_owned()).collect()
    }
}

impl Args for &[&str] {
    fn words(&self) -> Vec<String> {
        self.iter().map(|&word| word.to_owned()).collect()
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Exit status; 128 and the signal's number if one ended it.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    command: String,
}

impl Finished {
    /// Standard output without the last newline.
    ///
    /// # Panics
    ///
    /// If the command failed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "{}\n{}{}",
            self.command, self.stdout, self.stderr
        );
        self.stdout.trim_end().to_owned()
    }

    /// Standard error, which is one line.
    ///
    /// # Panics
    ///
    /// If the exit status is not `code`, or standard error is anything but one line.
    #[track_caller]
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "{}\n{}{}",
            self.command, self.stdout, self.stderr
        );
        let message = self.stderr.trim_end();
        assert!(
            !message.is_empty(),
            "{}: failed without a word",
            self.command
        );
        let lines: Vec<&str> = message.lines().filter(|line| !is_hint(line)).collect();
        assert_eq!(
            lines.len(),
            1,
            "{}: more than one line\n{message}",
            self.command
        );
        lines[0].to_owned()
    }
}

/// What Docker's client says around an error: that it looks for an image elsewhere, where to read on, and its own status.
fn is_hint(line: &str) -> bool {
    line.trim().is_empty()
        || ["Run '", "See '", "Unable to find image '", "exit status "]
            .iter()
            .any(|start| line.starts_with(start))
}

/// A command under way. Dropping it kills it.
pub(crate) struct Spawned {
    child: Child,
    command: String,
    started: Instant,
    readers: Option<(JoinHandle<String>, JoinHandle<String>)>,
    lines: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Spawned {
    /// Starts `command`. With `input` it reads that, else nothing.
    #[track_caller]
    pub(crate) fn new(mut command: Command, input: Option<&[u8]>) -> Self {
        let text = format!("{command:?}");
        let started = command
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => panic!("{text}: {error}"),
        };
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input.map(<[u8]>::to_vec)) {
            spawn(move || stdin.write_all(&input)); // who does not read gets no further
        }
        let (sender, lines) = channel();
        let stdout = collect(child.stdout.take(), move |bytes| drop(sender.send(bytes)));
        let stderr = collect(child.stderr.take(), |_| ());
        Self {
            child,
            command: text,
            started: Instant::now(),
            readers: Some((stdout, stderr)),
            lines,
            seen: Vec::new(),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until standard output holds `text`.
    ///
    /// # Panics
    ///
    /// If it ends, or time does, before that.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let left = LIMIT.saturating_sub(self.started.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(error) => panic!(
                    "{}: {error} before it said {text:?}, only {:?}",
                    self.command,
                    String::from_utf8_lossy(&self.seen)
                ),
            }
        }
    }

    /// Whether standard output holds `text` by now.
    pub(crate) fn says(&mut self, text: &str) -> bool {
        self.output().contains(text)
    }

    /// Standard output so far.
    pub(crate) fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter().flatten());
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Whether it has not ended yet.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        use std::os::unix::process::ExitStatusExt;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.started.elapsed() < LIMIT => sleep(Duration::from_millis(5)),
                Ok(None) => panic!("{}: still runs after {LIMIT:?}", self.command),
                Err(error) => panic!("{}: {error}", self.command),
            }
        };
        let (stdout, stderr) = self.readers.take().expect("taken only here");
        Finished {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: stdout.join().expect("the reader does not panic"),
            stderr: stderr.join().expect("the reader does not panic"),
            command: std::mem::take(&mut self.command),
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.runs() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(
    stream: Option<impl Read + Send + 'static>,
    mut tell: impl FnMut(Vec<u8>) + Send + 'static,
) -> JoinHandle<String> {
    spawn(move || {
        let mut all = Vec::new();
        let mut part = [0; 8192];
        let Some(mut stream) = stream else {
            return String::new();
        };
        while let Ok(length @ 1..) = stream.read(&mut part) {
            all.extend_from_slice(&part[..length]);
            tell(part[..length].to_vec());
        }
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// A program on PATH, or among those `make test` unpacks for the tests.
///
/// # Panics
///
/// If there is none: a test that cannot run fails.
#[track_caller]
pub(crate) fn tool(name: &str) -> PathBuf {
    let unpacked = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([unpacked, "/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("there is no {name}; `make deps-test` gets what the tests need"))
}
