//! Services: containers on several hosts under one name, reached without anything in between.

#[path = "services/peers.rs"]
mod peers;
#[path = "services/registered.rs"]
mod registered;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use support::{Host, Image, Underlay, cluster, single, wait_until};

/// Runs a member of the service `echo`, which says over TCP and UDP its name, and whom it believes to talk to.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &str) {
    let script = format!(
        "socat UDP4-RECVFROM:5300,fork SYSTEM:'echo {name} $SOCAT_PEERADDR; cat >/dev/null' & \
         exec socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo {name} $SOCAT_PEERADDR'"
    );
    let words = format!("run -d --name {name} --expose 80 --expose 5300/udp {flags} busybox");
    let words: Vec<&str> = words
        .split_whitespace()
        .chain(["sh", "-c", &script])
        .collect();
    host.ok(&*words);
    wait_until("it listens", || {
        let listens = "netstat -ltn | grep -q :80 && netstat -lun | grep -q :5300";
        host.nuncio(["exec", name, "sh", "-c", listens]).code == 0
    });
}

const OF_ECHO: &str = "--network mesh --label nuncio.service=echo";
const ASK: &str = "socat -u TCP4:echo:80,connect-timeout=5 -";
const ASK_UDP: &str =
    "socat -t 0 -T 5 UDP4-SENDTO:echo:5300 SYSTEM:'echo ping; read line; echo $line >&2' 2>&1";

/// What is answered to a shell's `command`, a line each, when a process of `container` runs it `times`.
fn answers(host: &Host, container: &str, command: &str, times: usize) -> Vec<(String, String)> {
    let script = format!("for i in $(seq {times}); do {command}; done");
    let said = host.nuncio(["exec", container, "sh", "-c", &script]).stdout;
    let pair = |line: &str| {
        let (name, peer) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), peer.to_owned())
    };
    said.lines().map(pair).collect()
}

fn names(answers: &[(String, String)]) -> BTreeSet<&str> {
    answers.iter().map(|(name, _)| name.as_str()).collect()
}

/// Asks until `times` in a row are answered, and by all of `expected` alone. Returns whom they believed to talk to.
#[track_caller]
fn ask_until(host: &Host, from: &str, command: &str, expected: &[&str]) -> BTreeSet<String> {
    let times = 10;
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let mut peers = BTreeSet::new();
    wait_until(&format!("{expected:?} answer {from}"), || {
        let answers = answers(host, from, command, times);
        peers = answers.iter().map(|(_, peer)| peer.clone()).collect();
        answers.len() == times && names(&answers) == expected
    });
    peers
}

fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    host.ok(["inspect", "-f", &format, container])
}

/// The addresses that a container resolves a name to.
fn resolve(host: &Host, container: &str, name: &str) -> BTreeSet<String> {
    let said = host
        .nuncio(["exec", container, "nslookup", "-type=a", name])
        .stdout;
    let answer = said.lines().skip_while(|line| !line.starts_with("Name:"));
    let addresses = answer.filter_map(|line| line.strip_prefix("Address:"));
    addresses.map(|address| address.trim().to_owned()).collect()
}

fn only(peer: &str) -> BTreeSet<String> {
    BTreeSet::from([peer.to_owned()])
}

#[test]
fn connections_go_straight_to_the_members() {
    let [a, b, c] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    serve(&a, "one", &format!("{OF_ECHO} -p 80:80"));
    serve(&b, "two", OF_ECHO);
    c.ok("run -d --name client --network mesh busybox sleep 1000");
    let client = address(&c, "client", "mesh");

    // Nothing is in between: the servers see the client itself.
    assert_eq!(ask_until(&c, "client", ASK, &["one", "two"]), only(&client));
    assert_eq!(c.ok("flows --format {{.ID}}"), "");
    let explained = c.ok("explain echo");
    assert!(explained.contains("from 1 cgroup"), "{explained}");
    // So it is for a container's first process, and for one that shares another's network.
    let script = format!("hostname -i; {ASK}");
    let first = c.ok([
        "run",
        "--rm",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        &script,
    ]);
    let (own, answer) = first.split_once('\n').expect("two lines");
    assert_eq!(answer.split_once(' ').map(|(_, peer)| peer), Some(own));
    let shared = format!("run --rm --network container:client busybox {ASK}");
    assert!(c.ok(&shared).ends_with(&client));
    // And for the members themselves, each of which may be led to itself.
    let one = address(&a, "one", "mesh");
    assert_eq!(ask_until(&a, "one", ASK, &["one", "two"]), only(&one));

    // Who stops is not chosen any more, and who comes back is.
    b.ok("stop -t 1 two");
    assert_eq!(ask_until(&c, "client", ASK, &["one"]), only(&client));
    b.ok("start two");
    assert_eq!(ask_until(&c, "client", ASK, &["one", "two"]), only(&client));
    // A published port of the same number is another thing.
    assert!(c.reads(&a.address.to_string(), 80).starts_with("one "));
    assert!(a.reads("127.0.0.1", 80).starts_with("one "));
}

