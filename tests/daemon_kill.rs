//! The daemon is killed under traffic: containers, logs and links go on, and the next daemon takes them over.

mod support;

use std::fs;

use support::{Host, Image, cluster, single, wait_until};

/// Lines in a container's log file, which is there without a daemon.
fn lines_logged(host: &Host, id: &str) -> usize {
    let log = host
        .data_root()
        .join(format!("containers/{id}/{id}-json.log"));
    fs::read(log).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
}

fn wait_for_more_lines(host: &Host, id: &str, more: usize) {
    let wanted = lines_logged(host, id) + more;
    wait_until("the container logs on", || lines_logged(host, id) >= wanted);
}

#[test]
fn containers_and_logs_go_on() {
    let host = single(&[Image::Busybox]);
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";
    let id = host.ok([
        "run", "-d", "--name", "counter", "busybox", "sh", "-c", script,
    ]);
    wait_for_more_lines(&host, &id, 5);
    let before = host.ok("inspect -f {{.State.Pid}} counter");

    host.kill_daemon();
    wait_for_more_lines(&host, &id, 20);
    host.start_again();

    assert_eq!(host.ok("inspect -f {{.State.Pid}} counter"), before);
    wait_for_more_lines(&host, &id, 5);
    assert_eq!(host.ok("exec counter echo inside"), "inside");
    host.ok("stop -t 1 counter");
    let logged = host.ok("logs counter");
    let numbers: Vec<usize> = logged
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert!(
        numbers.iter().copied().eq(1..=numbers.len()),
        "a line is missing or twice"
    );
    host.ok("rm counter");
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn an_exec_goes_on_and_is_cleaned_up_after() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name box busybox sleep 1000");
    let script = "touch /started; while [ ! -e /go ]; do sleep 0.02; done; touch /ended";
    host.ok(["exec", "-d", "box", "sh", "-c", script]);
    let is_there = |path: &str| host.nuncio(["exec", "box", "test", "-e", path]).code == 0;
    wait_until("the exec runs", || is_there("/started"));

    host.kill_daemon();
    host.start_again();

    host.ok("exec box touch /go");
    wait_until("the exec ends by itself", || is_there("/ended"));
    let execs = host.exec_root().join("exec");
    wait_until("nothing is left of it", || {
        fs::read_dir(&execs).is_ok_and(|mut entries| entries.next().is_none())
    });
}

#[test]
fn links_between_hosts_go_on() {
    let [a, b] = cluster(&[Image::Redis]);
    a.ok("run -d --name redis-server redis");
    // Each round is a new connection, so the link is made anew each time.
    let script = "while :; do redis-cli -h redis incr rounds || echo lost; sleep 0.02; done";
    let id = b.ok([
        "run",
        "-d",
        "--name",
        "client",
        "--link",
        "redis-server:redis",
        "redis",
        "sh",
        "-c",
        script,
    ]);
    wait_for_more_lines(&b, &id, 5);

    a.kill_daemon();
    b.kill_daemon();
    wait_for_more_lines(&b, &id, 30);
    a.start_again();
    b.start_again();
    wait_for_more_lines(&b, &id, 30);

    let logged = b.ok("logs client");
    let rounds: Vec<&str> = logged
        .lines()
        .skip_while(|line| line.parse::<u32>().is_err())
        .collect();
    let lost: Vec<&&str> = rounds
        .iter()
        .filter(|line| line.parse::<u32>().is_err())
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(a.ok("exec redis-server redis-cli ping"), "PONG");
}

#[test]
fn names_and_published_ports_go_on() {
    let [a, b] = cluster(&[Image::Redis]);
    a.ok("network create -d overlay mesh");
    a.ok("run -d --name db --network mesh -p 7000:6379 redis");
    b.ok("run -d --name client --network mesh redis sleep 1000");
    wait_until("db answers by its name", || {
        b.nuncio("exec client redis-cli -h db ping").stdout.trim() == "PONG"
    });
    let id = b.ok([
        "run",
        "-d",
        "--network",
        "mesh",
        "redis",
        "sh",
        "-c",
        "while :; do redis-cli -h db ping; sleep 0.02; done",
    ]);
    wait_for_more_lines(&b, &id, 5);

    a.kill_daemon();
    b.kill_daemon();
    wait_for_more_lines(&b, &id, 20);
    let ping = ["-h", &a.address.to_string(), "-p", "7000", "ping"];
    assert_eq!(b.inside("redis-cli", ping).ok(), "PONG");
    let ping_self = ["-h", "127.0.0.1", "-p", "7000", "ping"];
    assert_eq!(a.inside("redis-cli", ping_self).ok(), "PONG");

    a.start_again();
    b.start_again();
    wait_for_more_lines(&b, &id, 20);
    assert_eq!(b.inside("redis-cli", ping).ok(), "PONG");
}

