//! A program, from its start to its end.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::time_runs;

/// Runs `command` as often as asked for; what it prints is thrown away.
pub(crate) fn run(command: &[String], runs: usize) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program to run")?;
    time_runs(runs, || {
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("run {program}"))?;
        ensure!(
            output.status.success(),
            "{}: {}: {}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    })
}
