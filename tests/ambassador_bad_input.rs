//! What is wrong with an ambassador's configuration or with those who come is told in a line that says what and where,
//! and whoever has nothing to do with it is served on.

mod support;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use support::{Spawned, wait_until};
use tempfile::TempDir;

const NUNCIO: &str = env!("CARGO_BIN_EXE_nuncio");

/// An ambassador whose first forward serves whatever else is asked of it.
struct Ambassador {
    process: Child,
    good: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    // removed when the process has gone
    _directory: TempDir,
}

impl Ambassador {
    #[track_caller]
    fn start() -> Self {
        Self::start_with("")
    }

    /// Starts it with more in its configuration.
    #[track_caller]
    fn start_with(more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("forwards.toml");
        let log = directory.path().join("log");
        // a port that stays the same from one configuration to the next
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let good = held.local_addr().expect("an address");
        drop(held);
        let first = forward("good", good, &greeter().to_string());
        fs::write(&config, first + more).expect("write");
        let process = Command::new(NUNCIO)
            .args(["ambassador", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn();
        let this = Self {
            process: process.expect("start the ambassador"),
            good,
            config,
            log,
            _directory: directory,
        };
        wait_until("it is ready", || this.log().contains("ready"));
        this
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("read the log")
    }

    /// Adds to the configuration, and returns the lines that are logged until one has `word` in it.
    #[track_caller]
    fn reload(&self, more: &str, word: &str) -> String {
        let before = self.log().len();
        let good = fs::read_to_string(&self.config).expect("read");
        fs::write(&self.config, format!("{good}{more}")).expect("write");
        let pid = self.process.id().try_into().expect("a process id");
        kill(nix::unistd::Pid::from_raw(pid), Signal::SIGHUP).expect("signal");
        let news = || self.log().split_off(before);
        wait_until(&format!("{word:?} is logged"), || {
            news().lines().any(|line| line.contains(word))
        });
        fs::write(&self.config, good).expect("write");
        news()
    }

    #[track_caller]
    fn serves_on(&self) {
        assert_eq!(greeting(self.good), "hello", "{}", self.log());
    }
}

impl Drop for Ambassador {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Greets whoever comes.
fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("accept").write_all(b"hello");
        }
    });
    address
}

/// What is said to one who says nothing.
fn greeting(at: SocketAddr) -> String {
    let mut said = String::new();
    let mut stream = TcpStream::connect(at).expect("connect");
    stream.set_read_timeout(Some(support::SOON)).expect("set");
    let _ = stream.read_to_string(&mut said);
    said
}

fn forward(name: &str, listen: SocketAddr, to: &str) -> String {
    format!("[[forward]]\nname = \"{name}\"\nlisten = \"tcp://{listen}\"\nto = [\"{to}\"]\n")
}

/// Configurations that cannot be, and what is said of each.
fn wrong(directory: &Path, taken: SocketAddr) -> Vec<(String, Vec<String>)> {
    let free = "127.0.0.1:0".parse().expect("an address");
    let plain = forward("bad", free, "127.0.0.1:9");
    let absent = directory.join("absent.pem");
    let tls = format!(
        "tls = \"terminate\"\ntls_certificate = \"{0}\"\ntls_key = \"{0}\"\ntls_bundle = \"{0}\"\n\
         allow = [\"spiffe://m/n/*\"]\n",
        absent.display()
    );
    let says = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    vec![
        (
            forward("bad", taken, "127.0.0.1:9"),
            says(&["bad", &taken.to_string(), "os error 98"]),
        ),
        (
            forward("bad", taken, &taken.to_string()),
            says(&["bad -> bad", "circle"]),
        ),
        (
            plain.replace("\"127.0.0.1:9\"", ""),
            says(&["forwards.toml:", "to"]),
        ),
        (
            plain.clone() + "colour = 1\n",
            says(&["forwards.toml:", "colour"]),
        ),
        (
            plain.clone() + &tls,
            says(&["bad", &absent.display().to_string(), "os error 2"]),
        ),
        (
            plain + "[forward.sni]\n\"a.*\" = [\"127.0.0.1:9\"]\n",
            says(&["forwards.toml:", "a.*"]),
        ),
    ]
}

