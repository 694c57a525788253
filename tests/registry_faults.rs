//! What strikes a registry of three etcds, or a host of theirs, while containers talk.
//!
//! Whatever it is, no packet between containers is lost, names are told, containers start, and when it is over all agree
//! within seconds on what there is, once and no more.

#[path = "registry_faults/clocks.rs"]
mod clocks;
mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Etcds, Host, Image, Spawned, Underlay, pairs, wait_until};

/// How long all may take to agree after a fault. On a machine that does nothing else it is less than five seconds.
const AGREED: Duration = Duration::from_secs(20);
/// Longer than the lease of a host that says nothing.
const BEYOND_LEASE: Duration = Duration::from_secs(12);

/// Two hosts with containers that talk, and their registry.
struct Mesh {
    etcds: Etcds,
    a: Host,
    b: Host,
    asked: PathBuf,
    pinged: PathBuf,
    /// How many faults there have been.
    round: Cell<usize>,
    /// Whether the registry is the one that the first host embeds.
    embedded: Cell<bool>,
}

/// Which hosts do not reach the registry while a fault lasts.
#[derive(Clone, Copy, Default)]
struct Without {
    a: bool,
    b: bool,
}

impl Mesh {
    fn new(embedded: bool) -> Self {
        let underlay = Underlay::new();
        let [a, b] = std::array::from_fn(|_| underlay.host());
        let etcds = Etcds::start(&underlay, &[]);
        let urls = etcds.urls("http");
        let own = a.registry_url();
        for (host, place) in [(&a, "embedded"), (&b, own.as_str())] {
            host.start(&["--registry", if embedded { place } else { &urls }]);
            host.load(Image::Busybox);
        }
        a.ok("network create -d overlay mesh");
        let run = "run -d --network mesh --name";
        b.ok(&format!(
            "{run} echo busybox socat TCP4-LISTEN:80,fork,reuseaddr EXEC:cat"
        ));
        let address = b.ok("inspect -f {{.NetworkSettings.Networks.mesh.IPAddress}} echo");
        wait_until("the server listens", || {
            let listens = "netstat -ltn | grep -q :80";
            b.nuncio(["exec", "echo", "sh", "-c", listens]).code == 0
        });
        let ask =
            format!("(while true; do echo said; sleep 0.1; done) | nc {address} 80; echo over");
        let words: Vec<&str> = run
            .split(' ')
            .chain(["asker", "busybox", "sh", "-c", &ask])
            .collect();
        a.ok(&*words);
        a.ok(&format!("{run} pinger busybox ping -i 0.1 {address}"));
        a.ok(&format!("{run} looker busybox sleep 10000"));
        let log = |name: &str| a.ok(&format!("inspect -f {{{{.LogPath}}}} {name}")).into();
        let mesh = Self {
            asked: log("asker"),
            pinged: log("pinger"),
            etcds,
            a,
            b,
            round: Cell::new(0),
            embedded: Cell::new(embedded),
        };
        mesh.goes_on();
        mesh.await_agreement();
        mesh
    }

    /// Lets `begin` happen, and then `end`, and sees what that does to the two hosts.
    #[track_caller]
    fn endure(&self, fault: &str, without: Without, begin: impl FnOnce(), end: impl FnOnce()) {
        let round = self.round.replace(self.round.get() + 1);
        let run = |host: &Host, name: &str| {
            host.ok(&format!(
                "run -d --network mesh --name {name}-{round} busybox sleep 10000"
            ));
        };
        for (host, names) in [(&self.a, ["old-a"]), (&self.b, ["old-b"])] {
            names.iter().for_each(|name| run(host, name));
        }
        self.await_agreement();
        begin();
        for (host, away) in [(&self.a, without.a), (&self.b, without.b)] {
            if away {
                wait_until("what is known is marked as old", || is_stale(host));
            }
        }
        for (host, gone, new) in [(&self.a, "old-a", "new-a"), (&self.b, "old-b", "new-b")] {
            host.ok(&format!("rm -f {gone}-{round}"));
            run(host, new);
        }
        if !without.b || without.a {
            assert!(self.resolves("echo"), "{fault}: names are not told");
        }
        if !without.a && !without.b {
            wait_until("others hear of what starts meanwhile", || {
                self.resolves(&format!("new-b-{round}"))
            });
        }
        self.goes_on();
        end();
        let took = self.await_agreement();
        println!("{fault}: all agree after {took:?}");
        assert!(took < AGREED, "{fault}: {took:?}");
        assert!(self.resolves(&format!("new-b-{round}")), "{fault}");
        assert!(!self.resolves(&format!("old-b-{round}")), "{fault}");
        self.goes_on();
        self.nothing_was_lost();
        self.a.ok(&format!("rm -f new-a-{round}"));
        self.b.ok(&format!("rm -f new-b-{round}"));
    }

