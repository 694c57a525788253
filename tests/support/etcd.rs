//! A cluster of three etcds, each on a host of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::Clock;
use super::command::{Finished, Spawned, tool};
use super::host::Host;
use super::sys::When;
use super::trap;
use super::underlay::Underlay;
use super::wait_until;

/// Members of a cluster.
const MEMBERS: usize = 3;

/// Three etcds that are one cluster.
pub(crate) struct Etcds {
    members: Vec<Member>,
}

/// One of them.
pub(crate) struct Member {
    pub(crate) host: Host,
    name: String,
    running: Mutex<Option<Spawned>>,
    /// Milliseconds that each sync to its disk takes.
    sync: Arc<AtomicU64>,
    /// By which it goes, if not by the machine's. Its syncs are not slow then.
    clock: OnceLock<Clock>,
}

impl Etcds {
    /// Starts them, and returns when they answer, unless `args` have them speak TLS: these are given to each beside what makes
    /// them a cluster.
    #[track_caller]
    pub(crate) fn start(underlay: &Underlay, args: &[&str]) -> Self {
        let member = |number| Member {
            host: underlay.host(),
            name: format!("m{number}"),
            running: Mutex::default(),
            sync: Arc::default(),
            clock: OnceLock::new(),
        };
        let etcds = Self {
            members: (0..MEMBERS).map(member).collect(),
        };
        for place in 0..MEMBERS {
            etcds.start_member(place, "new", args);
        }
        if args.is_empty() {
            etcds.await_health();
        }
        etcds
    }

    pub(crate) fn member(&self, place: usize) -> &Member {
        &self.members[place]
    }

    /// All of them as a daemon is told.
    pub(crate) fn urls(&self, scheme: &str) -> String {
        let urls: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{scheme}://{}:2379", member.host.address))
            .collect();
        urls.join(",")
    }

    /// Starts a member that does not run, on the data it has.
    #[track_caller]
    pub(crate) fn start_member(&self, place: usize, state: &str, args: &[&str]) {
        let member = &self.members[place];
        let peer = |member: &Member| format!("http://{}:2380", member.host.address);
        let all: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name, peer(member)))
            .collect();
        let scheme = if args.is_empty() { "http" } else { "https" };
        let client = format!("{scheme}://{}:2379", member.host.address);
        let mut command = member.host.command("etcd");
        command
            .arg("--data-dir")
            .arg(member.data())
            .args(["--name", &member.name])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--initial-cluster-state", state])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(member)])
            .args(["--initial-advertise-peer-urls", &peer(member)])
            .args(["--logger", "zap", "--log-level", "error"])
            .args(args);
        let running = match member.clock.get() {
            Some(clock) => spawn_with_clock(command, clock),
            None => spawn_with_slow_syncs(command, Arc::clone(&member.sync)),
        };
        *member.running.lock().expect("no test panics here") = Some(running);
    }

    /// Waits until a leader answers by each member that runs.
    #[track_caller]
    pub(crate) fn await_health(&self) {
        wait_until("the etcds answer", || {
            let runs = |member: &&Member| member.running.lock().is_ok_and(|it| it.is_some());
            let mut running = self.members.iter().filter(runs);
            running.all(|member| member.etcdctl(["get", "health"]).code == 0)
        });
    }

    /// The place of the member that leads.
    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        let mut leader = None;
        wait_until("one of them leads", || {
            let leads = |member: &Member| {
                let status = member
                    .etcdctl(["endpoint", "status", "-w", "fields"])
                    .stdout;
                let field = |name: &str| {
                    let line = status.lines().find(|line| line.starts_with(name));
                    line.and_then(|line| line.split(" : ").nth(1).map(str::to_owned))
                };
                let leader = field("\"Leader\"");
                leader.is_some() && leader == field("\"MemberID\"")
            };
            leader = self.members.iter().position(leads);
            leader.is_some()
        });
        leader.expect("waited for")
    }

    /// Keys below `prefix` with their values.
    #[track_caller]
    pub(crate) fn read(&self, prefix: &str) -> BTreeMap<String, String> {
        let mut read = None;
        wait_until("an etcd answers", || {
            read = self
                .members
                .iter()
                .map(|member| member.etcdctl(["get", "--prefix", prefix]))
                .find(|asked| asked.code == 0);
            read.is_some()
        });
        pairs(&read.expect("waited for").stdout)
    }
}

/// Keys and their values, as etcdctl writes them.
pub(crate) fn pairs(text: &str) -> BTreeMap<String, String> {
    let lines: Vec<_> = text.lines().collect();
    let pairs = lines.chunks(2).map(|pair| {
        let value = pair.get(1).copied().unwrap_or_default();
        (pair[0].to_owned(), value.to_owned())
    });
    pairs.collect()
}

impl Member {
    pub(crate) fn address(&self) -> String {
        self.host.address.to_string()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.host.scratch().join("etcd")
    }

    /// Has each sync take that long from now on.
    pub(crate) fn slow(&self, sync: Duration) {
        let millis = u64::try_from(sync.as_millis()).expect("a short time");
        self.sync.store(millis, Ordering::Relaxed);
    }

    /// Has it go by `clock` when it is started again.
    pub(crate) fn set_clock(&self, clock: &Clock) {
        let _ = self.clock.set(clock.clone());
    }

    /// Asks this member alone.
    #[track_caller]
    pub(crate) fn etcdctl<const N: usize>(&self, args: [&str; N]) -> Finished {
        let endpoint = format!("--endpoints=http://{}:2379", self.host.address);
        let timeouts = ["--command-timeout=2s", "--dial-timeout=1s"];
        let words: Vec<&str> = std::iter::once(&*endpoint)
            .chain(timeouts)
            .chain(args)
            .collect();
        self.host.inside("etcdctl", &*words)
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let running = self.running.lock().expect("no test panics here");
        let pid = running.as_ref().expect("it runs").pid();
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("signal it");
    }

    /// Kills it by SIGKILL.
    pub(crate) fn kill(&self) {
        self.running.lock().expect("no test panics here").take();
    }
}

/// Starts a program that is told by `millis` how long each of its syncs takes.
#[track_caller]
fn spawn_with_slow_syncs(command: Command, millis: Arc<AtomicU64>) -> Spawned {
    let calls = [libc::SYS_fsync, libc::SYS_fdatasync].map(|call| (call, When::Always));
    let spawn = || Spawned::new(command, None);
    trap::spawn_held(&calls, spawn, move |listener, held| {
        thread::sleep(Duration::from_millis(millis.load(Ordering::Relaxed)));
        trap::let_go(listener, held);
    })
}

/// Starts a program with a clock of its own.
#[track_caller]
fn spawn_with_clock(command: Command, clock: &Clock) -> Spawned {
    clock.spawn(command, &tool("etcd"), |command| {
        let started = Spawned::new(command, None);
        let pid = started.pid();
        (started, pid)
    })
}
