//! Standard output and error, whose readers may go at any time.

use std::io::{self, Write};

/// Standard output has no reader any more, as in `nuncio ps | head -1`: a reason to end, not an error to tell.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct OutputClosed;

/// Writes `bytes` to standard output at once.
///
/// # Errors
///
/// [`OutputClosed`] if nobody reads it, else the system's error.
pub(crate) fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(closed)
}

/// Writes `bytes` to standard error at once.
///
/// # Errors
///
/// As [`write_out`].
pub(crate) fn write_err(bytes: &[u8]) -> anyhow::Result<()> {
    io::stderr().lock().write_all(bytes).map_err(closed)
}

/// Writes a line to standard output at once.
///
/// # Errors
///
/// As [`write_out`].
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    write_out(format!("{text}\n").as_bytes())
}

/// Writes a line to standard error, if anybody reads it.
pub(crate) fn warn(text: &str) {
    // nothing is left to tell it to
    let _ = write_err(format!("{text}\n").as_bytes());
}

fn closed(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        OutputClosed.into()
    } else {
        anyhow::Error::new(error).context("write to standard output")
    }
}
