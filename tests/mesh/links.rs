//! Links between hosts of a mesh: what is seen of them on the way, who is let in, and how one goes unencrypted.

use serde_json::Value;

use crate::support::{Capture, Host, Image, Underlay, wait_until};
use crate::{found, join, papers, serve_redis};

/// What no packet of an encrypted link may show on the way.
const MARKER: &str = "a-word-that-nobody-on-the-way-may-read";
const SLEEP: &str = "redis sleep 100000";

/// What redis says to a container that has a link `redis` to it.
fn ask(host: &Host, container: &str, words: &str) -> String {
    let asked = host.nuncio(&format!("exec {container} redis-cli -h redis {words}"));
    asked.stdout.trim().to_owned()
}

fn flows(host: &Host) -> String {
    host.ok([
        "flows",
        "--format",
        "{{.Forward}} {{.Datapath}} {{.NotDirect}}",
    ])
}

/// Whether somebody in the host's own namespace, who has no certificate to show, gets an answer of a redis.
fn answers(host: &Host, address: &str) -> bool {
    let ping = format!("exec 3<>/dev/tcp/{address}/6379 && echo PING >&3 && head -c 5 <&3");
    host.inside("timeout", ["3", "bash", "-c", &ping])
        .stdout
        .contains("PONG")
}

#[test]
fn nobody_on_the_way_reads_a_link_unless_somebody_wants_it_so() {
    let underlay = Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    join(&b, &token, &a);
    for host in [&a, &b] {
        host.load(Image::Redis);
    }
    serve_redis(&a, "redis-server");
    let redis = a.ok("inspect -f {{.NetworkSettings.IPAddress}} redis-server");
    let capture = Capture::of(&b);
    b.ok(&format!(
        "run -d --name asker --link redis-server:redis {SLEEP}"
    ));
    assert_eq!(ask(&b, "asker", &format!("set word {MARKER}")), "OK");
    assert_eq!(ask(&b, "asker", "get word"), MARKER);
    assert!(capture.shows(".link.nuncio"), "the handshake is seen");
    for hidden in [MARKER, "redis-server"] {
        assert!(!capture.shows(hidden), "{hidden} is seen on the way");
    }
    let told = b.ok("explain link/redis-server/6379/tcp");
    assert!(
        told.contains("is encrypted, to redis-server by the ambassador of host-1"),
        "{told}"
    );
    b.ok("exec -d asker redis-cli -h redis -r 1000000 -i 0.05 incr n");
    wait_until("both ends tell of the flow", || {
        flows(&b).contains("link/redis-server/6379/tcp tls a link between hosts")
            && flows(&a).contains(" tls links of other hosts come in here, encrypted")
    });
    assert!(!answers(&b, &redis), "who shows no certificate is let in");

    // One that is to go as it is, beside the other.
    let plain = "run -d --name plain --link redis-server:redis --label nuncio.link.redis.tls=off";
    b.ok(&format!("{plain} {SLEEP}"));
    wait_until("the server's host lets it in", || {
        ask(&b, "plain", "get word") == MARKER
    });
    assert!(capture.shows(MARKER), "it goes as it is");
    let told = b.ok("explain link/redis-server/plain/6379/tcp");
    assert!(
        told.contains("not encrypted, by the label nuncio.link.redis.tls=off"),
        "{told}"
    );
    assert_eq!(ask(&b, "asker", "get word"), MARKER);
    for (label, why) in [
        ("redis.tls=on", "expected off"),
        ("other.tls=off", "there is no link other"),
    ] {
        let run = format!("run -d --link redis-server:redis --label nuncio.link.{label} {SLEEP}");
        let said = b.nuncio(&run).refused(125);
        assert!(said.contains(why), "{said}");
    }
    b.ok("rm -f plain");
    wait_until("that is over for those who come", || !answers(&b, &redis));

    // Datagrams are not encrypted, and that is told.
    a.ok(&format!("run -d --name dns --expose 53/udp {SLEEP}"));
    b.ok(&format!("run -d --name resolver --link dns:dns {SLEEP}"));
    let told = b.ok("explain link/dns/53/udp");
    assert!(
        told.contains("not encrypted, as it carries datagrams"),
        "{told}"
    );

    a.kill_daemon();
    assert_eq!(
        ask(&b, "asker", "get word"),
        MARKER,
        "the other host's daemon is away"
    );
    a.start_again();
    assert_eq!(ask(&b, "asker", "get word"), MARKER);

    // What the host had open ends with its membership.
    assert!(flows(&a).contains(" tls "), "the flow goes on");
    assert_eq!(a.ok("node rm host-2"), "host-2");
    wait_until("the flow is cut off", || flows(&a).is_empty());
    assert_eq!(a.ok("exec redis-server redis-cli ping"), "PONG");
}

/// The record by which other hosts know `host`, as a daemon would have written it that knew nothing of links.
fn forget_links(host: &Host, manager: &Host) {
    let identity = papers(host).join("node.pem");
    let identity = identity.to_str().expect("a path in UTF-8");
    let key = format!("/nuncio/v1/nodes/{}", host.ok("info --format {{.ID}}"));
    let endpoint = format!("--endpoints=https://{}:2379", manager.address);
    let (cert, secret) = (format!("--cert={identity}"), format!("--key={identity}"));
    let etcdctl = |words: &[&str]| {
        let flags = [&*endpoint, "--insecure-skip-tls-verify", &cert, &secret];
        host.inside("etcdctl", &*[&flags, words].concat()).ok()
    };
    let record = etcdctl(&["get", "--print-value-only", &key]);
    let mut record: Value = serde_json::from_str(&record).expect("a record");
    let links = record.as_object_mut().expect("an object").remove("links");
    assert!(links.is_some(), "{record}");
    etcdctl(&["put", &key, &record.to_string()]);
}

#[test]
fn a_host_that_does_not_encrypt_links_yet_is_linked_to_as_before() {
    let underlay = Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let token = found(&a, "");
    join(&b, &token, &a);
    for host in [&a, &b] {
        host.load(Image::Redis);
    }
    serve_redis(&b, "redis-server");
    serve_redis(&a, "other-server");
    a.ok(&format!(
        "run -d --name asker --link redis-server:redis {SLEEP}"
    ));
    b.ok(&format!(
        "run -d --name asker-of-b --link other-server:redis {SLEEP}"
    ));
    let told = || a.ok("explain link/redis-server/6379/tcp");
    assert!(told().contains("is encrypted"), "{}", told());
    forget_links(&b, &a);
    wait_until("the link is as before", || {
        told().contains("not encrypted, as host-2 takes no encrypted links")
    });
    // That host is let in as it was before, and by TLS, as it does not know what it is taken for.
    let other = a.ok("inspect -f {{.NetworkSettings.IPAddress}} other-server");
    assert!(answers(&b, &other));
    assert_eq!(ask(&b, "asker-of-b", "ping"), "PONG");
    // Its daemon tells of itself anew.
    b.kill_daemon();
    b.start_again();
    wait_until("the link is encrypted", || told().contains("is encrypted"));
    assert_eq!(ask(&a, "asker", "ping"), "PONG");
    wait_until("none comes in without", || !answers(&b, &other));
}
