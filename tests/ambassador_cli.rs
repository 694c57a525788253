//! What an ambassador does, seen and steered from the command line: the real binary between a client and an echo
//! server, all on loopback.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::spawn;

use serde_json::Value;
use support::{Finished, Spawned, wait_until};
use tempfile::TempDir;

const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// An ambassador with two forwards to an echo server: `link/echo/7` and `other`.
struct Ambassador {
    process: Spawned,
    echo: SocketAddr,
    listens: [SocketAddr; 2],
    directory: TempDir,
}

/// Returns what comes, to each who connects.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

impl Ambassador {
    #[track_caller]
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let echo = echo();
        let config = directory.path().join("forwards.toml");
        let forward = |name: &str| {
            format!(
                "[[forward]]\nname = {name:?}\nlisten = \"tcp://127.0.0.1:0\"\nto = [\"tcp://{echo}\"]\n"
            )
        };
        fs::write(&config, forward("link/echo/7") + &forward("other")).expect("write");
        // where a client looks that is told of a daemon in this directory
        let socket = directory.path().join("ambassador.sock");
        let mut command = Command::new(NUNCIO);
        command
            .arg("ambassador")
            .arg("--config")
            .arg(&config)
            .arg("--admin")
            .arg(format!("unix://{}", socket.display()))
            .arg("--access-log")
            .arg(directory.path().join("access.log"));
        let process = Spawned::new(command, None);
        let mut this = Self {
            process,
            echo,
            listens: [echo; 2],
            directory,
        };
        wait_until("the ambassador answers", || {
            assert!(this.process.runs(), "the ambassador has ended");
            this.nuncio(&["explain", "other"]).code == 0
        });
        this.listens = ["link/echo/7", "other"].map(|name| {
            let told = this.nuncio(&["explain", name, "--format", "json"]).ok();
            let told: Value = serde_json::from_str(&told).expect("JSON");
            let local = told[0]["local"].as_str().expect("an address");
            local.parse().expect("an address")
        });
        this
    }

    /// A command that finds the ambassador as it would the one of a daemon.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NUNCIO);
        let daemon = self.directory.path().join("nuncio.sock");
        command
            .arg("-H")
            .arg(format!("unix://{}", daemon.display()))
            .args(args);
        command
    }

    #[track_caller]
    fn nuncio(&self, args: &[&str]) -> Finished {
        Spawned::new(self.command(args), None).finish()
    }

    /// A connection by forward `at`, over which a word has come back.
    #[track_caller]
    fn connect(&self, at: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.listens[at]).expect("connect");
        stream.write_all(b"hello").expect("write");
        stream.read_exact(&mut [0; 5]).expect("an echo");
        stream
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = self.process.pid().try_into().expect("a process id");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signal");
    }
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().skip(1);
    rows.map(|row| row.split_whitespace().collect()).collect()
}

