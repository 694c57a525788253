//! Readers that stop reading: nobody waits for them, they cost little, and they are told why they hear no more.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Host, Image, Spawned, Underlay, wait_until};

/// Events that no socket's buffers hold.
const EVENTS: usize = 8000;
/// Bytes that a container prints, which no buffers hold.
const PRINTED: usize = 3 << 20;

fn signal(client: &Spawned, signal: Signal) {
    let pid = i32::try_from(client.pid()).expect("a pid");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// KiB of memory that are the daemon's own.
fn memory(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.daemon_pid()));
    let status = status.expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|text| text.parse().ok()).expect("a number")
}

fn make_events(host: &Host, count: usize) {
    let socket = host.exec_root().join("nuncio.sock");
    let url = format!("http://x/containers/loud/kill?signal=WINCH&number=[1-{count}]");
    let words = [
        "-sf",
        "--unix-socket",
        socket.to_str().expect("a path in UTF-8"),
        "-X",
        "POST",
        "-o",
        "/dev/null",
        &url,
    ];
    host.inside("curl", words).ok();
}

#[test]
fn who_stops_reading_is_let_go_and_the_others_are_served() {
    let host = Underlay::new().host();
    host.start(&["--reader-patience", "2s"]);
    host.load(Image::Busybox);
    let print = format!(
        "mkfifo /go; echo ready; read -r go < /go; yes {} | head -c {PRINTED}; echo; echo the end; sleep 1000",
        "0123456789".repeat(20)
    );
    host.ok(["run", "-d", "--name", "loud", "busybox", "sh", "-c", &print]);
    let mut good_events = host.spawn("events --filter type=daemon");
    let mut stuck_events = host.spawn("events --filter type=container");
    let left_events = host.docker_client("events");
    let mut left_events = Spawned::new(left_events, None);
    // Of so much only what is looked for.
    let nuncio = env!("CARGO_BIN_EXE_nuncio");
    let good_logs = format!(
        "{nuncio} -H {} logs -f loud | grep --line-buffered -e ready -e 'the end'",
        host.url()
    );
    let mut good_logs = host.spawn_inside("sh", ["-c", &good_logs]);
    let mut stuck_logs = host.spawn("logs -f loud");
    let mut docker_logs = host.spawn_docker("logs -f loud");
    wait_until("all listen", || {
        make_events(&host, 1);
        stuck_events.says("container kill") && left_events.says("container kill")
    });
    for client in [&mut good_logs, &mut stuck_logs, &mut docker_logs] {
        client.until("ready");
    }
    let before = memory(&host);
    for client in [&stuck_events, &left_events, &stuck_logs, &docker_logs] {
        signal(client, Signal::SIGSTOP);
    }
    make_events(&host, EVENTS);
    host.ok(["exec", "loud", "sh", "-c", "echo go > /go"]);
    good_logs.until("the end");
    wait_until("all four are let go", || {
        good_events.output().matches("reader_dropped").count() == 4
    });
    let told = good_events.output();
    for what in [
        "name=events",
        "name=logs of loud",
        "nothing was read for 2s",
        "\"uid\":0",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let grown = memory(&host).saturating_sub(before);
    assert!(
        grown < 16 << 10,
        "{grown} KiB for four readers that do not read"
    );

    // Who reads on is told what waited, and why there is no more.
    for client in [&stuck_events, &stuck_logs, &docker_logs] {
        signal(client, Signal::SIGCONT);
    }
    for client in [stuck_events, stuck_logs, docker_logs] {
        let finished = client.finish();
        assert_eq!(finished.code, 1, "{}", finished.stderr);
        assert!(
            finished.stderr.contains("nothing was read for 2s"),
            "{}",
            finished.stderr
        );
    }
    wait_until("who never reads is cut off", || {
        host.log().contains("has read nothing since")
    });
    signal(&left_events, Signal::SIGCONT);
    left_events.finish();
    assert_eq!(host.ok("exec loud echo served"), "served");
}
