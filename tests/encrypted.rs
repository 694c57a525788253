//! Encrypted networks: what the underlay sees of them, what it cannot put into them, keys that change, and a daemon
//! that is away.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Capture, Hidden, Host, Image, cluster, single, wait_until};

/// What no packet of an encrypted network may show on the way.
const MARKER: &str = "a-secret-that-nobody-on-the-way-may-read";

/// Starts a server that says [`MARKER`] to whoever connects.
fn serve(host: &Host, name: &str, network: &str) {
    let reply = format!("SYSTEM:echo {MARKER}");
    let run = ["run", "-d", "--name", name, "--network", network, "busybox"];
    let socat = ["socat", "TCP4-LISTEN:80,fork,reuseaddr", &reply];
    host.ok([&run[..], &socat[..]].concat().as_slice());
    wait_until("the server listens", || {
        host.nuncio(["exec", name, "sh", "-c", "netstat -ltn | grep -q :80"])
            .code
            == 0
    });
}

/// What the server at `name` says to a client on `host`.
fn ask(host: &Host, network: &str, name: &str) -> String {
    let ask = format!("socat -T 5 - TCP4:{name}:80,connect-timeout=5 < /dev/null");
    let run = ["run", "--rm", "--network", network, "busybox", "sh", "-c"];
    host.nuncio([&run[..], &[&ask]].concat().as_slice()).stdout
}

/// Starts a container that pings `name` ten times a second until it is stopped, and says so of each that is lost.
fn ping_on(host: &Host, network: &str, name: &str) {
    let ping = format!(
        "for i in $(seq 20); do ping -c 1 -W 1 {name} > /dev/null && break; done
         trap 'echo ends; exit' TERM; echo begins
         while true; do ping -c 1 -W 3 {name} > /dev/null && echo . || echo lost; sleep 0.1; done"
    );
    let run = [
        "run",
        "-d",
        "--name",
        "pinger",
        "--network",
        network,
        "busybox",
        "sh",
        "-c",
    ];
    host.ok([&run[..], &[&ping]].concat().as_slice());
    pinged(host, 1);
}

/// Waits until the pinger has had so many more answers, and none was lost up to then.
fn pinged(host: &Host, more: usize) {
    let answers = || {
        host.ok("logs pinger")
            .lines()
            .filter(|line| *line == ".")
            .count()
    };
    let before = answers();
    wait_until("the ping goes on", || answers() >= before + more);
    let log = host.ok("logs pinger");
    assert!(!log.contains("lost"), "{log}");
}

/// The host's tunnel.
fn tunnel(host: &Host) -> i32 {
    let processes = host.remains().processes();
    let is_tunnel = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"tunnel")
    };
    processes.into_iter().find(is_tunnel).expect("a tunnel")
}