    /// Waits until twenty more answers have come by the same connection. No daemon is asked.
    #[track_caller]
    fn goes_on(&self) {
        let answers = || read(&self.asked).matches("said").count();
        let before = answers();
        wait_until("the flow goes on", || answers() >= before + 20);
    }

    /// That the one connection never ended, and each packet was answered.
    #[track_caller]
    fn nothing_was_lost(&self) {
        assert!(!read(&self.asked).contains("over"), "the connection ended");
        let log = read(&self.pinged);
        let answered: Vec<usize> = log
            .split("seq=")
            .skip(1)
            .filter_map(|rest| rest.split(' ').next()?.parse().ok())
            .collect();
        let first = answered.first().copied().unwrap_or_default();
        let gap = answered
            .iter()
            .zip(first..)
            .find(|(got, due)| **got != *due);
        assert_eq!(gap, None, "a packet was lost");
    }

    /// Whether a container on the first host is told where `name` is.
    fn resolves(&self, name: &str) -> bool {
        self.a.nuncio(["exec", "looker", "nslookup", name]).code == 0
    }

    /// What runs on the mesh, by name, according to the hosts themselves.
    fn running(&self) -> BTreeSet<String> {
        let list = "ps --filter network=mesh --format {{.Names}}";
        let names = [&self.a, &self.b].map(|host| host.ok(list));
        names
            .iter()
            .flat_map(|names| names.lines())
            .map(str::to_owned)
            .collect()
    }

    /// Waits until the registry has what runs and nothing else, and both hosts know that; how long that took.
    #[track_caller]
    fn await_agreement(&self) -> Duration {
        let began = Instant::now();
        let expected = self.running();
        wait_until("all agree", || {
            [&self.a, &self.b].iter().all(|host| !is_stale(host))
                && self.registered() == expected
                && [&self.a, &self.b]
                    .iter()
                    .all(|host| known(host) == expected)
        });
        began.elapsed()
    }

    /// The endpoints in the registry by name, each there once.
    #[track_caller]
    fn registered(&self) -> BTreeSet<String> {
        let endpoints = match self.embedded.get() {
            true => self.read_embedded("/nuncio/v1/endpoints/"),
            false => self.etcds.read("/nuncio/v1/endpoints/"),
        };
        let mut names = BTreeSet::new();
        for (key, value) in &endpoints {
            let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
            let name = value["name"].as_str().expect("a name").to_owned();
            assert!(names.insert(name), "{key} is there twice: {endpoints:#?}");
        }
        names
    }

    #[track_caller]
    fn read_embedded(&self, prefix: &str) -> BTreeMap<String, String> {
        let endpoint = format!("--endpoints={}", self.a.registry_url());
        let read = [
            "--dial-timeout=10s",
            "--command-timeout=30s",
            "get",
            "--prefix",
            prefix,
        ];
        let words: Vec<&str> = [&*endpoint].into_iter().chain(read).collect();
        pairs(&self.a.inside("etcdctl", &*words).ok())
    }

    /// Cuts the registry's traffic between the two sides.
    fn part(&self, one: &[&Host], other: &[&Host]) {
        let set = |hosts: &[&Host]| {
            let addresses: Vec<_> = hosts.iter().map(|host| host.address.to_string()).collect();
            format!("{{ {} }}", addresses.join(", "))
        };
        for (from, to) in [(one, other), (other, one)] {
            for port in ["sport", "dport"] {
                let (from, to) = (set(from), set(to));
                let what = format!("ip saddr {from} ip daddr {to} tcp {port} 2379-2380");
                self.a.underlay().block(&what);
            }
        }
    }

    fn unite(&self) {
        self.a.underlay().unblock();
    }

    fn members(&self) -> [&Host; 3] {
        [0, 1, 2].map(|place| &self.etcds.member(place).host)
    }

    /// A member that does not lead.
    fn follower(&self) -> usize {
        (self.etcds.leader() + 1) % 3
    }
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).expect("the log")
}

/// Whether a host says that it does not hear from the registry.
fn is_stale(host: &Host) -> bool {
    let warnings = host.ok(["info", "--format", "{{json .Warnings}}"]);
    warnings.contains("has not answered since")
}

