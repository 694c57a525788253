//! What a forwarder keeps for flows that carry nothing.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::PATIENCE;

/// Flows opened before the first look, so that what is allocated once does not count.
const BEFORE: usize = 500;

pub(crate) fn run(to: SocketAddr, flows: usize, cgroup: &Path) -> Result<()> {
    ensure!(flows > 0, "no flows to measure");
    let mut open = Vec::with_capacity(BEFORE + flows);
    for _ in 0..BEFORE {
        open.push(flow(to)?);
    }
    let before = memory(cgroup)?;
    for _ in 0..flows {
        open.push(flow(to)?);
    }
    let after = memory(cgroup)?;
    println!("{}", after.saturating_sub(before) / flows as u64);
    Ok(())
}

/// A flow that has carried a byte each way, so the upstream is connected.
fn flow(to: SocketAddr) -> Result<TcpStream> {
    let opened = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    };
    opened().with_context(|| format!("open a flow to {to}"))
}

/// Anonymous memory of all processes of `cgroup`, in bytes; what they share counts once.
fn memory(cgroup: &Path) -> Result<u64> {
    let list = cgroup.join("cgroup.procs");
    let list = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let mut sum = 0;
    for process in list.lines() {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = match fs::read_to_string(&path) {
            // It has ended meanwhile.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ESRCH)) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            text => text.with_context(|| format!("read {path}"))?,
        };
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib = kib.with_context(|| format!("{path} has no Pss_Anon: Linux 5.4 or later has"))?;
        sum += kib.parse::<u64>().with_context(|| path.clone())? << 10;
    }
    Ok(sum)
}
