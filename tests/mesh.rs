//! A mesh: who is let in, who is not and what that tells them, who is cut off, and that nobody notices a renewal.

#[path = "mesh/api.rs"]
mod api;
#[path = "mesh/links.rs"]
mod links;
#[path = "mesh/peek.rs"]
mod peek;
#[path = "mesh/services.rs"]
mod services;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use support::{Host, Image, Underlay, wait_until};

/// Makes a mesh whose manager is `host`, and starts its daemon; a token for others.
#[track_caller]
fn found(host: &Host, flags: &str) -> String {
    let init = format!("init --advertise-addr {} {flags}", host.address);
    let said = host.offline(&init).ok();
    host.start(&[]);
    token_in(&said, host)
}

/// The token in the command that `said` tells to run.
#[track_caller]
fn token_in(said: &str, manager: &Host) -> String {
    let command = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("nuncio join "));
    let (token, address) = command
        .and_then(|command| command.split_once(' '))
        .unwrap_or_else(|| panic!("no command to join by: {said}"));
    assert_eq!(address, format!("{}:2379", manager.address));
    token.to_owned()
}

/// Lets `host` join, and starts its daemon.
#[track_caller]
fn join(host: &Host, token: &str, manager: &Host) {
    let joined = host.offline(&format!("join {token} {}", manager.address));
    assert!(joined.ok().starts_with("This node joined a mesh."));
    host.start(&[]);
}

#[track_caller]
fn serve_redis(host: &Host, name: &str) {
    host.ok(&format!("run -d --name {name} redis"));
    wait_until("redis answers", || {
        let ping = host.nuncio(&format!("exec {name} redis-cli ping"));
        ping.stdout.trim() == "PONG"
    });
}

fn papers(host: &Host) -> PathBuf {
    host.data_root().join("mesh")
}

/// What nobody but this host may know: the lines of its private keys.
fn secrets(host: &Host) -> Vec<String> {
    let mut secrets = Vec::new();
    for entry in fs::read_dir(papers(host)).expect("it is in a mesh") {
        let path = entry.expect("an entry").path();
        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        let text = fs::read_to_string(&path).expect("text");
        let keys = text.split("-----BEGIN PRIVATE KEY-----").skip(1);
        let keys = keys.filter_map(|rest| rest.split("-----END").next());
        secrets.extend(
            keys.flat_map(str::lines)
                .filter(|line| line.len() > 20)
                .map(str::to_owned),
        );
    }
    assert!(!secrets.is_empty(), "it has a key");
    secrets
}

#[test]
fn three_hosts_and_nothing_of_their_secrets_elsewhere() {
    let underlay = Underlay::new();
    let [a, b, c] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    join(&b, &token, &a);
    join(&c, &token, &a);
    for host in [&a, &b] {
        host.load(Image::Redis);
    }
    serve_redis(&a, "redis-server");
    let ping = "run --rm --link redis-server:redis redis redis-cli -h redis ping";
    assert_eq!(b.ok(ping), "PONG");
    b.ok("network create -d overlay net");
    wait_until("all know the network", || {
        c.ok("network ls --format {{.Name}}").contains("net")
    });
    c.ok("network rm net");
    assert_eq!(a.ok("node ls -q").lines().count(), 3);
    let info = c.ok(["info", "--format", "{{json .DriverStatus}}"]);
    assert!(
        info.contains(&format!("https://{}:2379", a.address)),
        "{info}"
    );

    let again = b.offline(&format!("join {token} {}", a.address)).refused(1);
    assert!(again.contains("another daemon works in"), "{again}");
    let elsewhere = b.nuncio("token create").refused(1);
    assert!(
        elsewhere.contains("is not the mesh's manager"),
        "{elsewhere}"
    );
    let manager = a.nuncio("node rm host-1").refused(1);
    assert!(manager.contains("cannot be removed"), "{manager}");
    b.stop_daemon();
    let again = b.offline(&format!("join {token} {}", a.address)).refused(1);
    assert!(again.contains("already part of a mesh"), "{again}");
    b.start_again();
    a.stop_daemon();
    let manager = a.offline("leave").refused(1);
    assert!(manager.contains("is the manager of its mesh"), "{manager}");
    a.start_again();

    let secret = token
        .rsplit('-')
        .next()
        .expect("a token ends in its secret");
    let mut secrets: Vec<_> = [&a, &b, &c].into_iter().flat_map(secrets).collect();
    secrets.push(secret.to_owned());
    let ledger = fs::read_to_string(papers(&a).join("authority.json")).expect("a ledger");
    assert!(!ledger.contains(secret), "the token's secret is kept");
    let mut told = vec![a.ok("inspect redis-server"), a.ok("info"), a.ok("token ls")];
    for host in [&a, &b, &c] {
        told.push(host.log());
        let environment = format!("/proc/{}/environ", host.daemon_pid());
        told.push(String::from_utf8_lossy(&fs::read(environment).expect("environment")).into());
    }
    for secret in secrets {
        assert!(
            !told.iter().any(|text| text.contains(&secret)),
            "a secret is told"
        );
    }
}

