//! A cluster of three etcds, each on a host of its own.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::command::{Finished, Spawned};
use super::host::Host;
use super::sys::{self, When};
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
        let running = spawn_with_slow_syncs(command, Arc::clone(&member.sync));
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
    let (tell, hear) = mpsc::channel();
    let starter = thread::spawn(move || {
        let calls = [libc::SYS_fsync, libc::SYS_fdatasync].map(|call| (call, When::Always));
        let listener = sys::hold_calls(&calls).expect("hold system calls");
        tell.send(listener).expect("it is waited for");
        Spawned::new(command, None)
    });
    let listener = hear.recv().expect("the filter is there");
    thread::spawn(move || delay(&listener, &millis));
    starter.join().expect("the program starts")
}

/// Lets each held call go after a while, until nobody is left to make one.
fn delay(listener: &OwnedFd, millis: &AtomicU64) {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue; // a signal
        }
        if !ready[0].revents().contains(PollFlags::IN) {
            return; // the last process with the filter is gone
        }
        let Ok(held) = sys::next_call(listener.as_fd()) else {
            continue;
        };
        thread::sleep(Duration::from_millis(millis.load(Ordering::Relaxed)));
        let _ = sys::let_go(listener.as_fd(), &held); // it may be dead by now
    }
}