/// The containers on the mesh that a host knows of, by name.
fn known(host: &Host) -> BTreeSet<String> {
    let list = "network inspect mesh --format {{range.Containers}}{{.Name}},{{end}}";
    let names = host.ok(list);
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn signal(host: &Host, signal: Signal) {
    kill(Pid::from_raw(host.daemon_pid().cast_signed()), signal).expect("signal the daemon");
}

const NOBODY: Without = Without { a: false, b: false };
const BOTH: Without = Without { a: true, b: true };
const ONLY_B: Without = Without { a: false, b: true };

#[test]
fn a_member_dies_stands_still_or_is_cut_off() {
    let mesh = Mesh::new(false);
    let kill_and_revive = |place: usize, fault: &str| {
        let member = mesh.etcds.member(place);
        let revive = || {
            mesh.etcds.start_member(place, "new", &[]);
            mesh.etcds.await_health();
        };
        mesh.endure(fault, NOBODY, || member.kill(), revive);
    };
    kill_and_revive(mesh.follower(), "a member is killed");
    kill_and_revive(mesh.etcds.leader(), "the leader is killed");

    for (place, fault) in [
        (mesh.follower(), "a member stands still"),
        (mesh.etcds.leader(), "the leader stands still"),
    ] {
        let member = mesh.etcds.member(place);
        let stop = || member.signal(Signal::SIGSTOP);
        mesh.endure(fault, NOBODY, stop, || member.signal(Signal::SIGCONT));
    }

    // The hosts reach all members, of which one does not reach the others.
    for (place, fault) in [
        (mesh.follower(), "a member is cut off"),
        (mesh.etcds.leader(), "the leader is cut off"),
    ] {
        let members = mesh.members();
        let others = [(place + 1) % 3, (place + 2) % 3].map(|place| members[place]);
        let part = || mesh.part(&[members[place]], &others);
        mesh.endure(fault, NOBODY, part, || mesh.unite());
    }

    let slow = |sync| (0..3).for_each(|place| mesh.etcds.member(place).slow(sync));
    let begin = || slow(Duration::from_millis(150));
    mesh.endure("disks are slow", NOBODY, begin, || slow(Duration::ZERO));
}

#[test]
fn a_host_loses_the_registry() {
    let mesh = Mesh::new(false);
    // With one member on its side, and the others on the other host's.
    let [one, two, three] = mesh.members();
    let part = || mesh.part(&[one, &mesh.b], &[two, three]);
    mesh.endure("a host is on the smaller side", ONLY_B, part, || {
        mesh.unite();
    });

    // Longer than its lease: the other host takes its containers for dead meanwhile.
    let part = || {
        mesh.part(&[&mesh.b], &mesh.members());
        wait_until("the lease is lost", || {
            mesh.etcds.read("/nuncio/v1/alive/").len() == 1
        });
        wait_until("nothing dead stays", || !mesh.resolves("echo"));
    };
    mesh.endure("a host's streams are cut silently", ONLY_B, part, || {
        mesh.unite();
    });

    let revoke = || {
        let leases = mesh.etcds.member(0).etcdctl(["lease", "list"]).ok();
        for lease in leases.lines().skip(1) {
            mesh.etcds
                .member(0)
                .etcdctl(["lease", "revoke", lease])
                .ok();
        }
    };
    mesh.endure("all leases are lost", NOBODY, revoke, || ());

    let behind = || {
        signal(&mesh.b, Signal::SIGSTOP);
        let member = mesh.etcds.member(0);
        for i in 0..50 {
            member
                .etcdctl(["put", "/nuncio/v1/noise", &i.to_string()])
                .ok();
        }
        let put = member
            .etcdctl(["put", "/nuncio/v1/noise", "last", "-w", "json"])
            .ok();
        let put: serde_json::Value = serde_json::from_str(&put).expect("JSON");
        let revision = put["header"]["revision"].to_string();
        member.etcdctl(["compact", &revision, "--physical"]).ok();
        signal(&mesh.b, Signal::SIGCONT);
    };
    mesh.endure(
        "history is compacted before a watcher has it",
        NOBODY,
        behind,
        || (),
    );

    let all_down = || [0, 1, 2].map(|place| mesh.etcds.member(place).kill());
    let all_up = || {
        for place in 0..3 {
            mesh.etcds.start_member(place, "new", &[]);
        }
        mesh.etcds.await_health();
    };
    let begin = || {
        all_down();
        std::thread::sleep(BEYOND_LEASE); // what is to be seen is that nothing happens meanwhile
    };
    mesh.endure("all members are down", BOTH, begin, all_up);

    let begin = || {
        all_down();
        for host in [&mesh.a, &mesh.b] {
            host.kill_daemon();
            host.start_again();
        }
    };
    mesh.endure("daemons start without a registry", BOTH, begin, all_up);

    let wiped = mesh.follower();
    let begin = || {
        mesh.etcds.member(wiped).kill();
        std::fs::remove_dir_all(mesh.etcds.member(wiped).data()).expect("wipe it");
    };
    let replace = || {
        let by = mesh.etcds.member(mesh.etcds.leader());
        let listed = by.etcdctl(["member", "list"]).ok();
        let name = format!(", m{wiped}, ");
        let line = listed.lines().find(|line| line.contains(&name));
        let id = line.and_then(|line| line.split(',').next()).expect("an id");
        by.etcdctl(["member", "remove", id]).ok();
        let peer = format!(
            "--peer-urls=http://{}:2380",
            mesh.etcds.member(wiped).address()
        );
        let name = format!("m{wiped}");
        wait_until("it is replaced", || {
            by.etcdctl(["member", "add", &name, &peer]).code == 0
        });
        mesh.etcds.start_member(wiped, "existing", &[]);
        mesh.etcds.await_health();
    };
    mesh.endure("a member's data is wiped", NOBODY, begin, replace);
}

#[test]
fn the_registry_moves_to_etcd_and_back() {
    let mesh = Mesh::new(true);
    let (own, etcds) = (mesh.a.registry_url(), mesh.etcds.urls("http"));
    let move_to = |from: &str, to: &str| {
        let migrate = format!("registry migrate --from {from} --to {to}");
        let told = mesh.a.inside(env!("CARGO_BIN_EXE_nuncio"), &migrate).ok();
        assert!(told.contains(&format!("keys moved to {to}")), "{told}");
        mesh.embedded.set(to == own);
        for host in [&mesh.a, &mesh.b] {
            wait_until("the host follows", || {
                let place = host.ok(["info", "--format", "{{json .DriverStatus}}"]);
                let embedded = to == own && place.contains("embedded");
                embedded || place.contains(to)
            });
        }
    };
    mesh.endure("moved to etcd", NOBODY, || move_to(&own, &etcds), || ());
    let restart = || {
        for host in [&mesh.a, &mesh.b] {
            host.kill_daemon();
            host.start_again(); // with what it was told before the move
        }
    };
    mesh.endure(
        "daemons that were told of the old one",
        NOBODY,
        restart,
        || (),
    );
    let leader = mesh.etcds.leader();
    mesh.endure(
        "a member of the new one is killed",
        NOBODY,
        || mesh.etcds.member(leader).kill(),
        || {
            mesh.etcds.start_member(leader, "new", &[]);
            mesh.etcds.await_health();
        },
    );
    let again = format!("registry migrate --from {own} --to {etcds}");
    let told = mesh.b.inside(env!("CARGO_BIN_EXE_nuncio"), &again).ok();
    assert!(told.contains("has it already"), "{told}");
    mesh.endure("moved back", NOBODY, || move_to(&etcds, &own), || ());
    mesh.endure("started anew", NOBODY, restart, || ());

    let status = mesh
        .b
        .ok("registry status --format {{.Endpoint}}:{{.Leader}}");
    assert_eq!(status, format!("{own}:yes"));
    // What nobody can read is told of, and the rest goes on.
    let endpoint = format!("--endpoints={own}");
    for (key, value) in [
        ("/nuncio/v1/nodes/later", r#"{"v":99}"#),
        ("/nuncio/v1/nodes/broken", "{"),
        ("/elsewhere/nodes/x", "{"),
    ] {
        mesh.a
            .inside("etcdctl", [&*endpoint, "put", key, value])
            .ok();
    }
    wait_until("they are set aside", || {
        let status = mesh.b.nuncio("registry status");
        status.stderr.contains("2 of its values cannot be read")
            && status.stderr.contains("/nuncio/v1/nodes/later")
            && !status.stderr.contains("elsewhere")
    });
    mesh.endure("two values cannot be read", NOBODY, || (), || ());
}

/// Makes an authority `NAME-ca.pem`, and `NAME.pem` with `NAME.key`, which it vouches for, of all addresses of an underlay.
fn make_papers(host: &Host, name: &str) {
    let names: Vec<_> = (1..9).map(|i| format!("IP:198.18.0.{i}")).collect();
    let script = format!(
        "cd {} &&
         new() {{ openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \"$@\"; }} &&
         new -subj /CN={name}-ca -keyout {name}-ca.key -out {name}-ca.pem &&
         new -subj /CN={name} -keyout {name}.key -out {name}.pem -CA {name}-ca.pem -CAkey {name}-ca.key \\
             -addext subjectAltName={} -addext basicConstraints=critical,CA:FALSE",
        host.scratch().display(),
        names.join(",")
    );
    host.inside("bash", ["-c", &script]).ok();
}

#[test]
fn an_etcd_that_knows_hosts_by_certificate_and_password() {
    let underlay = Underlay::new();
    let host = underlay.host();
    make_papers(&host, "ours");
    make_papers(&host, "other");
    let path = |name: &str| host.scratch().join(name).display().to_string();
    std::fs::write(path("password"), "kept secret\n").expect("write");
    std::fs::write(path("wrong"), "not it\n").expect("write");
    let args = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", path("ours-ca.pem")),
        format!("--cert-file={}", path("ours.pem")),
        format!("--key-file={}", path("ours.key")),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let etcds = Etcds::start(&underlay, &args);
    let urls = etcds.urls("https");
    let etcdctl = |words: &[&str]| {
        let papers = [
            format!("--endpoints={urls}"),
            format!("--cacert={}", path("ours-ca.pem")),
            format!("--cert={}", path("ours.pem")),
            format!("--key={}", path("ours.key")),
        ];
        let papers = papers.iter().map(String::as_str);
        host.inside(
            "etcdctl",
            &*papers.chain(words.iter().copied()).collect::<Vec<_>>(),
        )
    };
    wait_until("the etcds answer", || etcdctl(&["get", "health"]).code == 0);
    for words in [
        &["user", "add", "root:of all"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "host:kept secret"],
        &["role", "add", "host"],
        &[
            "role",
            "grant-permission",
            "host",
            "readwrite",
            "--prefix=true",
            "/nuncio/",
        ],
        &["user", "grant-role", "host", "host"],
        &["auth", "enable"],
    ] {
        etcdctl(words).ok();
    }
    let flags = |ca: &str, papers: &str, password: &str| -> Vec<String> {
        let (ca, certificate) = (path(ca), path(&format!("{papers}.pem")));
        let (key, password) = (path(&format!("{papers}.key")), path(password));
        format!(
            "--registry {urls} --registry-ca {ca} --registry-cert {certificate} --registry-key {key} \
             --registry-user host --registry-password-file {password}"
        )
        .split(' ')
        .map(str::to_owned)
        .collect()
    };
    let words = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    for (flags, expected) in [
        (
            flags("other-ca.pem", "ours", "password"),
            "invalid peer certificate",
        ),
        (
            flags("ours-ca.pem", "other", "password"),
            "log in to the registry at https://",
        ),
        (
            flags("ours-ca.pem", "ours", "wrong"),
            "invalid user ID or password",
        ),
        (
            flags("ours-ca.pem", "ours", "missing"),
            "read the registry's password from",
        ),
        (
            words("--registry ftp://198.18.0.2:2379"),
            "is not a registry: expected",
        ),
        (
            words("--registry http://198.18.0.9:2379"),
            "no registry at http://198.18.0.9:2379",
        ),
    ] {
        let mut daemon = host.daemon_command();
        daemon.args(&flags);
        let ended = Spawned::new(daemon, None).finish();
        assert_ne!(ended.code, 0, "{expected}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
        assert!(
            !ended.stderr.contains("kept secret"),
            "the password is told"
        );
    }
    let flags = flags("ours-ca.pem", "ours", "password");
    host.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    host.load(Image::Busybox);
    host.ok("network create -d overlay mesh");
    host.ok("run -d --name box --network mesh busybox sleep 1000");
    let leaders = host.ok("registry status --format {{.Leader}}:{{.Status}}");
    assert_eq!(leaders.matches("yes:Ready").count(), 1, "{leaders}");
    assert_eq!(leaders.matches("no:Ready").count(), 2, "{leaders}");
    for place in 0..3 {
        etcds.member(place).kill();
        wait_until("the other two are enough", || {
            host.nuncio("network create -d overlay more").code == 0
        });
        host.ok("network rm more");
        etcds.start_member(place, "new", &args);
        wait_until("it is back", || host.nuncio("registry status").code == 0);
    }
    assert!(!host.log().contains("kept secret"), "the password is told");
}
