//! A client's network namespace, two servers' namespaces, cgroups, and client processes in them.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its part of the module"
)]

use std::fs::File;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nuncio_ambassador::Protocol;
use nuncio_ambassador::direct::{Rewriter, Scope, ServiceKey};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin};

#[path = "client.rs"]
mod process;

/// What [`Scene::client`] starts.
#[test]
#[ignore = "the client process that the other tests start"]
fn client() -> Result<()> {
    process::main()
}

/// Where the service is to be found: addresses of the client's namespace.
pub const SERVICE: &str = "10.90.0.1:8080";
pub const SERVICE_MAPPED: &str = "[::ffff:10.90.0.1]:8080";
pub const SERVICE6: &str = "[fd90::1]:8080";

/// The two servers' own addresses. They give the names `a` and `b`.
pub const A: &str = "10.90.1.2:81";
pub const B: &str = "10.90.2.2:82";
pub const A6: &str = "[fd90:1::2]:81";
pub const B6: &str = "[fd90:2::2]:82";

/// No test takes this long.
const PATIENCE: Duration = Duration::from_secs(100);

/// What happens by itself has happened by then.
const SOON: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

static NEXT: AtomicU32 = AtomicU32::new(1);

pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address and port")
}

/// Three namespaces and a place for cgroups, taken down again when dropped.
pub struct Scene {
    id: String,
    cgroup2: Cgroup2,
}

impl Scene {
    fn lay() -> Result<Self> {
        let id = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let cgroup2 = Cgroup2::find(&id)?;
        let scene = Self { id, cgroup2 };
        run(&["ip", "netns", "add", &scene.netns("c")])?;
        for n in ["1", "2"] {
            let server = scene.netns(n);
            run(&["ip", "netns", "add", &server])?;
            let link = format!("link add to{n} type veth peer name eth0 netns {server}");
            scene.ip("c", &link)?;
            scene.address("c", &format!("to{n}"), n, "1")?;
            scene.address(n, "eth0", n, "2")?;
        }
        scene.ip("c", "addr add 10.90.0.1/32 dev lo")?;
        scene.ip("c", "addr add fd90::1/128 dev lo nodad")?;
        scene.ip("c", "link set lo up")?;
        Ok(scene)
    }

