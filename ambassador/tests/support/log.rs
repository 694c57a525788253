//! What is logged.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the module"
)]

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result};
use tracing_subscriber::fmt::MakeWriter;

/// Lines of all tests of the program.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

/// Collects from the first call on: the threads that carry flows are nobody's own.
pub fn capture() -> Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    let begin = || {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("there is no other one");
        log
    };
    LOG.get_or_init(begin).clone()
}

impl Log {
    /// Waits for a line with all of these words.
    pub async fn says(&self, words: &[&str]) -> Result<()> {
        let what = format!("{words:?} is logged");
        let said = super::until(&what, || self.line(words).is_some()).await;
        said.with_context(|| self.text())
    }

    /// The first line with all of these words, if there is one.
    pub fn line(&self, words: &[&str]) -> Option<String> {
        let bytes = self.0.lock().expect("no writer panics");
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
        found.map(str::to_owned)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panics")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
