//! Containers on one host, as a user meets them on the command line.

mod support;

use std::process::Command;

use support::{Image, Spawned, Underlay, single, tool, wait_until};

#[test]
fn the_exit_status_is_the_containers() {
    let host = single(&[Image::Busybox]);
    assert_eq!(host.nuncio("run --rm busybox true").code, 0);
    assert_eq!(host.nuncio("run --rm busybox false").code, 1);
    assert_eq!(
        host.nuncio(["run", "--rm", "busybox", "sh", "-c", "exit 42"])
            .code,
        42
    );
    let id = host.ok("run -d busybox sleep 1000");
    host.ok(["kill", &id]);
    assert_eq!(host.ok(["wait", &id]), "137");
    host.ok(["rm", &id]);
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn streams_stay_apart_and_input_arrives_whole() {
    let host = single(&[Image::Busybox]);
    let both = host.nuncio([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ]);
    assert_eq!(
        (both.stdout.as_str(), both.stderr.as_str()),
        ("out\n", "err\n")
    );

    let megabyte = vec![b'x'; 1 << 20];
    let counted = host.nuncio_with(&megabyte, "run -i --rm busybox wc -c");
    assert_eq!(counted.ok(), megabyte.len().to_string());
    // Without -i nothing is read.
    assert_eq!(
        host.nuncio_with(b"ignored", "run --rm busybox wc -c").ok(),
        "0"
    );
}

#[test]
fn a_terminal_is_one() {
    let host = single(&[Image::Busybox]);
    let client = host.client([
        "run",
        "-it",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "tty; stty size",
    ]);
    let words: Vec<String> = std::iter::once(client.get_program())
        .chain(client.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new(tool("script"));
    script.args([
        "-qec",
        &format!("stty rows 33 cols 77; {}", words.join(" ")),
        "/dev/null",
    ]);
    let shown = Spawned::new(script, None).finish().ok();
    assert!(
        shown.contains("/dev/pts/") || shown.contains("/dev/console"),
        "{shown:?}"
    );
    assert!(shown.contains("33 77"), "{shown:?}");
    let refused = host.nuncio("run -it --rm busybox true").refused(1);
    assert!(refused.contains("TTY"), "{refused}");
}

#[test]
fn environment_user_directory_and_entrypoint() {
    let host = single(&[Image::Busybox]);
    let text = host.ok([
        "run",
        "--rm",
        "-e",
        "COLOUR=green",
        "-e",
        "EMPTY=",
        "busybox",
        "sh",
        "-c",
        "echo $COLOUR-$EMPTY-$PATH",
    ]);
    assert!(text.starts_with("green--/usr/local/sbin:"), "{text}");
    assert_eq!(host.ok("run --rm -u 65534:1234 busybox id -u"), "65534");
    assert_eq!(host.ok("run --rm -u nobody busybox id -un"), "nobody");
    assert_eq!(host.ok("run --rm -w /new/place busybox pwd"), "/new/place");
    assert_eq!(host.ok("run --rm -h web busybox hostname"), "web");
    assert_eq!(
        host.ok("run --rm --entrypoint echo busybox one two"),
        "one two"
    );
}

#[test]
fn the_first_process_is_confined() {
    let host = single(&[Image::Busybox]);
    let run = |script: &str| host.nuncio(["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(run("echo $$").ok(), "1");
    assert_ne!(run("echo 1 > /proc/sys/kernel/sysrq").code, 0);
    assert_ne!(run("mount -t tmpfs none /mnt").code, 0);
    assert_ne!(run("mknod /dev/sda b 8 0 && cat /dev/sda").code, 0);
    assert_eq!(run("cat /proc/keys | wc -c").ok(), "0");
    assert_eq!(
        run("grep Seccomp: /proc/self/status | tr -d '\\t '").ok(),
        "Seccomp:2"
    );
    assert_eq!(
        run("grep CapEff /proc/self/status | cut -f2").ok(),
        "00000000a80425fb"
    );
    host.ok("run -d --name box busybox sleep 1000");
    let inside = host.ok([
        "exec",
        "box",
        "sh",
        "-c",
        "grep -E 'Seccomp:|CapEff' /proc/self/status | tr -d '\\t '",
    ]);
    assert_eq!(inside, "CapEff:00000000a80425fb\nSeccomp:2");
}

#[test]
fn limits_hold() {
    let host = single(&[Image::Busybox]);
    let eater = host.nuncio([
        "run",
        "--rm",
        "-m",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail -c 64m /dev/zero | wc -c; echo survived",
    ]);
    assert!(!eater.stdout.contains("67108864"), "{eater:?}");
    let forks = host.nuncio([
        "run",
        "--rm",
        "--pids-limit",
        "10",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; echo all",
    ]);
    assert!(
        !forks.stdout.contains("all") || forks.stderr.contains("fork"),
        "{forks:?}"
    );
}

#[test]
fn init_reaps_and_forwards_signals() {
    let host = single(&[Image::Busybox]);
    let id = host.ok([
        "run",
        "-d",
        "--init",
        "busybox",
        "sh",
        "-c",
        "(sleep 0.1 &) ; exec sleep 1000",
    ]);
    wait_until("the orphan is reaped", || {
        !host
            .ok(["exec", &id, "ps"])
            .lines()
            .any(|line| line.ends_with(" sleep 0.1") || line.contains("[sleep]"))
    });
    host.ok(["stop", "-t", "15", &id]);
    assert_eq!(
        host.ok(["inspect", "-f", "{{.State.ExitCode}}", &id]),
        "143"
    );
}

#[test]
fn a_life_from_run_to_rm() {
    let host = single(&[Image::Busybox]);
    let script = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.05; done";
    let id = host.ok(["run", "-d", "--name", "web", "busybox", "sh", "-c", script]);
    assert_eq!(id.len(), 64);
    wait_until("it says hello", || host.ok("logs web") == "hello");
    assert_eq!(host.ok("ps --format {{.Names}}"), "web");
    assert_eq!(host.ok("inspect -f {{.State.Running}} web"), "true");

    host.ok("stop web");
    assert_eq!(host.ok("ps -q"), "");
    assert_eq!(host.ok("ps -aq --no-trunc"), id);
    assert_eq!(host.ok("inspect -f {{.State.ExitCode}} web"), "3");
    assert_eq!(host.ok("logs web"), "hello\nbye");

    host.ok("start web");
    wait_until("it says hello again", || {
        host.ok("logs web") == "hello\nbye\nhello"
    });
    host.ok("kill web");
    assert_eq!(host.ok("wait web"), "137");
    host.ok("start web");
    host.nuncio("rm web").refused(1);
    host.ok("rm -f web");
    assert_eq!(host.ok("ps -aq"), "");
}

#[test]
fn exec_has_its_own_streams_and_status() {
    let host = single(&[Image::Busybox]);
    host.ok("run -d --name box -e COLOUR=green busybox sleep 1000");
    assert_eq!(
        host.ok(["exec", "box", "sh", "-c", "echo $COLOUR"]),
        "green"
    );
    assert_eq!(
        host.ok([
            "exec",
            "-e",
            "COLOUR=red",
            "-w",
            "/tmp",
            "box",
            "sh",
            "-c",
            "echo $COLOUR $PWD"
        ]),
        "red /tmp"
    );
    assert_eq!(host.nuncio_with(b"abc", "exec -i box wc -c").ok(), "3");
    assert_eq!(host.nuncio(["exec", "box", "sh", "-c", "exit 9"]).code, 9);
    host.ok(["exec", "-d", "box", "touch", "/made"]);
    wait_until("a detached exec runs", || {
        host.nuncio("exec box test -e /made").code == 0
    });
    assert_eq!(host.nuncio("exec box nosuch").code, 127);
}

#[test]
fn logs_follow_until_the_end() {
    let host = single(&[Image::Busybox]);
    host.ok([
        "run",
        "-d",
        "--name",
        "talker",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4; do echo line $i; sleep 0.2; done",
    ]);
    let mut follower = host.spawn("logs -f talker");
    follower.until("line 1");
    assert_eq!(follower.finish().ok(), "line 1\nline 2\nline 3\nline 4");
    assert_eq!(host.ok("logs --tail 1 talker"), "line 4");
}

#[test]
fn without_icc_a_link_opens_what_is_exposed() {
    let host = Underlay::new().host();
    host.start(&["--registry", "embedded", "--icc=false"]);
    host.load(Image::Busybox);
    let serve =
        "for port in 80 81; do (while :; do echo $port | nc -l -p $port; done) & done; wait";
    host.ok([
        "run", "-d", "--name", "web", "--expose", "80", "busybox", "sh", "-c", serve,
    ]);
    let reach = |link: &[&str], name: &str, port: u16| {
        let fetch = format!("nc -w 1 {name} {port} </dev/null");
        let words = ["run", "--rm"].iter().chain(link).copied();
        let words: Vec<&str> = words.chain(["busybox", "sh", "-c", &fetch]).collect();
        host.nuncio(&words[..]).stdout.trim().to_owned()
    };
    let address = host.ok("inspect -f {{.NetworkSettings.IPAddress}} web");
    wait_until("it serves", || host.reads(&address, 81) == "81");
    assert_eq!(reach(&[], &address, 80), "");
    assert_eq!(reach(&["--link", "web:w"], "w", 80), "80");
    assert_eq!(reach(&["--link", "web:w"], "w", 81), "", "not exposed");
}

#[test]
fn ports_are_published() {
    let host = single(&[Image::Busybox]);
    let serve = "while :; do echo page | nc -l -p 80; done";
    host.ok([
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let other = host.underlay().host();
    let outside = host.address.to_string();
    for (from, address, port) in [
        (&other, &*outside, 8080),
        (&host, &outside, 8080),
        (&host, "127.0.0.1", 8080),
        (&host, "127.0.0.1", 8081),
    ] {
        wait_until("the page comes", || from.reads(address, port) == "page");
    }
    assert_eq!(other.reads(&outside, 8081), "");
    host.ok("rm -f web");
    assert_eq!(other.reads(&outside, 8080), "");
}
