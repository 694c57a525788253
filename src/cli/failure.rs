//! How a command fails: what it says, and its exit status.

use std::process::ExitCode;

use super::output::OutputClosed;
use super::template::InvalidFormat;

/// Docker's exit status of a client that failed before its container ran.
pub(crate) const DAEMON_FAILED: u8 = 125;
/// Docker's exit status of a template by which JSON cannot be shown.
const INVALID_FORMAT: u8 = 64;
/// What a shell reports of a process that SIGPIPE ended.
const OUTPUT_CLOSED: u8 = 128 + 13;

/// An error, and what it means for the process.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: anyhow::Error,
    /// Where to read on, on a line of its own.
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Tells the user, on standard error.
    pub(crate) fn report(self) -> ExitCode {
        if self.error.downcast_ref::<OutputClosed>().is_some() {
            return OUTPUT_CLOSED.into();
        }
        complain(&self.error);
        if let Some(hint) = self.hint {
            super::output::warn(&format!("\n{hint}"));
        }
        self.code.into()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let code = match error.is::<InvalidFormat>() {
            true => INVALID_FORMAT,
            false => 1,
        };
        Self::new(code, error)
    }
}

/// Prints an error and its causes as one line on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    super::output::warn(&format!("nuncio: {}", one_line(error)));
}

fn one_line(error: &anyhow::Error) -> String {
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    chain.join(": ").trim_end().to_owned()
}

/// Works through `items`; what fails is told at once and does not keep the others from their turn.
pub(crate) async fn each<'a, T>(
    items: &'a [T],
    mut work: impl AsyncFnMut(&'a T) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut code = 0;
    for item in items {
        match work(item).await {
            Ok(()) => {}
            Err(error) if error.is::<OutputClosed>() => return Err(error),
            Err(error) => {
                complain(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}
