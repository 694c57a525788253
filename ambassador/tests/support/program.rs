//! Real programs as peers.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::Command;

use super::soon;

/// A program of that name, which ends with its handle.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Runs it to its end. What it printed, if it succeeded.
pub async fn output(mut command: Command) -> Result<Vec<u8>> {
    let shown = format!("{:?}", command.as_std());
    let output = soon(command.output())
        .await
        .with_context(|| shown.clone())?
        .with_context(|| format!("run {shown}: its package is in packaging/deps.sh"))?;
    ensure!(output.status.success(), "{shown}: {output:?}");
    Ok(output.stdout)
}

/// The first line that has `word` in it; each may take its time. None if the program ends before.
pub async fn line_with(
    lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>,
    word: &str,
) -> Result<Option<String>> {
    while let Some(line) = soon(lines.next_line()).await?? {
        if line.contains(word) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

/// Lines of what a child prints.
pub fn lines<R: AsyncRead>(from: R) -> Lines<BufReader<R>> {
    BufReader::new(from).lines()
}

/// An address of which neither the TCP nor the UDP port is taken, for programs that cannot be
/// told to choose. Somebody else may be faster: try again then.
pub fn free_address() -> Result<SocketAddr> {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let address = tcp.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    anyhow::bail!("no port is free for both TCP and UDP")
}

/// A key, and a certificate that vouches for itself, of the name `server.test`.
pub struct Identity {
    pub key: PathBuf,
    pub certificate: PathBuf,
}

impl Identity {
    /// Makes them in `directory`, as PEM.
    pub async fn make(directory: &Path) -> Result<Self> {
        let identity = Self {
            key: directory.join("key.pem"),
            certificate: directory.join("certificate.pem"),
        };
        let mut openssl = program("openssl");
        openssl
            .args(["req", "-x509", "-nodes", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-days", "2", "-subj", "/CN=server.test"])
            .args(["-addext", "subjectAltName=DNS:server.test"])
            // An end entity's, which a verifier takes for one.
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&identity.key)
            .arg("-out")
            .arg(&identity.certificate);
        output(openssl).await?;
        Ok(identity)
    }
}
