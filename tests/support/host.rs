//! One host: a namespace, directories, and perhaps a daemon.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, setns};

use super::clock::Clock;
use super::command::{Args, Finished, Spawned, tool};
use super::image::Image;
use super::remains::Remains;
use super::sys;
use super::trap::Trap;
use super::underlay::{Namespace, Underlay};
use super::wait_until;

/// The program under test.
pub(super) const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// A host. Dropping it removes everything it ran.
pub(crate) struct Host {
    /// Where the other hosts reach it.
    pub(crate) address: Ipv4Addr,
    /// Where they do if they are to use IPv6.
    address_v6: Mutex<Option<Ipv6Addr>>,
    daemon: Mutex<Option<Child>>,
    flags: Mutex<Vec<String>>,
    environment: Mutex<Vec<(String, String)>>,
    /// That of the daemon, once [`Host::set_traps`] was called.
    trap: Mutex<Option<Trap>>,
    traps: AtomicBool,
    /// By which the daemon goes, if not by the machine's.
    clock: Mutex<Option<Clock>>,
    number: usize,
    // Dropped in this order: what runs here, then its namespace, the switch and the directories.
    remains: Remains,
    namespace: Namespace,
    underlay: Underlay,
    directory: tempfile::TempDir,
}

impl Host {
    #[track_caller]
    pub(super) fn new(
        namespace: Namespace,
        address: Ipv4Addr,
        number: usize,
        underlay: Underlay,
    ) -> Self {
        // Short, as a unix socket's path has 108 bytes at most.
        let directory = tempfile::Builder::new()
            .prefix(&format!("nt-{}-", std::process::id()))
            .tempdir();
        let directory = directory.expect("make a directory for the host");
        let remains = Remains::of(directory.path());
        Self {
            address,
            address_v6: Mutex::default(),
            daemon: Mutex::default(),
            flags: Mutex::default(),
            environment: Mutex::default(),
            trap: Mutex::default(),
            traps: AtomicBool::new(false),
            clock: Mutex::default(),
            number,
            remains,
            namespace,
            underlay,
            directory,
        }
    }

    /// The underlay it stands on, to which more hosts can be added.
    pub(crate) fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// Where its images and containers are kept.
    pub(crate) fn data_root(&self) -> PathBuf {
        self.directory.path().join("d")
    }

    /// Where its sockets and the state of its running processes are kept.
    pub(crate) fn exec_root(&self) -> PathBuf {
        self.directory.path().join("x")
    }

    /// What it has on this machine outside its namespace.
    pub(crate) fn remains(&self) -> &Remains {
        &self.remains
    }