#[test]
fn an_end_without_a_daemon_is_not_forgotten() {
    let host = single(&[Image::Busybox]);
    let fifo = "mkfifo /go; echo ready; read x < /go; echo last words; exit 7";
    let id = host.ok(["run", "-d", "--name", "kept", "busybox", "sh", "-c", fifo]);
    let gone = host.ok([
        "run", "-d", "--rm", "--name", "gone", "busybox", "sh", "-c", fifo,
    ]);
    wait_until("both are ready", || {
        lines_logged(&host, &id) == 1 && lines_logged(&host, &gone) == 1
    });
    let pids: Vec<String> = ["kept", "gone"]
        .map(|name| host.ok(&format!("inspect -f {{{{.State.Pid}}}} {name}")))
        .into();

    host.kill_daemon();
    for pid in &pids {
        fs::write(format!("/proc/{pid}/root/go"), "\n").expect("let it end");
    }
    wait_until("both end", || {
        pids.iter()
            .all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    });
    host.start_again();

    assert_eq!(host.ok("wait kept"), "7");
    assert!(host.ok("logs kept").ends_with("last words"));
    wait_until("the one with --rm is removed", || {
        host.ok("ps -a --format {{.Names}}") == "kept"
    });
}

#[test]
fn killing_it_again_and_again_does_no_harm() {
    let host = single(&[Image::Busybox]);
    let id = host.ok([
        "run",
        "-d",
        "--name",
        "counter",
        "busybox",
        "sh",
        "-c",
        "while :; do echo on; sleep 0.05; done",
    ]);
    for _ in 0..5 {
        host.kill_daemon();
        host.start_again();
    }
    wait_for_more_lines(&host, &id, 3);
    assert_eq!(host.ok("ps -q --no-trunc"), id);
}

/// The process that carries the host's connections, as the daemon told last.
fn ambassador(host: &Host) -> nix::unistd::Pid {
    let log = host.log();
    let told = log.rsplit_once("started the host's ambassador pid=");
    let (_, pid) = told.expect("it was started");
    let digits = pid.split(|c: char| !c.is_ascii_digit()).next();
    let pid = digits.and_then(|digits| digits.parse().ok());
    nix::unistd::Pid::from_raw(pid.expect("a process id"))
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_all_that_is_not_served() {
    let host = single(&[Image::Busybox]);
    for (name, port) in [("one", "9191:80"), ("two", "9192:80")] {
        let serve = format!("while :; do echo {name} | nc -l -p 80; done");
        host.ok([
            "run", "-d", "--name", name, "-p", port, "busybox", "sh", "-c", &serve,
        ]);
    }
    let reads = |port| host.reads("127.0.0.1", port);
    wait_until("both are served", || {
        reads(9191) == "one" && reads(9192) == "two"
    });

    host.kill_daemon();
    nix::sys::signal::kill(ambassador(&host), nix::sys::signal::Signal::SIGKILL).expect("kill it");
    let is_open = || {
        let connect = ["-c", ": </dev/tcp/127.0.0.1/9191"];
        host.inside("bash", connect).code == 0
    };
    wait_until("the port is free", || !is_open());
    let words = "ambassador --listen tcp://0.0.0.0:9191 --to tcp://127.0.0.1:9";
    let rival = host.spawn_inside(env!("CARGO_BIN_EXE_nuncio"), words);
    wait_until("a stranger has the port", is_open);
    host.start_again();
    wait_until("it is told", || host.log().contains("not served"));
    wait_until("the other one is served", || reads(9192) == "two");
    assert_eq!(reads(9191), "");

    drop(rival);
    host.ok("run --rm busybox true"); // whatever changes makes it look again
    wait_until("it is served again", || reads(9191) == "one");
}
