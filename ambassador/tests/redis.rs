//! A real redis, through the relay: its own tests, those of them that ask for no more than a host and
//! a port; all that redis-benchmark does; and by hand what both leave out.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nuncio_ambassador::{Ambassador, Check, CheckKind, EndpointState, RelayMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod support;
use support::program::{free_address, output, program};
use support::tool::tool;
use support::*;

struct Redis {
    child: Child,
    socket: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Redis {
    /// On a free port. It serves a unix socket too, to tell when it is up.
    async fn start() -> Result<(Self, SocketAddr)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &port.port().to_string()])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server (Debian package redis-server)")?;
        let redis = Self {
            child,
            socket,
            _directory: directory,
        };
        until("redis is up", || {
            std::os::unix::net::UnixStream::connect(&redis.socket).is_ok()
        })
        .await?;
        Ok((redis, port))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn cli(at: SocketAddr, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>> {
    let mut child = Command::new("redis-cli")
        .args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start redis-cli (Debian package redis-tools)")?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let run = move || -> std::io::Result<Output> {
        stdin.write_all(&input)?;
        drop(stdin);
        child.wait_with_output()
    };
    let output = soon(tokio::task::spawn_blocking(run)).await???;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(output.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_does_not_notice() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let forward = limited(tcp("redis", &[server]), |limits| {
            limits.mode = mode;
        });
        let (ambassador, local) = running(forward).await?;
        ensure!(cli(local, &["ping"], Vec::new()).await? == b"PONG\n");
        ensure!(cli(local, &["set", "key", "value"], Vec::new()).await? == b"OK\n");
        ensure!(cli(server, &["get", "key"], Vec::new()).await? == b"value\n");
        let value: Vec<u8> = noise(9, 10_000_000)
            .iter()
            .map(|byte| b'a' + byte % 26)
            .collect();
        let set = cli(local, &["-x", "set", "large"], value.clone()).await?;
        ensure!(set == b"OK\n", "{mode:?}");
        let mut got = cli(local, &["get", "large"], Vec::new()).await?;
        ensure!(
            got.pop() == Some(b'\n') && got == value,
            "{mode:?}: the value has changed"
        );
        until("the flows have ended", || ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_asked_whether_it_is_well() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    let mut check = Check::new(CheckKind::SendExpect {
        send: b"PING\r\n".to_vec(),
        expect: b"+PONG\r\n".to_vec(),
    });
    check.interval = std::time::Duration::from_millis(20);
    // Redis keeps a connection open that it has refused, and might say more.
    check.timeout = std::time::Duration::from_millis(500);
    let mut forward = tcp("redis", &[server]);
    forward.balance.check = Some(check);
    let (ambassador, local) = running(forward).await?;
    let view = || {
        ambassador
            .endpoints()
            .pop()
            .and_then(|(_, views)| views.into_iter().next())
    };
    let state = || view().map(|view| view.state);
    // It is up whether asked or not; that it was asked is seen by its going down.
    let password = ["config", "set", "requirepass", "secret"];
    ensure!(cli(server, &password, Vec::new()).await? == b"OK\n");
    until("it is down", || state() == Some(EndpointState::Down)).await?;
    let fault = view().and_then(|view| view.last_check_failure);
    let fault = fault.context("why it is down")?.error;
    ensure!(
        fault.contains("NOAUTH") && fault.contains("+PONG"),
        "{fault}"
    );
    // The last one is used nevertheless.
    let get = ["-a", "secret", "--no-auth-warning", "ping"];
    ensure!(cli(local, &get, Vec::new()).await? == b"PONG\n");
    let open = [
        "-a",
        "secret",
        "--no-auth-warning",
        "config",
        "set",
        "requirepass",
        "",
    ];
    ensure!(cli(server, &open, Vec::new()).await? == b"OK\n");
    until("it is up", || state() == Some(EndpointState::Up)).await
}

/// Parts of redis's own tests that would want a server they can stop, spoil or look into, or more
/// time than there is.
const NOT_WANTED: &str = "-needs:repl -needs:debug -needs:reset -needs:save -needs:config-maxmemory \
                          -needs:config-resetstat -large-memory -slow -cli";

/// Runs units of redis's own tests by way of the ambassador.
async fn passes(units: &[&str]) -> Result<()> {
    let suite = tool("redis-tests/runtest")?;
    // It writes beside itself, and another one may run.
    let place = tempfile::tempdir()?;
    std::fs::create_dir(place.path().join("src"))?;
    let mut copy = program("cp");
    let parts = ["runtest", "tests"].map(|part| suite.with_file_name(part));
    copy.arg("-r").args(parts).arg(place.path());
    output(copy).await?;

    let (_redis, server) = Redis::start().await?;
    let (ambassador, local) = relayed(server, RelayMode::Auto).await?;
    let mut run = program("./runtest");
    run.current_dir(place.path())
        .args(["--host", "127.0.0.1", "--tags", NOT_WANTED])
        .args(["--port", &local.port().to_string()])
        // Its parts talk by a port from 32 below this one on.
        .args(["--baseport", &(free_address()?.port() - 32).to_string()])
        .args(units.iter().flat_map(|unit| ["--single", unit]))
        .stdout(Stdio::piped())
        .process_group(0);
    let child = run.spawn()?;
    let group = Group(child.id().context("it runs")?.try_into()?);
    let ended = tokio::time::timeout(LONGEST, child.wait_with_output()).await;
    drop(group);
    let ended = ended.context("redis's tests do not end")??;
    let printed = String::from_utf8_lossy(&ended.stdout);
    let passed = printed.contains("All tests passed without errors");
    ensure!(ended.status.success() && passed, "{printed}");
    for unit in units {
        let done = printed
            .lines()
            .any(|line| line.contains("done") && line.contains(unit));
        ensure!(done, "{unit} has not run: {printed}");
    }
    let well = printed.matches("ok\u{1b}[0m]: ").count();
    ensure!(well > 5 * units.len(), "only {well} tests: {printed}");
    until("the flows have ended", || ambassador.flows().is_empty()).await
}

/// No unit takes a tenth of it.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(200);

/// Processes that end with it.
struct Group(i32);

impl Drop for Group {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0);
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

// Of its units only those that do not take a command on one connection for carried out because
// another connection's was sent later: by way of two workers, either may arrive first. The others
// rely on that, or on what happens within 200 ms.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_its_own_tests_of_values() -> Result<()> {
    passes(&["unit/type/string", "unit/type/incr", "unit/type/set"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_its_own_tests_of_connections() -> Result<()> {
    // Not those of pub/sub: they count on what one connection sent having arrived before what another sends.
    passes(&[
        "unit/protocol",
        "unit/networking",
        "unit/querybuf",
        "unit/quit",
    ])
    .await
}

async fn relayed(server: SocketAddr, mode: RelayMode) -> Result<(Ambassador, SocketAddr)> {
    let forward = limited(tcp("redis", &[server]), |limits| limits.mode = mode);
    running(forward).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_redis_benchmark_gets_its_answers() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for (mode, load) in [
        (RelayMode::Auto, &["-c", "20"][..]),
        (RelayMode::Auto, &["-c", "10", "-P", "16", "-d", "500"]),
        (RelayMode::Copy, &["-c", "10", "-P", "100"]),
        (RelayMode::Splice, &["-c", "10", "-d", "500"]),
    ] {
        let (ambassador, local) = relayed(server, mode).await?;
        let mut benchmark = program("redis-benchmark");
        benchmark
            .args(["-h", "127.0.0.1", "-p", &local.port().to_string()])
            // -e: an error that redis answers with is one.
            .args(["-n", "300", "-e", "--csv"])
            .args(load);
        let printed = String::from_utf8(output(benchmark).await?)?;
        ensure!(
            !printed.to_lowercase().contains("error"),
            "{mode:?}: {printed}"
        );
        for command in [
            "PING_INLINE",
            "PING_MBULK",
            "SET",
            "GET",
            "INCR",
            "LPUSH",
            "RPUSH",
            "LPOP",
            "RPOP",
            "SADD",
            "HSET",
            "SPOP",
            "ZADD",
            "ZPOPMIN",
            "LRANGE_600 (first 600 elements)",
            "MSET (10 keys)",
        ] {
            let done = printed
                .lines()
                .any(|line| line.starts_with(&format!("\"{command}\",")));
            ensure!(done, "{mode:?}: {command} is not in {printed}");
        }
        until("the flows have ended", || ambassador.flows().is_empty()).await?;
    }
    Ok(())
}

/// A client that knows what redis must answer, byte for byte.
struct Client(TcpStream);

impl Client {
    async fn connect(to: SocketAddr) -> Result<Self> {
        Ok(Self(TcpStream::connect(to).await?))
    }

    async fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        Ok(self.0.write_all(&request(words)).await?)
    }

    async fn expect(&mut self, answer: &[u8]) -> Result<()> {
        let mut found = vec![0; answer.len()];
        soon(self.0.read_exact(&mut found)).await??;
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        ensure!(
            found == answer,
            "{:?} instead of {:?}",
            shown(&found),
            shown(answer)
        );
        Ok(())
    }

    async fn ask(&mut self, words: &[&[u8]], answer: &[u8]) -> Result<()> {
        self.send(words).await?;
        self.expect(answer).await
    }
}

/// An array of bulk strings, as redis takes commands and gives lists.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(bulk(word));
    }
    bytes
}

fn bulk(word: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_get_each_message_in_order() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let (_ambassador, local) = relayed(server, mode).await?;
        let (mut subscriber, mut publisher) =
            (Client::connect(local).await?, Client::connect(local).await?);
        let subscribed = [
            b"*3\r\n".as_slice(),
            &bulk(b"subscribe"),
            &bulk(b"news"),
            b":1\r\n",
        ]
        .concat();
        subscriber
            .ask(&[b"SUBSCRIBE", b"news"], &subscribed)
            .await?;
        for number in 0..500 {
            let message = format!("message {number}");
            publisher
                .ask(&[b"PUBLISH", b"news", message.as_bytes()], b":1\r\n")
                .await?;
        }
        for number in 0..500 {
            let message = format!("message {number}");
            subscriber
                .expect(&request(&[b"message", b"news", message.as_bytes()]))
                .await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_hold_and_blocked_clients_wait() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let (_ambassador, local) = relayed(server, mode).await?;
        let mut client = Client::connect(local).await?;
        client.ask(&[b"DEL", b"n"], b":0\r\n").await?;
        client.ask(&[b"MULTI"], b"+OK\r\n").await?;
        for _ in 0..100 {
            client.ask(&[b"INCR", b"n"], b"+QUEUED\r\n").await?;
        }
        let counted: String = (1..=100).map(|number| format!(":{number}\r\n")).collect();
        client
            .ask(&[b"EXEC"], format!("*100\r\n{counted}").as_bytes())
            .await?;
        client.ask(&[b"DEL", b"n"], b":1\r\n").await?;

        let mut waiting = Client::connect(local).await?;
        waiting.send(&[b"BLPOP", b"list", b"0"]).await?;
        // The server tells when it has blocked the client; then an answer can only be the push's.
        soon(async {
            let blocked =
                |info: Vec<u8>| String::from_utf8_lossy(&info).contains("blocked_clients:1\r\n");
            while !blocked(cli(server, &["info", "clients"], Vec::new()).await?) {}
            anyhow::Ok(())
        })
        .await??;
        client
            .ask(&[b"RPUSH", b"list", b"pushed"], b":1\r\n")
            .await?;
        waiting.expect(&request(&[b"list", b"pushed"])).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commands_in_a_row_are_answered_in_order() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let (_ambassador, local) = relayed(server, mode).await?;
        let stream = TcpStream::connect(local).await?;
        let (mut reads, mut writes) = stream.into_split();
        let pipeline = request(&[b"INCR", b"n"]).repeat(10_000);
        let expected: String = (1..=10_000)
            .map(|number| format!(":{number}\r\n"))
            .collect();
        let mut answers = vec![0; expected.len()];
        let (sent, answered) = tokio::join!(
            writes.write_all(&pipeline),
            soon(reads.read_exact(&mut answers))
        );
        sent?;
        answered??;
        ensure!(
            answers == expected.as_bytes(),
            "{mode:?}: answers out of order"
        );
        cli(server, &["del", "n"], Vec::new()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_mebibyte_go_in_and_out() -> Result<()> {
    let (_redis, server) = Redis::start().await?;
    for mode in MODES {
        let (_ambassador, local) = relayed(server, mode).await?;
        let mut client = Client::connect(local).await?;
        for round in 0..5 {
            let value = noise(round, 1 << 20);
            client.ask(&[b"SET", b"large", &value], b"+OK\r\n").await?;
            // Small ones in between, so that the way changes.
            for _ in 0..20 {
                client.ask(&[b"PING"], b"+PONG\r\n").await?;
            }
            client.ask(&[b"GET", b"large"], &bulk(&value)).await?;
        }
    }
    Ok(())
}
