//! The image store against real archives, a real registry and real mounts. Needs root.
#![allow(clippy::unwrap_used, reason = "a test may fail by it")]

mod builtin;
mod crash;
mod flaky;
mod layout;
mod load;
mod mount;
mod pull;
mod push;
mod registry;
mod remove;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nuncio_runtime::image::{Image, ImageStore, Loaded, Progress, RemoveOptions, Rootfs};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A store in a directory of its own, whose mounts go with it.
struct Place {
    store: ImageStore,
    dir: Area,
}

/// A directory that takes the mounts below it along.
struct Area(TempDir);

impl Place {
    fn new() -> Result<Self> {
        let dir = Area(TempDir::new()?);
        let store = ImageStore::open(&dir.path().join("images"))?;
        Ok(Self { store, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>> {
        Ok(self.store.load(archive, no_progress()).await?)
    }

    async fn mount(&self, image: &Image) -> Result<Rootfs> {
        Ok(self.store.mount(image, &self.path("container")).await?)
    }

    /// Files below the store that hold content, other than what is being deleted.
    fn content(&self) -> Result<Vec<String>> {
        content(&self.path("images"))
    }
}

impl Area {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // Whatever a failed test left mounted below its directory.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = |line: &&str| {
            line.split(' ')
                .nth(1)
                .is_some_and(|at| Path::new(at).starts_with(self.path()))
        };
        for line in mounts.lines().filter(below) {
            let _ = Command::new("umount")
                .args(["-l", line.split(' ').nth(1).unwrap_or_default()])
                .status();
        }
    }
}

/// Names of blobs and layers in a store.
fn content(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for part in ["blobs/sha256", "layers", "tmp"] {
        for entry in std::fs::read_dir(root.join(part))? {
            found.push(format!("{part}/{}", entry?.file_name().display()));
        }
    }
    found.sort();
    Ok(found)
}

/// Waits until what was set aside is deleted.
fn wait_for_deletion(root: &Path) -> Result<()> {
    let start = Instant::now();
    while std::fs::read_dir(root.join("trash"))?.next().is_some() {
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "trash is not deleted"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A removal that takes parents along.
fn force(force: bool) -> RemoveOptions {
    RemoveOptions {
        force,
        keep_parents: false,
    }
}

fn no_progress() -> mpsc::Sender<Progress> {
    mpsc::channel(1).0
}

/// Runs a tool; the test fails with what it wrote to standard error.
fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run {program}: it comes with the Debian package {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {args:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The messages of an error and all its sources, as the program prints them.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