#[test]
fn a_configuration_that_cannot_be_is_not_taken() {
    let ambassador = Ambassador::start();
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = (taken.local_addr().expect("an address"), taken);
    for (config, says) in wrong(directory.path(), taken.0) {
        let told = ambassador.reload(&config, "what ran goes on");
        let line = told.lines().find(|line| line.contains("not taken"));
        let line = line.unwrap_or_else(|| panic!("{told}"));
        for word in says {
            assert!(line.contains(&word), "{line}\ndoes not say {word}");
        }
        ambassador.serves_on();

        // and one that begins with it does not begin
        let file = directory.path().join("forwards.toml");
        fs::write(&file, config).expect("write");
        let mut command = Command::new(NUNCIO);
        command.args(["ambassador", "--config"]).arg(file);
        Spawned::new(command, None).finish().refused(1);
    }
}

#[test]
fn what_cannot_be_had_at_the_start_keeps_the_rest_from_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("an address");
    let free = "127.0.0.1:0".parse().expect("an address");
    let tls = "tls = \"terminate\"\ntls_certificate = \"/absent.pem\"\ntls_key = \"/absent.pem\"\n\
               tls_bundle = \"/absent.pem\"\nallow = [\"spiffe://m/n/*\"]\n";
    let lacking = forward("lacking", free, "127.0.0.1:9") + tls;
    let ambassador =
        Ambassador::start_with(&(forward("held", at, &greeter().to_string()) + &lacking));
    for says in [["held", "os error 98"], ["lacking", "/absent.pem"]] {
        let log = ambassador.log();
        let mut lines = log.lines().filter(|line| line.contains("not served yet"));
        let told = lines.any(|line| says.iter().all(|word| line.contains(word)));
        assert!(told, "{says:?}: {log}");
    }
    ambassador.serves_on();
    drop(taken);
    wait_until("it has the port", || {
        ambassador.log().contains("listening forward=held")
    });
    assert_eq!(greeting(at), "hello");
    ambassador.serves_on();
}

#[test]
fn links_that_lead_back_or_nowhere_are_refused() {
    for (variable, value, says) in [
        ("SELF_PORT_65000_TCP", "tcp://127.0.0.1:65000", "circle"),
        ("A_PORT_65000_TCP", "udp://127.0.0.1:9", "tcp://HOST:PORT"),
        ("A_PORT_65536_TCP", "tcp://127.0.0.1:9", "1 to 65535"),
        ("A_PORT_65000_UDP", "udp://a\u{7}\rb:9", "\\u{7}\\r"),
        ("PATH_OF_NO_LINK", "/bin", "no variable says"),
    ] {
        let mut command = Command::new(NUNCIO);
        command.arg("ambassador").env(variable, value);
        let message = Spawned::new(command, None).finish().refused(1);
        assert!(message.contains(says), "{variable}: {message}");
        let is_named = message.contains(variable);
        assert_eq!(is_named, says != "no variable says", "{message}");
    }
}

#[test]
fn a_name_that_does_not_resolve_holds_only_its_own() {
    let ambassador = Ambassador::start();
    let free = "127.0.0.1:0".parse().expect("an address");
    let told = ambassador.reload(
        &forward("lost", free, "nothing.invalid:9"),
        "nothing.invalid",
    );
    assert!(told.contains("retrying"), "{told}");
    ambassador.serves_on();
}

#[test]
fn a_header_that_is_cut_short_ends_only_its_own() {
    let ambassador = Ambassador::start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let edge = listener.local_addr().expect("an address");
    drop(listener);
    let config = forward("edge", edge, &greeter().to_string()) + "accept_proxy = true\n";
    ambassador.reload(&config, "read the configuration again");
    for (header, says) in [
        ("PROXY TCP4 10.0.0.1 10.", "closed"),
        ("GET / HTTP/1.1\r\n", "no PROXY header"),
    ] {
        let mut stream = TcpStream::connect(edge).expect("connect");
        stream.write_all(header.as_bytes()).expect("write");
        stream.shutdown(Shutdown::Write).expect("finish");
        wait_until("it is told", || {
            let log = ambassador.log();
            let mut refused = log.lines().filter(|line| line.contains("refused"));
            refused.any(|line| line.contains("edge") && line.contains(says))
        });
    }
    let mut whole = TcpStream::connect(edge).expect("connect");
    let header = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n";
    whole.write_all(header).expect("write");
    let mut said = String::new();
    whole.read_to_string(&mut said).expect("read");
    assert_eq!(said, "hello");
    ambassador.serves_on();
}