/// Packets that the rule counted which has all these words.
fn dropped(host: &Host, words: [&str; 2]) -> u64 {
    let rules = host.inside("nft", "list table inet nuncio").stdout;
    let is_meant =
        |line: &&str| line.contains("counter") && words.iter().all(|word| line.contains(word));
    let rule = rules.lines().find(is_meant);
    let rule = rule.unwrap_or_else(|| panic!("no rule with {words:?} counts:\n{rules}"));
    let count = rule
        .split("packets ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect("a count")
}

fn inspect(host: &Host, network: &str, field: &str) -> String {
    host.ok(["network", "inspect", "-f", field, network])
}

fn vni(host: &Host, network: &str) -> u32 {
    let list = "{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}";
    inspect(host, network, list).parse().expect("a VNI")
}

/// What the addresses of a network with 16 bits of prefix begin with.
fn first_bytes(subnet: &str) -> Vec<u8> {
    let words = subnet.split('.').take(2);
    words.map(|word| word.parse().expect("a byte")).collect()
}

#[test]
fn nothing_of_it_is_seen_on_the_way() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay plain");
    a.docker("network create -d overlay --opt encrypted secret")
        .ok();
    serve(&a, "open", "plain");
    serve(&a, "closed", "secret");
    // What is seen of a plain network shows that the capture would tell.
    let seen = Capture::of(&b);
    wait_until("the plain network carries", || {
        ask(&b, "plain", "open").contains(MARKER)
    });
    wait_until("the capture shows it", || seen.shows(MARKER));
    assert!(seen.vxlan(vni(&b, "plain")) > 0);
    drop(seen);
    let seen = Capture::of(&b);
    wait_until("the encrypted network carries", || {
        ask(&b, "secret", "closed").contains(MARKER)
    });
    wait_until("the capture has it", || seen.udp(51820) > 8);
    assert!(!seen.shows(MARKER));
    // The plain network's last packets, and those that probe its path, may pass yet.
    assert_eq!(seen.vxlan(vni(&b, "secret")), 0);
    let subnet = inspect(&b, "secret", "{{(index .IPAM.Config 0).Subnet}}");
    assert_eq!(seen.addressed(&first_bytes(&subnet)), 0, "{subnet}");

    assert_eq!(a.ok("exec closed cat /sys/class/net/eth0/mtu"), "1440");
    assert_eq!(a.ok("exec open cat /sys/class/net/eth0/mtu"), "1450");
    // Keys are for root alone, and nobody is told of them.
    let keys = a.data_root().join("wireguard.json");
    let mode = fs::metadata(&keys).expect("the keys").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&keys).expect("the keys");
    let secret = text
        .split('"')
        .find(|word| word.len() == 44)
        .expect("a key");
    let catalog = b.data_root().join("catalog.json");
    wait_until("the registry's answers are kept", || catalog.exists());
    let told = [
        a.log(),
        fs::read_to_string(a.exec_root().join("tunnel.log")).expect("the tunnel's log"),
        fs::read_to_string(&catalog).expect("the registry"),
        a.ok("network inspect secret"),
        a.ok("node tunnels --format json"),
    ];
    assert!(told.iter().all(|text| !text.contains(secret)));
}

#[test]
fn what_comes_in_clear_is_dropped_and_counted() {
    let [a, b, stranger] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay --opt encrypted secret");
    serve(&a, "closed", "secret");
    wait_until("it carries", || {
        ask(&b, "secret", "closed").contains(MARKER)
    });
    let subnet = inspect(&a, "secret", "{{(index .IPAM.Config 0).Subnet}}");
    let address = a.ok("inspect -f {{.NetworkSettings.Networks.secret.IPAddress}} closed");

    // A packet with an address of the network, as it is.
    let forged = format!("{}.{}", address.rsplit_once('.').expect("an address").0, 99);
    for host in [&b, &stranger] {
        let clear = [&*format!("ip saddr {subnet}"), "iifname"];
        let before = dropped(&a, clear);
        host.ip(&format!("address add {forged}/32 dev eth0"));
        host.ip(&format!(
            "route add {address}/32 via {} src {forged}",
            a.address
        ));
        let send = format!("echo {MARKER} > /dev/udp/{address}/80");
        let sent = host.inside("bash", ["-c", &send]);
        match host.address == b.address {
            true => assert_ne!(sent.code, 0, "it left a host of the network"),
            false => wait_until("it is counted", || dropped(&a, clear) > before),
        }
        host.ip(&format!("route del {address}/32"));
        host.ip(&format!("address del {forged}/32 dev eth0"));
    }
    // One in VXLAN, of the network's number: its first bytes are what counts.
    let [_, high, middle, low] = vni(&a, "secret").to_be_bytes();
    let header = format!("\\x08\\0\\0\\0\\x{high:02x}\\x{middle:02x}\\x{low:02x}\\0");
    let send = format!("printf '{header}{MARKER}' > /dev/udp/{}/4789", a.address);
    for host in [&b, &stranger] {
        let before = dropped(&a, ["udp dport 4789", "@th,96,24"]);
        host.inside("bash", ["-c", &send]).ok();
        wait_until("it is counted", || {
            dropped(&a, ["udp dport 4789", "@th,96,24"]) > before
        });
    }

    // Nothing leaves in clear either, though the device is gone and a way is open.
    let seen = Capture::of(&b);
    b.ip(&format!("route replace default via {}", a.address));
    b.ok("run -d --name client --network secret busybox sleep 1000");
    let device = format!("nx-{}", &inspect(&b, "secret", "{{.Id}}")[..8]);
    let daemon = Pid::from_raw(b.daemon_pid().try_into().expect("a process id"));
    let ping = b.spawn(["exec", "client", "ping", "-c", "100", "-W", "1", &address]);
    // There are packets without it, too.
    wait_until("the ping is under way", || {
        b.ok("top client").contains("ping -c 100") && seen.udp(51820) > 8
    });
    kill(daemon, Signal::SIGSTOP).expect("stop the daemon");
    b.ip(&format!("link del {device}"));
    wait_until("some are counted", || {
        dropped(&b, [&*format!("ip daddr {subnet}"), "oifname"]) > 2
    });
    // Who serves the device does not make it: that would end with the tunnel's process, and its routes with it.
    let links = b.ip("-o link");
    assert!(!links.contains(&device), "{links}");
    kill(daemon, Signal::SIGCONT).expect("let the daemon go on");
    drop(ping);
    wait_until("it carries again", || {
        b.nuncio(["exec", "client", "ping", "-c", "1", "-W", "1", &address])
            .code
            == 0
    });
    assert_eq!(seen.addressed(&first_bytes(&subnet)), 0);
}