#[test]
fn who_has_no_token_gets_nothing() {
    let underlay = Underlay::new();
    let [a, b, stranger] = std::array::from_fn(|_| underlay.host());
    let first = found(&a, "");
    // Of another mesh, with certificates of its own.
    let foreign = found(&stranger, "");
    let etcdctl = |scheme: &str, flags: &[&str]| {
        let endpoint = format!("--endpoints={scheme}://{}:2379", a.address);
        let words = [
            "--command-timeout=3s",
            "--dial-timeout=3s",
            &endpoint,
            "get",
            "--prefix",
            "/",
        ];
        let words: Vec<&str> = words.into_iter().chain(flags.iter().copied()).collect();
        stranger.inside("etcdctl", &*words)
    };
    let identity = papers(&stranger).join("node.pem");
    let identity = identity.to_str().expect("a path in UTF-8");
    let (cert, key) = (format!("--cert={identity}"), format!("--key={identity}"));
    for (scheme, flags) in [
        ("http", &[][..]),
        ("https", &["--insecure-skip-tls-verify"]),
        ("https", &["--insecure-skip-tls-verify", &cert, &key]),
    ] {
        let got = etcdctl(scheme, flags);
        assert!(got.code != 0 && got.stdout.is_empty(), "{got:?}");
    }
    let registry = a.registry_url();
    let mut daemon = b.daemon_command();
    daemon.args(["--registry", &registry]);
    let ended = daemon.output().expect("run a daemon");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        !ended.status.success() && said.contains("no etcd answers"),
        "{said}"
    );

    let refused = |token: &str| {
        let join = format!("join {token} {}", a.address);
        b.offline(&join).refused(1)
    };
    let create = |flags: &str| a.ok(&format!("token create -q {flags}"));
    for (token, why) in [
        ("SWMTKN-1-abc", "this is no join token: expected NUNCIO-1-"),
        (&first[..first.len() - 2], "this is no join token"),
        (&foreign, "is not who made the token"),
    ] {
        let said = refused(token);
        assert!(said.contains(why), "{said}");
    }
    let short = create("--ttl 1s");
    wait_until("the token expires", || {
        a.ok("token ls --format {{.Status}}").contains("Expired")
    });
    assert!(refused(&short).contains("has expired"));
    let removed = create("");
    let id = removed.rsplit('-').nth(1).expect("a token's id");
    assert_eq!(a.ok(&format!("token rm {id}")), id);
    assert!(refused(&removed).contains("is not valid"));
    let unknown = a.nuncio(&format!("token rm {id}")).refused(1);
    assert!(unknown.contains("no such join token"), "{unknown}");

    let c = underlay.host();
    let once = create("--uses 1");
    join(&c, &once, &a);
    assert!(refused(&once).contains("is used up"));
    let rotated = token_in(&a.ok("token rotate"), &a);
    assert!(refused(&first).contains("is not valid"));
    let etcd = b
        .offline("init --registry https://192.0.2.1:2379")
        .refused(1);
    assert!(
        etcd.contains("lets each node write its own records alone"),
        "{etcd}"
    );
    assert!(!papers(&b).exists(), "nothing is left of what was refused");
    join(&b, &rotated, &a);
    assert_eq!(a.ok("node ls -q").lines().count(), 3);
}

#[test]
fn a_removed_node_is_cut_off_at_once() {
    let underlay = Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    join(&b, &token, &a);
    for host in [&a, &b] {
        host.load(Image::Busybox);
    }
    b.ok("run -d --name far --expose 80 busybox sleep 1000");
    wait_until("the other host knows it", || {
        a.nuncio("run --rm --link far:far busybox true").code == 0
    });
    let id = b.ok("info --format {{.ID}}");
    assert_eq!(a.ok("node rm host-2"), "host-2");
    // What the registry has of it is gone, and it comes in no more.
    assert_eq!(a.ok("node ls -q").lines().count(), 1);
    let gone = a.nuncio("run --rm --link far:far busybox true");
    assert_ne!(gone.code, 0, "{gone:?}");
    let shut_out = format!("node {id} is not in the mesh any more");
    wait_until("it tries again, and is shut out", || {
        a.log().contains(&shut_out)
    });
    let twice = a.nuncio("node rm host-2").refused(1);
    assert!(twice.contains("node host-2 not found"), "{twice}");
    assert_eq!(
        b.ok("ps -q").lines().count(),
        1,
        "what runs there is its own affair"
    );

    // It is let in again by a new token alone.
    b.ok("rm -f far");
    b.stop_daemon();
    let left = b.offline("leave").ok();
    assert!(left.contains(&format!("nuncio node rm {id}")), "{left}");
    assert!(!papers(&b).exists());
    let again = b.offline("leave").refused(1);
    assert!(again.contains("is not part of a mesh"), "{again}");
    let token = a.ok("token create -q --uses 1");
    join(&b, &token, &a);
    wait_until("it is there again", || {
        a.ok("node ls --format {{.Status}}")
            .matches("Ready")
            .count()
            == 2
    });
}