#[test]
fn datagrams_go_straight_and_come_back_from_the_service() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    serve(&a, "one", OF_ECHO);
    serve(&b, "two", OF_ECHO);
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    let client = address(&b, "client", "mesh");
    // socat takes nothing but what comes from the address it has sent to.
    assert_eq!(
        ask_until(&b, "client", ASK_UDP, &["one", "two"]),
        only(&client)
    );
    let connected = ASK_UDP.replace("UDP4-SENDTO", "UDP4");
    assert_eq!(
        ask_until(&b, "client", &connected, &["one", "two"]),
        only(&client)
    );
    assert_eq!(b.ok("flows --format {{.ID}}"), "");
    a.ok("rm -f one");
    assert_eq!(ask_until(&b, "client", ASK_UDP, &["two"]), only(&client));
}

#[test]
fn a_service_has_a_name_and_its_members_too() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    // Its own name is the service's: that goes first.
    serve(&a, "echo", OF_ECHO);
    serve(&b, "two", OF_ECHO);
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    let members = BTreeSet::from([address(&a, "echo", "mesh"), address(&b, "two", "mesh")]);
    wait_until("both are known", || {
        resolve(&b, "client", "tasks.echo") == members
    });
    let found = resolve(&b, "client", "echo");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.is_disjoint(&members));
    assert_eq!(resolve(&b, "client", "Echo.mesh"), found);
    assert_eq!(
        resolve(&b, "client", "two"),
        only(&address(&b, "two", "mesh"))
    );
    let id = a.ok("inspect -f {{.Id}} echo");
    assert_eq!(
        resolve(&b, "client", &id[..12]),
        only(&address(&a, "echo", "mesh"))
    );

    // The address outlives the daemon, and the members outlive neither themselves nor the service.
    b.kill_daemon();
    b.start_again();
    assert_eq!(resolve(&b, "client", "echo"), found);
    a.ok("rm -f echo");
    b.ok("rm -f two");
    wait_until("the name is gone", || {
        resolve(&b, "client", "echo").is_empty()
    });
    let addresses = b.ip("-4 -o address show");
    let gone = found.first().expect("an address");
    assert!(!addresses.contains(&format!("{gone}/")), "{addresses}");
}

#[test]
fn a_bridge_of_one_host_has_services() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    serve(&host, "one", OF_ECHO);
    serve(&host, "two", OF_ECHO);
    host.ok("run -d --name client --network mesh busybox sleep 1000");
    let client = address(&host, "client", "mesh");
    assert_eq!(
        ask_until(&host, "client", ASK, &["one", "two"]),
        only(&client)
    );
    host.ok("stop -t 1 one");
    // Known at once, since nobody else has to hear of it.
    let after = answers(&host, "client", ASK, 20);
    assert!(
        after.len() == 20 && names(&after) == BTreeSet::from(["two"]),
        "{after:?}"
    );
}

#[test]
fn without_the_rewrite_services_are_relayed_and_say_so() {
    let underlay = Underlay::new();
    let [a, b] = [underlay.host(), underlay.host()];
    a.start(&["--registry", "embedded", "--no-direct"]);
    b.start(&["--registry", &a.registry_url(), "--no-direct"]);
    [&a, &b].iter().for_each(|host| host.load(Image::Busybox));
    a.ok("network create -d overlay mesh");
    serve(&a, "one", OF_ECHO);
    serve(&b, "two", OF_ECHO);
    let gateway = |host: &Host| {
        let format = "{{.NetworkSettings.Networks.mesh.Gateway}}";
        host.ok([
            "inspect",
            "-f",
            format,
            if host.address == a.address {
                "one"
            } else {
                "two"
            },
        ])
    };
    let via_b = ask_until(&b, "two", ASK, &["one", "two"]);
    assert_eq!(via_b, only(&gateway(&b)));
    let via_a = ask_until(&a, "one", ASK_UDP, &["one", "two"]);
    assert_eq!(via_a, only(&gateway(&a)));
    let flows = a.ok("flows --forward service/mesh/echo/5300/udp");
    assert!(flows.contains("started with --no-direct"), "{flows}");
    let explained = a.ok("explain echo");
    assert!(
        explained.contains("no: the daemon was started with --no-direct"),
        "{explained}"
    );
}

