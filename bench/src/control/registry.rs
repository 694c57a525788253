//! The registry that is measured, in a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, Result};
use nuncio_registry::embedded;
use tokio_util::sync::CancellationToken;

/// Serves a registry in `directory` until its input ends; says where.
pub(crate) fn serve(directory: &Path) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = embedded::Server::open(directory)?;
        let bound = server.bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("{}", bound.local_addr());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(bound.serve(stop.clone()));
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        stop.cancel();
        Ok(serving.await?)
    })
}

/// In which `/proc` counts a second of processor time, on all of Linux's common architectures.
const TICKS: f64 = 100.0;

/// The process; it ends with this.
pub(super) struct Server {
    process: Child,
    address: SocketAddr,
    /// Ends the process, when it is dropped.
    input: Option<ChildStdin>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(super) async fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("a directory for the registry")?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg("control-registry")
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the registry")?;
        let mut line = String::new();
        let output = process.stdout.take().context("its output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = super::address_in(&line).context("the registry did not say where it is")?;
        Ok(Self {
            input: process.stdin.take(),
            process,
            address,
            _directory: directory,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Seconds of processor time that it has used.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, rest) = stat
            .rsplit_once(')')
            .context("the name of the registry's process")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let used = ticks(11).context("user time")? + ticks(12).context("system time")?;
        Ok(used / TICKS)
    }

    /// Megabytes of memory that it has.
    pub(super) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.context("its memory")? / 1e3)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
