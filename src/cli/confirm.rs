//! Asks before what cannot be undone.

use std::io::BufRead as _;

use super::output::write_out;

/// Prints `warning` and asks; anything but `y` is no.
///
/// # Errors
///
/// A standard output that is closed.
pub(super) fn confirm(warning: &str) -> anyhow::Result<bool> {
    write_out(format!("{warning}\nAre you sure you want to continue? [y/N] ").as_bytes())?;
    let mut answer = String::new();
    // who cannot answer has not said yes
    let read = std::io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && answer.trim().eq_ignore_ascii_case("y"))
}
