//! What happens on all hosts, asked from any: who is told, in which order, and who does not hold up the others.

use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Finished, Host, Image, Underlay, cluster, wait_until};
use crate::{found, join, papers};

/// The port of the other hosts' questions.
const PORT: u16 = 51822;
/// Prints what is written to `/says`.
const ECHO: &str = "mkfifo /says; while read -r line < /says; do echo $line; done";

fn mesh(images: &[Image]) -> [Host; 3] {
    let underlay = Underlay::new();
    let hosts: [Host; 3] = std::array::from_fn(|_| underlay.host());
    let [a, b, c] = &hosts;
    let token = found(a, "");
    join(b, &token, a);
    join(c, &token, a);
    for host in &hosts {
        for image in images {
            host.load(*image);
        }
        wait_until("it knows all", || {
            host.ok("node ls -q").lines().count() == 3
        });
    }
    hosts
}

fn echo(host: &Host, name: &str, flags: &[&str]) {
    let run = ["run", "-d", "--name", name, "--label", "app=shop"];
    host.ok(&*[&run[..], flags, &["busybox", "sh", "-c", ECHO]].concat());
}

fn say(host: &Host, name: &str, line: &str) {
    host.ok([
        "exec",
        name,
        "sh",
        "-c",
        &format!("until [ -p /says ]; do :; done; echo {line} > /says"),
    ]);
}