    /// The daemon's socket as a client names it.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.exec_root().join("nuncio.sock").display())
    }

    /// The registry that its daemon embeds, as the others name it.
    pub(crate) fn registry_url(&self) -> String {
        format!("http://{}", SocketAddr::new(self.advertised(), 2379))
    }

    /// Gives it an IPv6 address on the underlay, at which the daemons to come are found by others.
    pub(crate) fn use_v6(&self) -> Ipv6Addr {
        let [.., last] = self.address.octets();
        let address = Ipv6Addr::new(0xfd00, 198, 0, 0, 0, 0, 0, last.into());
        self.ip(&format!("address add {address}/64 dev eth0 nodad"));
        *self.address_v6.lock().expect("no test panics here") = Some(address);
        address
    }

    fn advertised(&self) -> IpAddr {
        let v6 = *self.address_v6.lock().expect("no test panics here");
        v6.map_or(self.address.into(), IpAddr::V6)
    }

    /// Starts the daemon and returns when it answers.
    #[track_caller]
    pub(crate) fn start(&self, flags: &[&str]) {
        *self.flags.lock().expect("no test panics here") =
            flags.iter().map(|&flag| flag.to_owned()).collect();
        self.start_again();
    }

    /// Sets a variable in the environment of the daemons to come.
    pub(crate) fn set_daemon_env(&self, name: &str, value: &str) {
        let mut environment = self.environment.lock().expect("no test panics here");
        environment.push((name.to_owned(), value.to_owned()));
    }

    /// Its network namespace.
    pub(super) fn netns(&self) -> PathBuf {
        self.namespace.path()
    }

    /// The daemon's process, while there is one.
    #[track_caller]
    pub(crate) fn daemon_pid(&self) -> u32 {
        let daemon = self.daemon.lock().expect("no test panics here");
        daemon.as_ref().expect("a daemon runs").id()
    }

    /// Has each daemon to come in a [`Trap`].
    pub(crate) fn set_traps(&self) {
        self.traps.store(true, Ordering::Relaxed);
    }

    /// Has each daemon to come go by `clock`.
    pub(crate) fn set_clock(&self, clock: &Clock) {
        *self.clock.lock().expect("no test panics here") = Some(clock.clone());
    }

    /// The trap that the daemon is in.
    #[track_caller]
    pub(crate) fn trap(&self) -> Trap {
        let trap = self.trap.lock().expect("no test panics here");
        trap.clone().expect("the daemon is in a trap")
    }

    /// Whether the daemon that was started has not ended.
    pub(crate) fn daemon_runs(&self) -> bool {
        self.daemon_end().is_none()
    }

    /// Starts the daemon as it was started before.
    #[track_caller]
    pub(crate) fn start_again(&self) {
        self.spawn_daemon(None);
        wait_until("the daemon answers", || {
            let ended = self.daemon_end();
            assert!(
                ended.is_none(),
                "the daemon ended with {ended:?}:\n{}",
                self.log()
            );
            self.nuncio("version").code == 0
        });
    }

    /// Starts the daemon in a [`Trap`] that closes at its call number `deadly`. Whether it answers nevertheless, for it
    /// makes fewer until then.
    #[track_caller]
    pub(crate) fn start_into_trap(&self, deadly: usize) -> bool {
        self.set_traps();
        self.spawn_daemon(Some(deadly));
        let mut answers = false;
        wait_until("the daemon answers or is killed", || {
            answers = self.nuncio("version").code == 0;
            answers || !self.daemon_runs()
        });
        answers
    }

    #[track_caller]
    fn spawn_daemon(&self, deadly: Option<usize>) {
        let mut command = self.daemon_command();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("open the log");
        command
            .stdout(log.try_clone().expect("clone"))
            .stderr(log)
            .stdin(Stdio::null());
        let clock = self.clock.lock().expect("no test panics here").clone();
        let child = if let Some(clock) = clock {
            clock.spawn(command, Path::new(NUNCIO), |mut command| {
                let child = command.spawn().expect("start the daemon");
                let pid = child.id();
                (child, pid)
            })
        } else if self.traps.load(Ordering::Relaxed) {
            let (child, trap) = Trap::spawn(command, deadly);
            *self.trap.lock().expect("no test panics here") = Some(trap);
            child
        } else {
            command.spawn().expect("start the daemon")
        };
        *self.daemon.lock().expect("no test panics here") = Some(child);
    }

    /// How the daemon ended, if it did.
    fn daemon_end(&self) -> Option<std::process::ExitStatus> {
        let mut daemon = self.daemon.lock().expect("no test panics here");
        daemon
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// The daemon's command, as last started.
    pub(crate) fn daemon_command(&self) -> Command {
        let mut command = self.namespace.command(Path::new(NUNCIO));
        command
            .arg("daemon")
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root());
        command
            .arg("-H")
            .arg(self.url())
            .arg("--advertise-addr")
            .arg(self.advertised().to_string());
        command
            .arg("--node-name")
            .arg(format!("host-{}", self.number));
        command.args(&*self.flags.lock().expect("no test panics here"));
        let environment = self.environment.lock().expect("no test panics here");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        drop(environment);
        command
    }

    /// Kills the daemon with SIGKILL.
    #[track_caller]
    pub(crate) fn kill_daemon(&self) {
        let mut daemon = self
            .daemon
            .lock()
            .expect("no test panics here")
            .take()
            .expect("a daemon runs");
        daemon.kill().expect("kill the daemon");
        daemon.wait().expect("wait for the daemon");
    }

    /// Ends everything at once, as a loss of power does, and what lay in memory with it.
    #[track_caller]
    pub(crate) fn crash(&self) {
        self.kill_daemon();
        self.remains.remove();
        fs::remove_dir_all(self.exec_root()).expect("remove what lay in memory");
    }

    /// Ends the daemon with SIGTERM and waits for it.
    #[track_caller]
    pub(crate) fn stop_daemon(&self) {
        let mut daemon = self
            .daemon
            .lock()
            .expect("no test panics here")
            .take()
            .expect("a daemon runs");
        let pid = nix::unistd::Pid::from_raw(daemon.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the daemon");
        wait_until("the daemon ends on SIGTERM", || {
            matches!(daemon.try_wait(), Ok(Some(_)))
        });
    }

    /// The daemon's log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("daemon.log")
    }

    /// Makes an image known.
    #[track_caller]
    pub(crate) fn load(&self, image: Image) {
        let archive = image.archive();
        self.ok(["load", "-i", archive.to_str().expect("a path in UTF-8")]);
    }

    /// Runs a nuncio command.
    #[track_caller]
    pub(crate) fn nuncio(&self, args: impl Args) -> Finished {
        self.spawn(args).finish()
    }

    /// Runs a nuncio command that succeeds; its output without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self, args: impl Args) -> String {
        self.nuncio(args).ok()
    }

    /// Runs a nuncio command that reads `input`.
    #[track_caller]
    pub(crate) fn nuncio_with(&self, input: &[u8], args: impl Args) -> Finished {
        Spawned::new(self.client(args), Some(input)).finish()
    }

    /// Starts a nuncio command.
    #[track_caller]
    pub(crate) fn spawn(&self, args: impl Args) -> Spawned {
        Spawned::new(self.client(args), None)
    }

    /// A nuncio command of this host, such as for a terminal of the test's own.
    pub(crate) fn client(&self, args: impl Args) -> Command {
        let mut command = Command::new(NUNCIO);
        command
            .env("DOCKER_CONFIG", self.directory.path())
            .arg("-H")
            .arg(self.url())
            .args(args.words());
        command
    }

    /// Runs a command of the real docker client.
    #[track_caller]
    pub(crate) fn docker(&self, args: impl Args) -> Finished {
        self.spawn_docker(args).finish()
    }

    /// Starts a command of the real docker client.
    #[track_caller]
    pub(crate) fn spawn_docker(&self, args: impl Args) -> Spawned {
        Spawned::new(self.docker_client(args), None)
    }

    /// A command of the real docker client, such as for a terminal of the test's own.
    #[track_caller]
    pub(crate) fn docker_client(&self, args: impl Args) -> Command {
        let mut command = Command::new(tool("docker"));
        command
            .env("DOCKER_HOST", self.url())
            .env("DOCKER_CONFIG", self.directory.path())
            .args(args.words());
        command
    }

    /// Runs a nuncio command that works on the data directory while no daemon does, such as `init`.
    #[track_caller]
    pub(crate) fn offline(&self, args: impl Args) -> Finished {
        let mut command = self.namespace.command(Path::new(NUNCIO));
        command.args(args.words());
        command.arg("--data-root").arg(self.data_root());
        Spawned::new(command, None).finish()
    }

    /// The command of any program in the host's network namespace.
    #[track_caller]
    pub(crate) fn command(&self, program: &str) -> Command {
        self.namespace.command(&tool(program))
    }

    /// Runs any program in the host's network namespace.
    #[track_caller]
    pub(crate) fn inside(&self, program: &str, args: impl Args) -> Finished {
        self.spawn_inside(program, args).finish()
    }

    /// Starts any program in the host's network namespace.
    #[track_caller]
    pub(crate) fn spawn_inside(&self, program: &str, args: impl Args) -> Spawned {
        let mut command = self.namespace.command(&tool(program));
        command.args(args.words());
        Spawned::new(command, None)
    }

    /// What a TCP server says unasked to a client on this host; nothing, if it cannot be reached.
    #[track_caller]
    pub(crate) fn reads(&self, address: &str, port: u16) -> String {
        let connect = format!("exec 3<>/dev/tcp/{address}/{port} && cat <&3");
        self.inside("timeout", ["2", "bash", "-c", &connect])
            .stdout
            .trim_end()
            .to_owned()
    }

    /// Whether a link of it leaves checksums to the device beneath, or `set` to, as ethtool(8) does.
    #[track_caller]
    pub(crate) fn tx_checksum(&self, link: &str, set: Option<bool>) -> bool {
        let namespace = fs::File::open(self.netns()).expect("open the namespace");
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                sys::tx_checksum(link, set)
            });
            asked.join().expect("no panic")
        });
        asked.unwrap_or_else(|error| panic!("{link}: {error}"))
    }

    /// Runs `ip` in its namespace.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) -> String {
        self.namespace.ip(words)
    }

    /// A directory of the host that goes with it.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of the daemon on {}\n{}---",
                self.address,
                self.log()
            );
        }
        self.remains.remove();
        if let Some(mut daemon) = self.daemon.get_mut().ok().and_then(Option::take) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
