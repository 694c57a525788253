//! Containers of busybox in directories of their own, of which nothing is left when the test ends.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nuncio_runtime::logs::Stream;
use nuncio_runtime::{
    AttachOptions, AttachOutput, ContainerSpec, ExecSpec, ExitStatus, LogOptions, Shim, Shims,
    bundle, cleanup,
};

pub const EVERYTHING: AttachOptions = AttachOptions {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// The example, which is the shim as well. Cargo builds it for `cargo test`.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let binary = test
        .ancestors()
        .nth(2)
        .expect("target/debug/deps/test")
        .join("examples/container");
    assert!(
        binary.exists(),
        "{} is missing: cargo build -p nuncio-runtime --examples",
        binary.display()
    );
    binary
}

/// One for all tests of a file, as a daemon has one for all containers.
pub fn shims() -> &'static Shims {
    static SHIMS: LazyLock<Shims> = LazyLock::new(|| Shims::new(binary()));
    &SHIMS
}

/// A place for one container.
pub struct Place {
    directory: tempfile::TempDir,
    pub id: String,
    pub run_dir: PathBuf,
    pub rootfs: PathBuf,
    execs: AtomicU32,
}

impl Place {
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        ensure!(rustix::process::geteuid().is_root(), "containers need root");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("nt-{}-{number}", std::process::id());
        let directory = tempfile::Builder::new().prefix("nuncio-test-").tempdir()?;
        let rootfs = directory.path().join("rootfs");
        make_rootfs(&rootfs)?;
        let run_dir = directory.path().join("run");
        Ok(Self {
            directory,
            id,
            run_dir,
            rootfs,
            execs: AtomicU32::new(0),
        })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> PathBuf {
        self.path().join("container.log")
    }

    /// A shell that runs `script`.
    pub fn sh(&self, script: &str) -> ContainerSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub fn command(&self, args: &[&str]) -> ContainerSpec {
        let mut spec = ContainerSpec::new(&self.id, &self.rootfs, owned(args));
        spec.cgroup_parent = "/nuncio-test".into();
        spec.log = Some(LogOptions {
            path: self.log(),
            max_size: None,
            max_file: 1,
        });
        spec
    }

    pub async fn create(&self, spec: &ContainerSpec) -> Result<Shim> {
        bundle::write(&self.run_dir, spec)?;
        Ok(shims().spawn(&self.run_dir).await?)
    }

    pub async fn start(&self, spec: &ContainerSpec) -> Result<Shim> {
        let shim = self.create(spec).await?;
        shim.start().await?;
        Ok(shim)
    }

    /// Runs it to its end.
    pub async fn run(&self, spec: &ContainerSpec) -> Result<Ran> {
        let shim = self.create(spec).await?;
        let mut attach = shim.attach(EVERYTHING).await?;
        shim.start().await?;
        collect(&shim, &mut attach.output).await
    }

    /// The standard output of a script that has to succeed.
    pub async fn says(&self, script: &str) -> Result<String> {
        self.run(&self.sh(script)).await?.succeeded()
    }

    pub async fn prepare_exec(&self, spec: &ExecSpec) -> Result<Shim> {
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        let run_dir = self.path().join(format!("exec-{number}"));
        Ok(shims().spawn_exec(&self.run_dir, &run_dir, spec).await?)
    }

    pub async fn exec(&self, script: &str) -> Result<Ran> {
        self.run_exec(&ExecSpec {
            args: owned(&["/bin/sh", "-c", script]),
            ..ExecSpec::default()
        })
        .await
    }

    pub async fn run_exec(&self, spec: &ExecSpec) -> Result<Ran> {
        let shim = self.prepare_exec(spec).await?;
        let mut attach = shim.attach(EVERYTHING).await?;
        shim.start().await?;
        collect(&shim, &mut attach.output).await
    }

    /// Paths with the container's id in any cgroup hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = hierarchy.path().join("nuncio-test").join(&self.id);
            if path.exists() {
                found.push(path);
            }
        }
        found
    }

    /// Processes whose command line has the container's directory or whose cgroup has its id.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.path().to_string_lossy().into_owned();
        fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let cmdline = fs::read_to_string(entry.path().join("cmdline")).ok()?;
                let cgroup = fs::read_to_string(entry.path().join("cgroup")).ok()?;
                (cmdline.contains(&mark) || cgroup.contains(&format!("/{}\n", self.id)))
                    .then_some(cmdline)
            })
            .collect()
    }

    pub fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mark = self.path().to_string_lossy().into_owned();
        mounts
            .lines()
            .filter(|line| line.contains(&mark))
            .map(String::from)
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for number in 0..self.execs.load(Ordering::Relaxed) {
            let _ = cleanup(&self.path().join(format!("exec-{number}"))); // may be gone
        }
        if let Err(error) = cleanup(&self.run_dir) {
            eprintln!("{}: {error}", self.id);
        }
        nuncio_runtime::remove_cgroup_parent("/nuncio-test");
    }
}

/// What a process left to say.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
}

impl Ran {
    pub fn succeeded(self) -> Result<String> {
        ensure!(self.status.code == 0, "it ended with {self:?}");
        Ok(self.stdout)
    }
}

pub async fn collect(shim: &Shim, output: &mut AttachOutput) -> Result<Ran> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(piece) = output.next().await? {
        match piece.stream {
            Stream::Stdout => stdout.extend_from_slice(&piece.bytes),
            Stream::Stderr => stderr.extend_from_slice(&piece.bytes),
        }
    }
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran {
        stdout: text(&stdout),
        stderr: text(&stderr),
        status: shim.wait().await?,
    })
}

/// Reads until `wanted` has come.
pub async fn expect(output: &mut AttachOutput, wanted: &str) -> Result<String> {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(wanted) {
            let piece = output
                .next()
                .await?
                .with_context(|| format!("it ended after {seen:?}"))?;
            seen.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(std::time::Duration::from_secs(20), reading).await {
        Ok(read) => read?,
        Err(_) => anyhow::bail!("waited for {wanted:?}, got {seen:?}"),
    }
    Ok(seen)
}

pub fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

fn make_rootfs(rootfs: &Path) -> Result<()> {
    const BUSYBOX: &str = "/bin/busybox";
    for directory in [
        "bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root", "home/web",
    ] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy(BUSYBOX, rootfs.join("bin/busybox"))
        .context("busybox-static is needed: apt-get install busybox-static")?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?;
    for applet in String::from_utf8(applets.stdout)?
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", rootfs.join("bin").join(applet))?;
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n",
    )?;
    fs::write(
        rootfs.join("etc/group"),
        "root:x:0:\nweb:x:1001:\naudio:x:29:web\n",
    )?;
    Ok(())
}