/// The certificate that `host` shows now.
fn certificate(host: &Host) -> Vec<u8> {
    fs::read(papers(host).join("node.pem")).expect("it has one")
}

/// Waits until `host` has another certificate than this one.
#[track_caller]
fn await_another(host: &Host, than: &[u8]) -> Vec<u8> {
    let mut now = certificate(host);
    wait_until("the certificate is renewed", || {
        now = certificate(host);
        now != than
    });
    now
}

#[test]
fn certificates_are_renewed_under_way() {
    let underlay = Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "--cert-expiry 10s");
    join(&b, &token, &a);
    for host in [&a, &b] {
        host.load(Image::Redis);
    }
    serve_redis(&a, "redis-server");
    b.ok("run -d --name asker --link redis-server:redis redis redis-cli -h redis -r 1000000 -i 0.05 incr n");
    let count = || {
        let said = a.ok("exec redis-server redis-cli get n");
        said.parse::<u64>().unwrap_or_default()
    };
    wait_until("the flow begins", || count() > 0);
    for host in [&a, &b] {
        // The third is made when the first has expired.
        let first = certificate(host);
        let second = await_another(host, &first);
        await_another(host, &second);
    }
    let before = count();
    wait_until("the flow goes on", || count() > before + 20);
    let clients = a.ok("exec redis-server redis-cli info clients");
    assert!(
        clients.contains("connected_clients:2"),
        "this one and the flow's: {clients}"
    );
    for host in [&a, &b] {
        assert!(!host.log().contains("registry lost"), "{}", host.log());
    }
    // Both daemons come back with what they have now.
    a.kill_daemon();
    b.kill_daemon();
    a.start_again();
    b.start_again();
    b.ok("run -d --name later --expose 80 redis sleep 1000");
    wait_until("the other host hears of it", || {
        a.nuncio("run --rm --link later:later redis true").code == 0
    });
    // One that was away for longer than its certificate was good is still a member.
    b.stop_daemon();
    let away = certificate(&b);
    let first = await_another(&a, &certificate(&a));
    let second = await_another(&a, &first);
    await_another(&a, &second);
    b.start_again();
    await_another(&b, &away);
    wait_until("it is there again", || {
        a.ok("node ls --format {{.Status}}")
            .matches("Ready")
            .count()
            == 2
    });
    assert!(Path::new(&papers(&b)).join("ca.pem").exists());
}

#[test]
fn an_ambassador_beside_the_daemon_finds_the_services_of_the_mesh() {
    let underlay = Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    join(&b, &token, &a);
    a.load(Image::Redis);
    a.ok("run -d --name redis-server -p 6379:6379 redis");
    a.ok(&format!("service register store tcp://{}:6379", a.address));
    let nuncio = env!("CARGO_BIN_EXE_nuncio");
    let ambassador = |data_root: &Path| {
        let data_root = data_root.display();
        let flags = "--listen tcp://127.0.0.1:6379 --to service://store --data-root";
        b.spawn_inside("env", &format!("{nuncio} ambassador {flags} {data_root}"))
    };
    let _serving = ambassador(&b.data_root());
    let ask = "exec 3<>/dev/tcp/127.0.0.1/6379 && printf 'PING\r\n' >&3 && head -c 5 <&3";
    wait_until("redis answers by the ambassador", || {
        b.inside("timeout", ["5", "bash", "-c", ask]).stdout == "+PONG"
    });
    // Who has no papers gets nothing, and is told where they would be.
    let none = b.scratch().join("none");
    let refused = ambassador(&none).finish().refused(1);
    assert!(
        refused.contains("there is no membership of a mesh"),
        "{refused}"
    );
    let clear = format!(
        "{nuncio} ambassador --listen tcp://127.0.0.1:6380 --to service://store --registry {}",
        a.registry_url()
    );
    let refused = b.inside("env", &clear);
    assert_ne!(refused.code, 0, "{refused:?}");
}
