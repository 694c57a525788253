//! Where UDP does not get through between hosts, flows go on by TLS, and go back when it does.

mod support;

use std::path::PathBuf;

use support::{Capture, Host, Image, cluster, wait_until};

/// What a flow says, over and over.
const MARKER: &str = "a-word-that-is-sent-again-and-again";

/// A connection from one host's container to another's, which is asked and answers ten times a second.
struct Flow<'h> {
    client: &'h Host,
    log: PathBuf,
}

impl<'h> Flow<'h> {
    #[track_caller]
    fn begin(client: &'h Host, server: &Host, network: &str) -> Self {
        let run = [
            "run",
            "-d",
            "--name",
            "echo",
            "--network",
            network,
            "busybox",
        ];
        let socat = ["socat", "TCP4-LISTEN:80,fork,reuseaddr", "EXEC:cat"];
        server.ok([&run[..], &socat].concat().as_slice());
        wait_until("the server listens", || {
            let listens = "netstat -ltn | grep -q :80";
            server.nuncio(["exec", "echo", "sh", "-c", listens]).code == 0
        });
        let ask = format!(
            "for i in $(seq 50); do nc -z echo 80 && break; sleep 0.2; done
             (while true; do echo {MARKER}; sleep 0.1; done) | nc echo 80; echo over"
        );
        let run = [
            "run",
            "-d",
            "--name",
            "asker",
            "--network",
            network,
            "busybox",
        ];
        client.ok([&run[..], &["sh", "-c", &ask]].concat().as_slice());
        let log = client.ok("inspect -f {{.LogPath}} asker").into();
        let flow = Self { client, log };
        flow.goes_on();
        flow
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    /// Waits until twenty more answers have come by the same connection. No daemon is asked.
    #[track_caller]
    fn goes_on(&self) {
        let answers = || self.text().matches(MARKER).count();
        let before = answers();
        wait_until("the flow goes on", || answers() >= before + 20);
        assert!(!self.text().contains("over"), "{}", self.text());
    }

    /// The same, and on the way it is seen what it says, or not.
    #[track_caller]
    fn goes(&self, in_clear: bool) {
        let seen = Capture::of(self.client);
        self.goes_on();
        assert_eq!(seen.shows(MARKER), in_clear);
        assert_eq!(seen.tcp(51820) > 0, !in_clear);
    }

    #[track_caller]
    fn end(self, server: &Host) {
        self.client.ok("rm -f asker");
        server.ok("rm -f echo");
    }
}

/// How often that has been told of the path to a host, of VXLAN or what is encrypted.
fn told(host: &Host, action: &str, what: &str) -> usize {
    let of = format!("event=path_{action}");
    let list = [
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "-f",
        "type=daemon",
        "-f",
    ];
    let shown = ["--format", "{{json .Actor.Attributes}}"];
    let events = host.ok([&list[..], &[&of], &shown].concat().as_slice());
    let what = format!("\"what\":\"{what}\"");
    events.lines().filter(|line| line.contains(&what)).count()
}

fn tunnels(host: &Host, field: &str) -> String {
    host.ok(["node", "tunnels", "--format", &format!("{{{{.{field}}}}}")])
}

/// Whether a host of which nobody knows can connect.
fn is_let_in(stranger: &Host, to: &Host) -> bool {
    let connect = format!("timeout 1 bash -c 'echo > /dev/tcp/{}/51820'", to.address);
    stranger.inside("bash", ["-c", &connect]).code == 0
}

#[test]
fn what_udp_does_not_carry_goes_by_tls_and_back() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    let flow = Flow::begin(&a, &b, "mesh");
    flow.goes(true);
    let no_device = |host: &Host| !host.ip("-o link").contains("nf-");
    assert!(no_device(&a) && no_device(&b));
    let stranger = a.underlay().host();

    let underlay = a.underlay();
    underlay.block("udp dport 4789");
    wait_until("both go around", || {
        told(&a, "fallback", "vxlan") == 1 && told(&b, "fallback", "vxlan") == 1
    });
    flow.goes(false);
    let said = a.ok(["info", "-f", "{{range .Warnings}}{{.}}\n{{end}}"]);
    assert!(
        said.contains("get through to host-2 at 198.18.0.2: what is for it goes by TLS"),
        "{said}"
    );
    let why = a.ok("why asker echo 80");
    assert!(
        why.contains("goes by the fall-back, TLS over TCP port 51820"),
        "{why}"
    );
    assert!(why.contains("nothing keeps asker from echo"), "{why}");
    assert_eq!(tunnels(&a, "Fallback"), "both ways");
    assert_ne!(tunnels(&a, "FallbackSent"), "0B");
    assert!(!is_let_in(&stranger, &a));
    assert!(is_let_in(&b, &a), "the port is there");

    // Neither daemon is needed, nor has the next one to find out anew.
    a.kill_daemon();
    b.kill_daemon();
    flow.goes(false);
    a.start_again();
    b.start_again();
    flow.goes(false);
    assert_eq!(told(&a, "restored", "vxlan"), 0);
    // Who they are by TLS changes, until nothing of what they were is accepted any more.
    for _ in 0..2 {
        for host in [&a, &b] {
            host.ok("node rotate-keys");
            flow.goes(false);
        }
    }
    assert_eq!(told(&a, "restored", "vxlan"), 0);
    // What is undone by hand is mended.
    let links = a.ip("-br link");
    let device = links
        .split_whitespace()
        .find(|word| word.starts_with("nf-"));
    a.ip(&format!("link del {}", device.expect("a device")));
    flow.goes(false);

    underlay.unblock();
    wait_until("both go back", || {
        told(&a, "restored", "vxlan") == 1 && told(&b, "restored", "vxlan") == 1
    });
    wait_until("nothing goes around", || no_device(&a) && no_device(&b));
    flow.goes(true);

    // In one direction only.
    underlay.block(&format!("ip saddr {} udp dport 4789", a.address));
    wait_until("the one that is not heard goes around", || {
        told(&a, "fallback", "vxlan") >= 1 && a.ip("route").contains("dev nf-")
    });
    wait_until("the other one does not for long", || {
        !b.ip("route").contains("dev nf-") && tunnels(&b, "Fallback") == "inwards"
    });
    flow.goes_on();
    underlay.unblock();
    wait_until("nothing goes around any more", || {
        no_device(&a) && no_device(&b)
    });
    flow.goes(true);
    flow.end(&b);
}

#[test]
fn what_is_encrypted_goes_by_tls_where_its_port_is_blocked() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay --opt encrypted secret");
    let flow = Flow::begin(&a, &b, "secret");
    let underlay = a.underlay();
    underlay.block("udp dport 51820");
    wait_until("both go around", || {
        told(&a, "fallback", "encrypted") == 1 && told(&b, "fallback", "encrypted") == 1
    });
    flow.goes(false);
    assert_eq!(tunnels(&a, "Fallback"), "both ways");
    let why = a.ok("why asker echo 80");
    assert!(
        why.contains("WireGuard does not get through to 198.18.0.2"),
        "{why}"
    );
    a.kill_daemon();
    flow.goes(false);
    a.start_again();
    underlay.unblock();
    wait_until("both go back", || {
        told(&a, "restored", "encrypted") == 1 && told(&b, "restored", "encrypted") == 1
    });
    let seen = Capture::of(&a);
    flow.goes_on();
    assert!(seen.udp(51820) > 20 && !seen.shows(MARKER));
    flow.end(&b);
}
