//! Other people's programs, to talk to.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the module"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result};

/// A program on PATH, or among those `make deps-test` unpacks for the tests.
///
/// # Errors
///
/// If there is none: a test that cannot run fails.
pub fn tool(name: &str) -> Result<PathBuf> {
    let unpacked = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([unpacked, "/usr/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("there is no {name}; `make deps-test` gets what tests need"))
}

/// A program that runs until this is dropped.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("start {command:?}"))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, without blocking the others.
pub async fn output(mut command: Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    super::soon(run)
        .await??
        .with_context(|| format!("run {shown}"))
}