#[test]
fn flows_are_listed_and_killed() {
    let ambassador = Ambassador::start();
    let mut first = ambassador.connect(0);
    let mut second = ambassador.connect(1);
    let table = ambassador.nuncio(&["flows"]).ok();
    assert!(table.starts_with("ID "), "{table}");
    let client = second.local_addr().expect("an address").to_string();
    let row = rows(&table).into_iter().find(|row| row[2] == "other");
    let row = row.expect("the flow of other");
    assert_eq!(row[1], "tcp");
    assert_eq!(
        row[3..7],
        [&client, &ambassador.echo.to_string(), "5B", "5B"]
    );
    assert_eq!(row[8..], ["copy", "-"]);

    let of_client = ambassador
        .nuncio(&["flows", "--client", &client, "--format", "json"])
        .ok();
    let flow: Value = serde_json::from_str(&of_client).expect("one line of JSON");
    assert_eq!(flow["forward"], "other");
    let names = ambassador.nuncio(&["flows", "--forward", "other", "--format", "{{.Forward}}"]);
    assert_eq!(names.ok(), "other");
    assert_eq!(
        rows(
            &ambassador
                .nuncio(&["flows", "--endpoint", "127.0.0.9"])
                .ok()
        )
        .len(),
        0
    );

    let killed = ambassador.nuncio(&["flows", "kill", "--id", &flow["id"].to_string()]);
    assert_eq!(killed.ok(), "ended 1 flow");
    let error = second.read(&mut [0]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    first.write_all(b"still").expect("the other goes on");
    first.read_exact(&mut [0; 5]).expect("an echo");
    let endpoint = ambassador.echo.to_string();
    let killed = ambassador.nuncio(&["flows", "kill", "--endpoint", &endpoint]);
    assert_eq!(killed.ok(), "ended 1 flow");
    first.read(&mut [0]).expect_err("a reset");
    assert_eq!(
        ambassador
            .nuncio(&["flows", "kill", "--forward", "none"])
            .ok(),
        "ended 0 flows"
    );
    let refused = ambassador.nuncio(&["flows", "kill"]);
    assert_ne!(
        refused.code, 0,
        "without a filter nothing is meant: {refused:?}"
    );
}

#[test]
fn names_are_explained_by_alias_and_port() {
    let ambassador = Ambassador::start();
    let port = ambassador.listens[0].port().to_string();
    for name in ["link/echo/7", "echo", &port] {
        let told = ambassador.nuncio(&["explain", name]).ok();
        assert!(told.starts_with("link/echo/7\n"), "{name}: {told}");
        for part in [
            format!("target   tcp://{}", ambassador.echo),
            format!("next     {}: it is the only one", ambassador.echo),
            "policy   p2c".to_owned(),
            "known    as configured".to_owned(),
            "  up  ".to_owned(),
        ] {
            assert!(told.contains(&part), "{part:?} is not in\n{told}");
        }
    }
    let message = ambassador.nuncio(&["explain", "nobody"]).refused(1);
    assert!(
        message.contains("nobody") && message.contains("link/echo/7"),
        "{message}"
    );
}

#[test]
fn a_tap_shows_begin_and_end() {
    let ambassador = Ambassador::start();
    let mut tap = Spawned::new(ambassador.command(&["tap", "echo"]), None);
    // no one can tell from outside when it listens: so connect until it tells
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let at = ambassador.listens[0];
    let connecting = spawn({
        let seen = seen.clone();
        move || {
            while !seen.load(std::sync::atomic::Ordering::Relaxed) {
                let mut stream = TcpStream::connect(at).expect("connect");
                stream.write_all(b"hello").expect("write");
                stream.read_exact(&mut [0; 5]).expect("an echo");
            }
        }
    });
    tap.until(" begin link/echo/7 tcp 127.0.0.1:");
    tap.until("in 5B out 5B after ");
    tap.until("finished by client");
    seen.store(true, std::sync::atomic::Ordering::Relaxed);
    connecting.join().expect("no connection fails");
}

#[test]
fn metrics_and_access_log_agree() {
    let ambassador = Ambassador::start();
    drop(ambassador.connect(0));
    wait_until("the end is logged", || ambassador.log().ends_with('\n'));
    let record: Value = serde_json::from_str(&ambassador.log()).expect("one line of JSON");
    assert_eq!(record["forward"], "link/echo/7");
    assert_eq!(
        (&record["end"], &record["side"]),
        (&"finished".into(), &"client".into())
    );
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&5.into(), &5.into())
    );

    let moved = ambassador.directory.path().join("access.log.1");
    fs::rename(ambassador.directory.path().join("access.log"), &moved).expect("rename");
    ambassador.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the log is opened again", || {
        ambassador.directory.path().join("access.log").exists()
    });
    let open = ambassador.connect(1);
    let mut socket = std::os::unix::net::UnixStream::connect(
        ambassador.directory.path().join("ambassador.sock"),
    )
    .expect("connect");
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .expect("write");
    let mut metrics = String::new();
    socket.read_to_string(&mut metrics).expect("read");
    let labels =
        |forward: &str| format!("{{forward=\"{forward}\",endpoint=\"{}\"}}", ambassador.echo);
    for line in [
        format!("nuncio_ambassador_flows_open{} 1", labels("other")),
        format!("nuncio_ambassador_flows_total{} 1", labels("link/echo/7")),
        "nuncio_ambassador_access_log_written_total 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is not in\n{metrics}"
        );
    }
    // what is open at the end is in the log too
    ambassador.signal(nix::sys::signal::Signal::SIGTERM);
    ambassador.signal(nix::sys::signal::Signal::SIGINT);
    wait_until("the last flow is logged", || {
        ambassador.log().contains("\"end\":\"aborted\"")
    });
    drop(open);
    let mut ambassador = ambassador;
    wait_until("the ambassador ends", || !ambassador.process.runs());
}