fn signal(host: &Host, signal: Signal) {
    let pid = i32::try_from(host.daemon_pid()).expect("a pid");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// Lines of standard output.
fn lines(finished: Finished) -> Vec<String> {
    finished.ok().lines().map(str::to_owned).collect()
}

#[test]
fn all_hosts_are_seen_from_any_and_one_that_is_stuck_holds_up_nobody() {
    let [a, b, c] = mesh(&[Image::Busybox]);
    // One after the other, so that there is an order.
    for (host, word) in [(&a, "first"), (&b, "second"), (&a, "third"), (&c, "fourth")] {
        let run = ["run", "--name", word, "--label", "app=list", "busybox"];
        host.ok(&*[&run[..], &["echo", word]].concat());
    }
    echo(&b, "db", &["--expose", "80"]);
    echo(&a, "web", &["--link", "db:store"]);

    // In order, of all hosts, by a filter and by names.
    for host in [&a, &c] {
        let told = lines(host.nuncio("logs --all-nodes --filter label=app=list"));
        let expected = [
            "first   | first",
            "second  | second",
            "third   | third",
            "fourth  | fourth",
        ];
        assert_eq!(told, expected);
    }
    let told = lines(c.nuncio("logs --all-nodes -t --no-log-prefix fourth second"));
    assert!(told.is_sorted() && told.len() == 2, "{told:?}");
    assert!(told[0].ends_with("Z second"), "{told:?}");
    let tail = lines(c.nuncio("logs --all-nodes --tail 0 second third"));
    assert!(tail.is_empty(), "{tail:?}");
    let nobody = c.nuncio("logs --all-nodes first nobody").refused(1);
    assert!(nobody.contains("No such container: nobody"), "{nobody}");
    let here = c.nuncio("logs first second").refused(1);
    assert!(here.contains("No such container: first"), "{here}");
    let wrong = c.nuncio("logs --all-nodes --filter colour=red").refused(1);
    assert!(wrong.contains("invalid filter 'colour'"), "{wrong}");
    let none = c.nuncio("logs --link web:cache").refused(1);
    assert!(none.contains("web has no link cache"), "{none}");

    // Both ends of a link, as they print.
    let mut follower = c.spawn("logs -f --link web:store");
    say(&a, "web", "asks");
    follower.until("web  | asks");
    say(&b, "db", "answers");
    follower.until("db   | answers");

    let stats = [
        "stats",
        "--all-nodes",
        "--no-stream",
        "--format",
        "{{.Node}} {{.Name}} {{.PIDs}}",
    ];
    let mut told = lines(c.nuncio(stats));
    told.sort();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("host-1 web ") && told[1].starts_with("host-2 db "),
        "{told:?}"
    );
    let one = c.ok([
        "stats",
        "--all-nodes",
        "--no-stream",
        "--format",
        "{{.Node}}",
        "db",
    ]);
    assert_eq!(one, "host-2");
    let wrong = c.nuncio("stats --all-nodes --no-stream nobody").refused(1);
    assert!(wrong.contains("No such container: nobody"), "{wrong}");
    let mut watcher = c.spawn(["stats", "--all-nodes", "--format", "{{.Node}} {{.Name}}"]);
    watcher.until("host-1 web");
    watcher.until("host-2 db");

    let events =
        "events --all-nodes --since 1h --until 0s --filter event=start --filter label=app=list";
    let format = ["--format", "{{.Node}} {{.Actor.Attributes.name}}"];
    let words: Vec<&str> = events.split(' ').chain(format).collect();
    let expected = [
        "host-1 first",
        "host-2 second",
        "host-1 third",
        "host-3 fourth",
    ];
    assert_eq!(lines(c.nuncio(&words[..])), expected);
    let wrong = c
        .nuncio("events --all-nodes --filter colour=red")
        .refused(1);
    assert!(wrong.contains("invalid filter 'colour'"), "{wrong}");
    let story = c.ok("events --all-nodes --explain db");
    let at_home = story.find("host-2: db was started");
    assert!(at_home.is_some(), "{story}");
    assert!(
        story.contains("host-3: db came up in network bridge"),
        "{story}"
    );
    let mut listener = c.spawn("events --all-nodes --filter type=container");
    wait_until("it hears", || {
        b.ok("exec db true");
        listener.says("host-2  | ")
    });

    // A daemon that stands still, and one that is dead.
    signal(&b, Signal::SIGSTOP);
    let finished = c.nuncio(stats);
    assert!(
        finished.stderr.contains("host host-2: not reached within"),
        "{finished:?}"
    );
    assert!(finished.stdout.contains("host-1 web"), "{finished:?}");
    assert_eq!(finished.code, 0);
    let finished = c.nuncio("logs --all-nodes --filter label=app=list");
    assert!(finished.stderr.contains("host host-2:"), "{finished:?}");
    assert_eq!(finished.stdout.lines().count(), 3, "{finished:?}");
    say(&a, "web", "still");
    follower.until("web  | still");
    signal(&b, Signal::SIGCONT);
    wait_until("it is told of again", || {
        c.nuncio(stats).stdout.contains("host-2 db")
    });
    b.kill_daemon();
    let finished = c.nuncio(events);
    assert!(finished.stderr.contains("host host-2:"), "{finished:?}");
    assert_eq!(finished.stdout.lines().count(), 3, "{finished:?}");
    b.start_again();
    wait_until("it is told of again", || {
        c.nuncio(stats).stdout.contains("host-2 db")
    });
    watcher.until("host-2 db");
}

