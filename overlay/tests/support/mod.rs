//! Hosts and containers as network namespaces, on an underlay that has no way out.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file is a crate that uses its own part"
)]

mod host;
pub mod resolver;
mod traffic;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nuncio_overlay::NetNs;

pub use self::{
    host::{Container, Host, Network, join},
    traffic::{Server, UdpServer, reach, reach_at, send_udp},
};

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Hosts joined by a bridge, or a router, in a namespace of its own.
pub struct Underlay {
    pub namespace: Namespace,
    hosts: usize,
    routed: bool,
}

impl Underlay {
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.ip("link add wire type bridge")?;
        namespace.ip("link set wire up mtu 1500")?;
        Ok(Self {
            namespace,
            hosts: 0,
            routed: false,
        })
    }

    /// Hosts of which each has a network of its own.
    pub fn routed() -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.sh("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        Ok(Self {
            namespace,
            hosts: 0,
            routed: true,
        })
    }

    /// Adds a host with the next address, from 192.0.2.1 on.
    pub fn host(&mut self) -> Result<Host> {
        self.hosts += 1;
        let address = Ipv4Addr::new(192, 0, 2, u8::try_from(self.hosts)?);
        let host = Namespace::new()?;
        let port = format!("port{}", self.hosts);
        let peer = format!("eth0 netns {}", host.name);
        self.namespace
            .ip(&format!("link add {port} type veth peer name {peer}"))?;
        if self.routed {
            self.namespace.ip(&format!("link set {port} up"))?;
            self.namespace
                .ip(&format!("addr add 169.254.1.1/32 dev {port}"))?;
            self.namespace
                .ip(&format!("route add {address} dev {port}"))?;
            host.ip(&format!("addr add {address}/32 dev eth0"))?;
            host.ip("link set eth0 up")?;
            host.ip("route add default via 169.254.1.1 dev eth0 onlink")?;
        } else {
            self.namespace
                .ip(&format!("link set {port} up master wire"))?;
            host.ip(&format!("addr add {address}/24 dev eth0"))?;
            let v6 = host::underlay_v6(address);
            host.ip(&format!("addr add {v6}/64 dev eth0 nodad"))?;
            host.ip("link set eth0 up")?;
        }
        Host::start(host, address)
    }
}

/// A namespace under /run/netns, removed with this.
pub struct Namespace {
    pub name: String,
    pub path: PathBuf,
}

impl Namespace {
    pub fn new() -> Result<Self> {
        ensure!(
            nix::unistd::Uid::effective().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nt-{}-{number}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        let path = Path::new("/run/netns").join(&name);
        let namespace = Self { name, path };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.sh(&format!("ip {arguments}"))
    }

    /// Runs a shell command inside.
    pub fn sh(&self, command: &str) -> Result<String> {
        sh_in(&self.path, command)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a shell command in the namespace at `path`.
pub fn sh_in(path: &Path, command: &str) -> Result<String> {
    let net = format!("--net={}", path.display());
    run("nsenter", &[&net, "sh", "-ec", command])
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {arguments:?}: {}", message.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `work` in the namespace at `path`, on a thread that ends with it.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A container's namespace, made by the library and removed with this.
pub struct Pod {
    pub path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Pod {
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(Self::new_async())
    }

    pub async fn new_async() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("net");
        NetNs::create(&path)
            .await
            .context("run this test as root")?;
        Ok(Self {
            path,
            _directory: directory,
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Err(error) = NetNs::remove(&self.path) {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}