/// What `/ready` says.
fn ready(ambassador: &Ambassador) -> String {
    let socket = ambassador.directory.path().join("ambassador.sock");
    let mut socket = std::os::unix::net::UnixStream::connect(socket).expect("connect");
    let request = b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    socket.write_all(request).expect("write");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("read");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[test]
fn sigterm_waits_for_flows_and_serves_those_who_come() {
    let mut ambassador = Ambassador::start();
    assert_eq!(ready(&ambassador), "200");
    let first = ambassador.connect(0);
    ambassador.signal(nix::sys::signal::Signal::SIGTERM);
    wait_until("it is not ready any more", || ready(&ambassador) == "503");
    let second = ambassador.connect(1);
    drop(first);
    wait_until("one is left", || {
        rows(&ambassador.nuncio(&["flows"]).ok()).len() == 1
    });
    assert!(ambassador.process.runs());
    drop(second);
    wait_until("it ends", || !ambassador.process.runs());
    assert_eq!(ambassador.process.finish().code, 0);
}

#[test]
fn files_are_checked() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("forwards.toml");
    let path = file.to_str().expect("a path in UTF-8").to_owned();
    let check = |text: &str| {
        fs::write(&file, text).expect("write");
        let mut command = Command::new(NUNCIO);
        command.args(["ambassador", "check", &path]);
        Spawned::new(command, None).finish()
    };
    let forward = |port: u16, to: &str| {
        format!("[[forward]]\nlisten = \"tcp://127.0.0.1:{port}\"\nto = [\"{to}\"]\n")
    };
    let fine = check(&forward(7001, "tcp://127.0.0.1:9"));
    assert_eq!(
        (fine.code, fine.stdout.as_str(), fine.stderr.as_str()),
        (0, &*format!("{path}: 1 forward\n"), "")
    );
    let two = forward(7001, "tcp://127.0.0.1:9") + &forward(7002, "tcp://127.0.0.1:9");
    assert_eq!(check(&two).ok(), format!("{path}: 2 forwards"));

    let unresolved = check(&forward(7001, "tcp://nothing.invalid:9"));
    assert!(unresolved.stderr.contains("warning") && unresolved.stderr.contains("nothing.invalid"));
    assert_eq!(unresolved.ok(), format!("{path}: 1 forward"));

    for (text, says) in [
        (
            forward(7001, "tcp://127.0.0.1:9") + "mode = \"fast\"\n",
            &["forwards.toml:4: mode:"][..],
        ),
        (
            forward(7001, "tcp://127.0.0.1:9") + "colour = 1\n",
            &["forwards.toml:4", "colour"],
        ),
        (forward(7001, "redis"), &["forwards.toml:3: to:"]),
        (
            forward(7001, "tcp://127.0.0.1:7001"),
            &["forwards.toml", "circle"],
        ),
        (two.replace("7002", "7001"), &["forwards.toml", "7001"]),
        (String::new(), &["forwards.toml", "[[forward]]"]),
        (
            forward(7001, "tcp://127.0.0.1:9")
                + "tls = \"originate\"\ntls_certificate = \"/nonexistent/c.pem\"\n\
                   tls_key = \"/nonexistent/k.pem\"\ntls_bundle = \"/nonexistent/b.pem\"\n\
                   allow = [\"spiffe://m/n/*\"]\n",
            &["forwards.toml", "/nonexistent/c.pem", "os error 2"],
        ),
    ] {
        let message = check(&text).refused(1);
        for part in says {
            assert!(
                message.contains(part),
                "{message} does not say {part}, of\n{text}"
            );
        }
    }
    let mut command = Command::new(NUNCIO);
    command.args(["ambassador", "check", "/nonexistent.toml"]);
    let message = Spawned::new(command, None).finish().refused(1);
    assert!(
        message.contains("/nonexistent.toml") && message.contains("os error 2"),
        "{message}"
    );
}

#[test]
fn an_ambassador_that_is_not_there_is_told_plainly() {
    let directory = tempfile::tempdir().expect("a directory");
    let admin = format!("unix://{}/a.sock", directory.path().display());
    for words in [&["flows"][..], &["tap"], &["explain", "redis"]] {
        let mut command = Command::new(NUNCIO);
        command.args(words).args(["--admin", &admin]);
        let message = Spawned::new(command, None).finish().refused(1);
        assert!(
            message.contains(&admin) && message.contains("is it running?"),
            "{message}"
        );
    }
}