/// What the port answers to a request of `client`, who shows a certificate or none.
fn asks(client: &Host, server: &Host, identity: Option<&str>, alpn: &str, request: &str) -> String {
    let mut command = client.command("timeout");
    let address = format!("{}:{PORT}", server.address);
    command.args([
        "10", "openssl", "s_client", "-quiet", "-alpn", alpn, "-connect", &address,
    ]);
    if let Some(identity) = identity {
        command.args(["-cert", identity, "-key", identity]);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("run openssl");
    let mut input = child.stdin.take().expect("a pipe");
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let _ = input.write_all(request.as_bytes()); // it may have been refused already
    let output = child.wait_with_output().expect("its output");
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn members_alone_are_told_and_change_nothing() {
    let [a, b, c] = mesh(&[Image::Busybox]);
    echo(&a, "web", &["-e", "SECRET=of-the-environment"]);
    let ann = a.scratch().join("ann");
    a.ok(&format!("cert create --client ann -o {}", ann.display()));
    let operator = ann.join("both.pem");
    let both = ["cert.pem", "key.pem"].map(|name| std::fs::read(ann.join(name)).expect("a file"));
    std::fs::write(&operator, both.concat()).expect("write");
    let operator = operator.to_str().expect("a path in UTF-8");
    let member = papers(&b).join("node.pem");
    let member = member.to_str().expect("a path in UTF-8");

    let list = "GET /containers/json";
    let told = asks(&b, &a, Some(member), "nuncio-peek/1", list);
    assert!(
        told.starts_with("HTTP/1.1 200") && told.contains("/web"),
        "{told}"
    );
    for (identity, alpn) in [
        (None, "nuncio-peek/1"),
        (Some(operator), "nuncio-peek/1"),
        (Some(member), "http/1.1"),
    ] {
        let told = asks(&b, &a, identity, alpn, list);
        assert!(told.is_empty(), "{identity:?} {alpn}: {told}");
    }
    let url = format!("http://{}:{PORT}/containers/json", a.address);
    let plain = b.inside("curl", ["-s", "--max-time", "5", &url]);
    assert!(plain.code != 0 && plain.stdout.is_empty(), "{plain:?}");
    for request in [
        "GET /containers/web/json",
        "GET /info",
        "DELETE /containers/web",
        "POST /containers/web/stop",
        "POST /containers/create",
        "GET /nuncio/v1/tokens",
        "GET /nuncio/v1/nodes/host-1/peek/containers/json",
    ] {
        let told = asks(&b, &a, Some(member), "nuncio-peek/1", request);
        assert!(told.starts_with("HTTP/1.1 404"), "{request}: {told}");
    }
    assert_eq!(a.ok("inspect -f {{.State.Running}} web"), "true");

    // Who is removed hears no more, neither anew nor of what it listens to.
    let mut listener = b.spawn("events --all-nodes --filter container=web");
    wait_until("it hears", || {
        a.ok("exec web true");
        listener.says("host-1  | ")
    });
    a.ok("node rm host-2");
    wait_until("it is refused", || {
        asks(&b, &a, Some(member), "nuncio-peek/1", list).is_empty()
    });
    wait_until("what it listened to is cut", || {
        a.ok("exec web true");
        a.log().contains("is not in the mesh any more")
    });
    let left = c.ok("stats --all-nodes --no-stream --format {{.Node}}");
    assert_eq!(left, "host-1");

    // A host that tells nothing says so to who asks.
    c.stop_daemon();
    c.start(&["--peek-port", "0"]);
    wait_until("its record says so", || {
        a.nuncio("events --all-nodes --since 1s --until 0s")
            .stderr
            .contains("--peek-port 0")
    });
}

#[test]
fn without_a_mesh_nobody_is_told_unless_an_operator_says_so() {
    let [a, b] = cluster(&[Image::Busybox]);
    for host in [&a, &b] {
        host.ok("run -d busybox sleep 1000");
    }
    let stats = "stats --all-nodes --no-stream --format {{.Node}}";
    let told = b.nuncio(stats);
    assert!(told.stderr.contains("`nuncio init`"), "{told:?}");
    assert_eq!((told.code, told.stdout.trim()), (0, "host-2"));
    a.stop_daemon();
    a.start(&["--registry", "embedded", "--insecure-peek"]);
    wait_until("b knows, and would have to want it too", || {
        b.nuncio(stats)
            .stderr
            .contains("start this daemon with --insecure-peek too")
    });
    b.stop_daemon();
    b.start(&["--registry", &a.registry_url(), "--insecure-peek"]);
    wait_until("each is told", || {
        let told = [&a, &b].map(|host| host.nuncio(stats).stdout.lines().count());
        told == [2, 2]
    });
    assert!(a.log().contains("everybody who reaches it reads"));
}