#[test]
fn links_say_why_they_are_relayed() {
    let [a, b] = cluster(&[Image::Busybox]);
    serve(&a, "far", "");
    b.ok("run -d --name near --link far busybox sleep 1000");
    let answer = answers(&b, "near", &ASK_UDP.replace("echo:", "far:"), 1);
    assert_eq!(names(&answer), BTreeSet::from(["far"]));
    let flows = b.ok("flows");
    assert!(flows.contains("admits the gateway of this host"), "{flows}");
    // Also from a socket elsewhere, as the daemon knows where its ambassador is.
    let elsewhere = b.scratch().join("elsewhere.sock");
    std::os::unix::fs::symlink(b.exec_root().join("nuncio.sock"), &elsewhere).expect("link");
    let host = format!("unix://{}", elsewhere.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_nuncio"));
    let explained = command
        .args(["-H", &host, "explain", "far"])
        .output()
        .expect("run it");
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.contains("link/far/80/tcp"), "{explained:?}");
}

#[test]
fn services_go_on_without_daemons() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    serve(&a, "one", OF_ECHO);
    serve(&b, "two", OF_ECHO);
    let script = format!("while :; do {ASK} || echo lost; sleep 0.05; done");
    let id = b.ok([
        "run",
        "-d",
        "--name",
        "client",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        &script,
    ]);
    let client = address(&b, "client", "mesh");
    let log = b.data_root().join(format!("containers/{id}/{id}-json.log"));
    let logged = || fs::read_to_string(&log).unwrap_or_default();
    let wait_for_more = |more: usize| {
        let wanted = logged().lines().count() + more;
        wait_until("it goes on", || logged().lines().count() >= wanted);
    };
    wait_for_more(5);
    a.kill_daemon();
    b.kill_daemon();
    wait_for_more(30);
    a.start_again();
    b.start_again();
    wait_for_more(30);
    let logged = b.ok("logs client");
    let (lost, said): (Vec<&str>, Vec<&str>) = logged.lines().partition(|line| *line == "lost");
    assert!(lost.is_empty(), "{logged}");
    assert!(
        said.iter().all(|line| line.ends_with(&client)),
        "{client}: {logged}"
    );
    assert!(said.iter().any(|line| line.starts_with("one")), "{logged}");
}

#[test]
fn a_member_that_is_to_end_or_does_not_listen_is_left_out() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    serve(&a, "one", OF_ECHO);
    // It goes on when it is told to end, and listens only when it may.
    let script = "trap '' TERM; while [ ! -e /go ]; do sleep 0.05; done; \
                  socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo two $SOCAT_PEERADDR' & wait";
    let flags =
        format!("run -d --name two --expose 80 --label nuncio.service.check=tcp {OF_ECHO} busybox");
    let words: Vec<&str> = flags
        .split_whitespace()
        .chain(["sh", "-c", script])
        .collect();
    b.ok(&*words);
    ask_until(&b, "client", ASK, &["one"]);
    b.ok("exec two touch /go");
    ask_until(&b, "client", ASK, &["one", "two"]);
    let mut stop = b.spawn("stop -t 600 two");
    ask_until(&b, "client", ASK, &["one"]);
    assert!(stop.runs(), "it has not ended");
    assert_eq!(b.ok("inspect -f {{.State.Running}} two"), "true");
    b.ok("kill two");
    assert_eq!(stop.finish().ok(), "two");
}

#[test]
fn an_ambassador_that_was_killed_is_replaced_and_spares_containers_again() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    serve(&host, "one", OF_ECHO);
    host.ok("run -d --name client --network mesh busybox sleep 1000");
    let client = address(&host, "client", "mesh");
    assert_eq!(ask_until(&host, "client", ASK, &["one"]), only(&client));
    let log = host.log();
    let started = log
        .lines()
        .find(|line| line.contains("started the host's ambassador"));
    let pid = started.and_then(|line| line.rsplit_once("pid=")?.1.parse().ok());
    let pid = nix::unistd::Pid::from_raw(pid.expect("its number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill it");
    wait_until("connections go straight again", || {
        let answers = answers(&host, "client", ASK, 5);
        answers.len() == 5 && answers.iter().all(|(_, peer)| *peer == client)
    });
}

#[test]
fn what_names_no_service_is_refused() {
    let host = single(&[Image::Busybox]);
    let refusal = host
        .nuncio([
            "run",
            "--rm",
            "--label",
            "nuncio.service=a/b",
            "busybox",
            "true",
        ])
        .refused(125);
    assert!(
        refusal.contains("invalid service name \"a/b\""),
        "{refusal}"
    );
    let lost = host.nuncio("run --rm --label nuncio.service=echo busybox true");
    assert_eq!(lost.code, 0);
    assert!(
        lost.stderr
            .contains("services are on user-defined networks"),
        "{lost:?}"
    );
}