    /// Runs a test in the client's namespace.
    pub fn run<F: Future<Output = Result<()>>>(
        test: impl FnOnce(std::sync::Arc<Self>) -> F + Send + 'static,
    ) -> Result<()> {
        let scene = std::sync::Arc::new(Self::lay()?);
        let netns = scene.path("c");
        let runs = thread::spawn(move || {
            enter(&netns)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let limited = tokio::time::timeout(PATIENCE, test(scene));
                limited.await.context("nothing happens any more")?
            })
        });
        runs.join().expect("the test returns its errors")
    }

    fn netns(&self, which: &str) -> String {
        format!("nt-{}{which}", self.id)
    }

    fn path(&self, which: &str) -> PathBuf {
        Path::new("/run/netns").join(self.netns(which))
    }

    fn ip(&self, which: &str, words: &str) -> Result<()> {
        let netns = format!("--net={}", self.path(which).display());
        let mut command = vec!["nsenter", &netns, "ip"];
        command.extend(words.split(' '));
        run(&command)
    }

    fn address(&self, which: &str, link: &str, net: &str, host: &str) -> Result<()> {
        self.ip(which, &format!("addr add 10.90.{net}.{host}/24 dev {link}"))?;
        self.ip(
            which,
            &format!("addr add fd90:{net}::{host}/64 dev {link} nodad"),
        )?;
        self.ip(which, &format!("link set {link} up"))
    }

    /// Servers `a` and `b`, over TCP and UDP, and IPv4 and IPv6.
    pub fn servers(&self) -> Result<()> {
        for (which, name, addresses) in [("1", b'a', [A, A6]), ("2", b'b', [B, B6])] {
            for address in addresses {
                self.serve(which, address, name)?;
            }
        }
        Ok(())
    }

    /// A server `r` at the service's addresses: who is not rewritten gets there.
    pub fn relay(&self) -> Result<()> {
        self.serve("c", SERVICE, b'r')?;
        self.serve("c", SERVICE6, b'r')
    }

    /// Answers with `name` at `address`, until the test's end.
    pub fn serve(&self, which: &str, address: &str, name: u8) -> Result<()> {
        let (netns, address) = (self.path(which), at(address));
        let sockets = thread::spawn(move || {
            enter(&netns)?;
            anyhow::Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?))
        });
        let (tcp, udp) = sockets.join().expect("binding does not panic")?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let udp = tokio::net::UdpSocket::from_std(udp)?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                tokio::spawn(async move {
                    stream.write_all(&[name]).await?;
                    stream.read_to_end(&mut Vec::new()).await
                });
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            loop {
                // What an ICMP error is about has nobody waiting for it.
                if let Ok((_, peer)) = udp.recv_from(&mut buffer).await {
                    let _ = udp.send_to(&[name], peer).await;
                }
            }
        });
        Ok(())
    }

    pub fn cgroup(&self, name: &str) -> Result<Cgroup> {
        let path = self
            .cgroup2
            .path
            .join(format!("nuncio-nt-{}-{name}", self.id));
        Cgroup::make(path)
    }

    /// A process in the client's namespace, and in `cgroup` if one is given.
    pub async fn client(&self, cgroup: Option<&Cgroup>) -> Result<Client> {
        let mut command = tokio::process::Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path("c").display()))
            .arg(std::env::current_exe()?)
            .args([
                "--exact",
                "scene::client",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(
                "NUNCIO_TEST_CLIENT",
                cgroup.map_or(Path::new(""), |cgroup| &cgroup.0),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("nsenter")?;
        let answers = child.stderr.take().context("a pipe")?;
        let mut client = Client {
            orders: child.stdin.take().context("a pipe")?,
            answers: BufReader::new(answers).lines(),
            child,
        };
        let ready = client.answer().await?;
        ensure!(ready == "ready", "{ready}");
        Ok(client)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for which in ["c", "1", "2"] {
            if self.path(which).exists() {
                run(&["ip", "netns", "del", &self.netns(which)]).expect("a namespace of ours");
            }
        }
    }
}

/// Where cgroup2 is mounted; if nowhere else, then here, for as long as the scene stands.
struct Cgroup2 {
    path: PathBuf,
    ours: bool,
}

impl Cgroup2 {
    fn find(id: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        if let Some(path) = line.and_then(|line| line.split(' ').nth(4)) {
            return Ok(Self {
                path: path.into(),
                ours: false,
            });
        }
        let path = std::env::temp_dir().join(format!("nt-{id}-cgroup2"));
        std::fs::create_dir(&path)?;
        run(&["mount", "-t", "cgroup2", "none", &path.to_string_lossy()])
            .context("this kernel has no cgroup2, which these tests are about")?;
        Ok(Self { path, ours: true })
    }
}

impl Drop for Cgroup2 {
    fn drop(&mut self) {
        if self.ours {
            run(&["umount", &self.path.to_string_lossy()]).expect("a mount of ours");
            std::fs::remove_dir(&self.path).expect("a directory of ours");
        }
    }
}

/// A cgroup's directory, removed when dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    fn make(path: PathBuf) -> Result<Self> {
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn below(&self, name: &str) -> Result<Self> {
        Self::make(self.0.join(name))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed a moment ago may still be on its way out.
        for _ in 0..500 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                    thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// A process that connects as it is told. Killed when dropped.
pub struct Client {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStderr>>,
}

impl Client {
    pub async fn ask(&mut self, order: &str) -> Result<String> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        self.answer().await
    }

    /// As [`Self::ask`], and fails unless the answer is `expected`.
    pub async fn expect(&mut self, order: &str, expected: &str) -> Result<()> {
        let answer = self.ask(order).await?;
        ensure!(answer == expected, "{order}: {answer}, not {expected}");
        Ok(())
    }

    /// Asks until the answer is as expected: the kernel may keep programs on for a moment after
    /// their owner let go. Fails at an answer that is not made of `meanwhile`.
    pub async fn until(&mut self, order: &str, expected: &str, meanwhile: &[&str]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(order).await?;
            if answer == expected {
                return Ok(());
            }
            ensure!(meanwhile.contains(&&*answer), "{order}: {answer}");
            ensure!(begun.elapsed() < SOON, "{order}: still not {expected}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    async fn answer(&mut self) -> Result<String> {
        let answer = self.answers.next_line().await?;
        answer.context("the client process is gone")
    }
}

/// Waits for a condition that no event tells of.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < SOON, "waiting until {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn enter(netns: &Path) -> Result<()> {
    Ok(setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?)
}

fn run(command: &[&str]) -> Result<()> {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.with_context(|| command.join(" "))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", command.join(" "));
    Ok(())
}

pub const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

pub fn key(protocol: Protocol, service: &str) -> Result<ServiceKey> {
    Ok(ServiceKey::new(protocol, at(service))?)
}

/// Sends the service's connections, of both kinds and protocols, to these endpoints.
pub fn set(
    rewriter: &Rewriter,
    scope: Scope,
    four: &[(&str, u16)],
    six: &[(&str, u16)],
) -> Result<()> {
    let parse = |endpoints: &[(&str, u16)]| -> Vec<(SocketAddr, u16)> {
        endpoints
            .iter()
            .map(|(to, weight)| (at(to), *weight))
            .collect()
    };
    for protocol in BOTH {
        rewriter.set(scope, key(protocol, SERVICE)?, &parse(four))?;
        rewriter.set(scope, key(protocol, SERVICE6)?, &parse(six))?;
    }
    Ok(())
}

pub fn attached(cgroup: &Cgroup) -> Result<(Rewriter, Scope)> {
    let (rewriter, scope) = (Rewriter::load()?, Scope::of(cgroup.path())?);
    rewriter.attach(cgroup.path(), scope)?;
    Ok((rewriter, scope))
}
