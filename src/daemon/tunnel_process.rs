//! The host's tunnel: a process of its own that carries encrypted networks, and what goes around VXLAN, while the daemon is
//! away too.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nuncio_tunnel::{TunnelDocument, TunnelStatus, ask};

use super::host_process::HostProcess;

/// The way to the host's tunnel. It holds no state: each call says everything.
pub(super) struct TunnelProcess {
    process: HostProcess,
    keys: PathBuf,
    listen: SocketAddr,
    fallback: SocketAddr,
}

impl TunnelProcess {
    /// `keys` is where the process reads this host's private keys.
    pub(super) fn new(
        binary: PathBuf,
        exec_root: &Path,
        keys: PathBuf,
        listen: SocketAddr,
        fallback: SocketAddr,
    ) -> Self {
        Self {
            process: HostProcess::new(binary, exec_root, "tunnel", "the host's tunnel"),
            keys,
            listen,
            fallback,
        }
    }

    /// Replaces what it carries; what stays the same is not touched. It is started if it is not there.
    pub(super) async fn configure(&self, document: TunnelDocument) -> anyhow::Result<()> {
        let what = "configure the host's tunnel";
        let status = self.ask(Some(document.clone())).await.context(what)?;
        let elsewhere = |fallback| fallback != self.fallback;
        if status.listen != self.listen || status.fallback.is_some_and(elsewhere) {
            self.end()?; // it is of a daemon that was told another address
            self.ask(Some(document)).await.context(what)?;
        }
        Ok(())
    }

    /// What it is doing; `None` if it is not there.
    pub(super) async fn status(&self) -> anyhow::Result<Option<TunnelStatus>> {
        if !self.answers().await {
            return Ok(None);
        }
        self.ask(None).await.map(Some)
    }

    pub(super) async fn answers(&self) -> bool {
        self.process.answers().await
    }

    pub(super) fn end(&self) -> anyhow::Result<()> {
        self.process.end()
    }

    async fn ask(&self, document: Option<TunnelDocument>) -> anyhow::Result<TunnelStatus> {
        let stream = self.process.connect(&self.arguments()).await?.into_std()?;
        stream.set_nonblocking(false)?;
        let asked = tokio::task::spawn_blocking(move || ask(&stream, document.as_ref()));
        Ok(asked.await??)
    }

    fn arguments(&self) -> [OsString; 9] {
        [
            "tunnel".into(),
            "--control".into(),
            self.process.socket.clone().into(),
            "--keys".into(),
            self.keys.clone().into(),
            "--listen".into(),
            self.listen.to_string().into(),
            "--fallback".into(),
            self.fallback.to_string().into(),
        ]
    }
}