#[test]
fn keys_change_under_a_flow_and_nothing_is_lost() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay --opt encrypted secret");
    a.ok("run -d --name target --network secret busybox sleep 1000");
    ping_on(&b, "secret", "target");
    let in_use = |host: &Host| host.ok("node tunnels --format {{.Key}}");
    for _ in 0..2 {
        // Each host in turn, twice: so the first keys are not accepted any more in the end.
        for (host, other) in [(&a, &b), (&b, &a)] {
            let before = in_use(other);
            let key = host.ok("node rotate-keys");
            assert_ne!(key, before);
            wait_until("the other host uses the new key", || in_use(other) == key);
            pinged(&b, 5);
        }
    }
}

#[test]
fn a_daemon_that_is_killed_ends_no_flow() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay --opt encrypted secret");
    a.ok("run -d --name target --network secret busybox sleep 1000");
    ping_on(&b, "secret", "target");
    let before = [&a, &b].map(tunnel);
    for host in [&b, &a] {
        host.kill_daemon();
    }
    let seen = Capture::of(&b);
    wait_until("packets still pass", || seen.udp(51820) > 20);
    for host in [&a, &b] {
        host.start_again();
    }
    pinged(&b, 5);
    assert_eq!([&a, &b].map(tunnel), before);

    // A tunnel that is killed is started again, and the hosts agree on keys at once.
    kill(Pid::from_raw(before[0]), Signal::SIGKILL).expect("kill the tunnel");
    wait_until("another one carries", || {
        b.nuncio("exec pinger ping -c 1 -W 1 target").code == 0
    });
    assert_ne!(tunnel(&a), before[0]);
    // With the last of its networks it ends.
    b.ok("rm -f pinger");
    a.ok("rm -f target");
    a.ok("network rm secret");
    wait_until("no tunnel is left", || {
        let words = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_tunnel = |pid: i32| String::from_utf8_lossy(&words(&pid)).contains("\0tunnel\0");
        !a.remains().processes().into_iter().any(is_tunnel)
    });
}

#[test]
fn without_tun_it_cannot_be() {
    let host = single(&[Image::Busybox]);
    let refused = host
        .nuncio("network create -d bridge --opt encrypted near")
        .refused(1);
    assert!(refused.contains("add -d overlay"), "{refused}");
    host.ok("network create -d overlay --opt encrypted before");
    let _hidden = Hidden::from(host.daemon_pid(), "/dev/net/tun");
    for create in ["network create", "network create --attachable"] {
        let refused = host
            .nuncio(&format!("{create} -d overlay --opt encrypted secret"))
            .refused(1);
        assert!(refused.contains("network secret is encrypted"), "{refused}");
        assert!(refused.contains("/dev/net/tun"), "{refused}");
        assert!(refused.contains("No such file"), "{refused}");
    }
    let joined = host.nuncio("run --rm --network before busybox true");
    assert_ne!(joined.code, 0);
    assert!(
        joined.stderr.contains("network before is encrypted"),
        "{joined:?}"
    );
    // Other networks are none the worse for it.
    host.ok("run --rm busybox true");
}
