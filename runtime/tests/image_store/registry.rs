//! A registry server on loopback, as Debian packages it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::layout::Layout;
use crate::run;

/// Runs until it is dropped.
pub(crate) struct Registry {
    child: Child,
    dir: TempDir,
    pub(crate) address: String,
}

impl Registry {
    pub(crate) fn start() -> Result<Self> {
        for _ in 0..10 {
            if let Some(registry) = Self::try_start()? {
                return Ok(registry);
            }
        }
        bail!("docker-registry did not start on any of ten free ports")
    }

    /// Nothing if somebody else took the port between the look for it and the start.
    fn try_start() -> Result<Option<Self>> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let dir = TempDir::new()?;
        let config = dir.path().join("config.yml");
        let data = dir.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{address}\"}}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log"))?)
            .spawn()
            .context("run docker-registry: it comes with the Debian package docker-registry")?;
        let mut registry = Self {
            child,
            dir,
            address,
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if registry.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if TcpStream::connect(&registry.address).is_ok() {
                return Ok(Some(registry));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "docker-registry does not listen: {}",
            fs::read_to_string(registry.dir.path().join("log"))?
        )
    }

    /// Pushes what a layout calls `from` to the repository and tag `to`; gives back the full name.
    pub(crate) fn push(&self, layout: &Layout, from: &str, to: &str) -> Result<String> {
        let name = format!("{}/{to}", self.address);
        let source = format!("oci:{}:{from}", layout.dir.path().display());
        let flags = [
            "copy",
            "--quiet",
            "--all",
            "--insecure-policy",
            "--dest-tls-verify=false",
        ];
        run(
            "skopeo",
            &[&flags[..], &[&source, &format!("docker://{name}")]].concat(),
        )?;
        Ok(name)
    }

    /// Where the server keeps a blob: it serves what lies there without looking at it.
    pub(crate) fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
