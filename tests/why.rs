//! `nuncio why` names the place where the way breaks, whatever is broken.

mod support;

use serde_json::Value;
use support::{Host, Image, SOON, Underlay, wait_until};

/// Two hosts that let be what is broken on them; `web` on the first, `db` on the second, in one network.
struct Broken {
    a: Host,
    b: Host,
}

impl Broken {
    fn new() -> Self {
        Self::with(&[])
    }

    /// Whose containers reach each other by bridge, routes and rules.
    fn the_long_way() -> Self {
        Self::with(&["--no-shortcut"])
    }

    fn with(flags: &[&str]) -> Self {
        let underlay = Underlay::new();
        let (a, b) = (underlay.host(), underlay.host());
        let url = a.registry_url();
        for (host, registry) in [(&a, "embedded"), (&b, &*url)] {
            host.start(&[&["--registry", registry, "--no-repair"], flags].concat());
        }
        for host in [&a, &b] {
            host.load(Image::Busybox);
        }
        a.ok("network create -d overlay mesh");
        a.ok("run -d --name web --network mesh busybox sleep 1000");
        b.ok("run -d --name db --network mesh busybox httpd -f -p 6379");
        Self { a, b }
    }

    /// What is found, and the host and place where it breaks, if it does.
    #[track_caller]
    fn ask(host: &Host, words: &str) -> (Value, Option<String>) {
        let told = host.nuncio(&*format!("why {words} --json"));
        let why: Value = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
        let at = why["culprit"]
            .as_u64()
            .and_then(|at| usize::try_from(at).ok());
        assert_eq!(told.code, i32::from(at.is_some()), "{told:?}");
        let place = at.map(|at| {
            let hop = &why["hops"][at];
            let text = |field: &str| hop[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("host"), text("hop"))
        });
        (why, place)
    }

    #[track_caller]
    fn all_is_well(&self) {
        self.all_is_well_by("web db 6379");
    }

    #[track_caller]
    fn all_is_well_by(&self, words: &str) {
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let (why, place) = Self::ask(&self.a, words);
            let unknown = why["hops"]
                .as_array()
                .is_some_and(|hops| hops.iter().any(|hop| hop["status"] != "ok"));
            if place.is_none() && !unknown {
                return;
            }
            if std::time::Instant::now() > deadline {
                panic!("not well: {why:#}");
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Waits until it breaks where it ought to.
    #[track_caller]
    fn breaks(host: &Host, what: &str, words: &str, place: &str) {
        let mut last = None;
        let deadline = std::time::Instant::now() + SOON;
        while std::time::Instant::now() < deadline {
            let (why, found) = Self::ask(host, words);
            if found.as_deref() == Some(place) {
                let at = why["culprit"]
                    .as_u64()
                    .and_then(|at| usize::try_from(at).ok());
                let hop = &why["hops"][at.unwrap_or_default()];
                eprintln!("{what}: {place}: {} [{}]", hop["detail"], hop["mend"]);
                return;
            }
            last = Some((found, why));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let (found, why) = last.expect("it was asked");
        panic!("{what}: not {place} but {found:?}: {why:#}");
    }
}

#[track_caller]
fn sh(host: &Host, script: &str) -> String {
    host.inside("sh", ["-ec", script]).ok()
}

/// The name of the one link of the host that begins so.
fn link(host: &Host, begin: &str) -> String {
    let script = format!("ip -br link | grep -o '^{begin}[^@ ]*' | head -1");
    sh(host, &script)
}

/// The VXLAN device of the network.
fn tunnel(host: &Host) -> String {
    let id = host.ok("network inspect -f {{.Id}} mesh");
    format!("nx-{}", &id[..8])
}

/// A command in a container's network namespace.
fn within(host: &Host, container: &str, command: &str) -> String {
    let id = host.ok(["inspect", "-f", "{{.Id}}", container]);
    let netns = host.exec_root().join("netns").join(id);
    format!("nsenter --net={} {command}", netns.display())
}

/// Has the daemon set all right: with `--no-repair` it does so when it starts.
fn restart(host: &Host) {
    host.kill_daemon();
    host.start_again();
}

#[test]
fn whatever_is_broken_in_the_kernel_is_found_on_the_host_where_it_is() {
    let hosts = Broken::the_long_way();
    hosts.all_is_well();
    let (a, b) = (&hosts.a, &hosts.b);
    let (bridge, tunnel) = (link(a, "nb-"), tunnel(a));
    let peer = sh(
        a,
        &format!("ip route show dev {tunnel} | awk '/via/ {{ print $1; exit }}'"),
    );
    let gateway = sh(
        a,
        &format!("ip route show dev {tunnel} | awk '/via/ {{ print $3; exit }}'"),
    );
    let mac = sh(
        a,
        &format!("bridge fdb show dev {tunnel} | awk '/dst/ {{ print $1; exit }}'"),
    );
    let drop = |hook: &str, rule: &str| {
        format!("nft add table ip foreign; nft 'add chain ip foreign it {{ type filter hook {hook} priority 5; }}';
            nft add rule ip foreign it {rule} drop")
    };
    let faults = [
        (
            a,
            format!("ip link set {} down", link(a, "nv-")),
            "host-1 port",
        ),
        (
            a,
            format!("ip link set {} nomaster", link(a, "nv-")),
            "host-1 port",
        ),
        (
            b,
            format!("ip link set {} down", link(b, "nv-")),
            "host-2 port",
        ),
        (a, format!("ip link set {bridge} down"), "host-1 bridge"),
        (b, format!("ip link set {bridge} down"), "host-2 bridge"),
        (b, format!("ip address flush dev {bridge}"), "host-2 bridge"),
        (
            a,
            "echo 0 >/proc/sys/net/ipv4/ip_forward".to_owned(),
            "host-1 forwarding",
        ),
        (
            b,
            "echo 0 >/proc/sys/net/ipv4/ip_forward".to_owned(),
            "host-2 forwarding",
        ),
        (
            a,
            format!("ip route del {peer} dev {tunnel}"),
            "host-1 peer-route",
        ),
        (
            a,
            format!("ip route del {peer}; ip route add blackhole {peer}"),
            "host-1 peer-route",
        ),
        (
            a,
            format!("ip neigh del {gateway} dev {tunnel}"),
            "host-1 neighbour",
        ),
        (
            a,
            format!(
                "ip neigh replace {gateway} lladdr 02:00:00:00:00:09 dev {tunnel} nud permanent"
            ),
            "host-1 neighbour",
        ),
        (
            a,
            format!("bridge fdb del {mac} dev {tunnel}"),
            "host-1 fdb",
        ),
        (
            a,
            format!("bridge fdb replace {mac} dev {tunnel} dst 192.0.2.9 self"),
            "host-1 fdb",
        ),
        (a, format!("ip link set {tunnel} down"), "host-1 vxlan"),
        (b, format!("ip link set {tunnel} down"), "host-2 vxlan"),
        (b, format!("ip link del {tunnel}"), "host-2 vxlan"),
        (a, "nft delete table inet nuncio".to_owned(), "host-1 rules"),
        (
            b,
            "nft flush chain inet nuncio forward".to_owned(),
            "host-2 rules",
        ),
        (a, drop("forward", "ip daddr 10.0.0.0/8"), "host-1 rules"),
        (b, drop("forward", "tcp dport 6379"), "host-2 rules"),
        (b, drop("input", "udp dport 4789"), "host-2 rules"),
    ];
    for (host, fault, place) in faults {
        sh(host, &fault);
        Broken::breaks(a, &fault, "web db 6379", place);
        let _ = host.inside(
            "sh",
            [
                "-c",
                &format!("nft delete table ip foreign; ip route del blackhole {peer}"),
            ],
        );
        restart(host);
        hosts.all_is_well();
    }
}

#[test]
fn whatever_is_broken_in_a_container_or_between_hosts_is_found() {
    let hosts = Broken::new();
    hosts.all_is_well();
    let (a, b) = (&hosts.a, &hosts.b);
    let words = "web db 6379";

    b.ok("pause db");
    Broken::breaks(a, "paused", words, "host-2 container");
    b.ok("unpause db");
    b.ok("stop -t 0 db");
    Broken::breaks(a, "stopped", words, "host-2 container");
    b.ok("start db");
    a.ok("stop -t 0 web");
    Broken::breaks(a, "stopped", words, "host-1 container");
    a.ok("start web");
    hosts.all_is_well();

    // Each of these takes more with it than it names.
    for (host, container, fault, place) in [
        (a, "web", "ip link set eth0 down", "host-1 link"),
        (b, "db", "ip address flush dev eth0", "host-2 address"),
        (a, "web", "ip route flush dev eth0", "host-1 route"),
        (b, "db", "ip route flush dev eth0", "host-2 route"),
    ] {
        sh(host, &within(host, container, fault));
        Broken::breaks(a, fault, words, place);
        host.ok(["restart", "-t", "0", container]);
        hosts.all_is_well();
    }

    let silence = within(
        a,
        "web",
        "nft 'add table ip t; add chain ip t o { type filter hook output priority 0; }; add rule ip t o udp dport 53 drop'",
    );
    sh(a, &silence);
    Broken::breaks(a, "DNS is cut off", words, "host-1 name");
    sh(a, &within(a, "web", "nft delete table ip t"));

    Broken::breaks(a, "another port", "web db 6380", "host-2 listener");
    b.ok("run -d --name loop --network mesh busybox httpd -f -p 127.0.0.1:7000");
    Broken::breaks(a, "loopback alone", "web loop 7000", "host-2 listener");
    b.ok("network create -d overlay apart");
    b.ok("run -d --name lonely --network apart busybox sleep 1000");
    Broken::breaks(a, "no common network", "web lonely", "host-1 network");
    a.ok("run -d --name plain busybox sleep 1000");
    b.ok("run -d --name other --expose 80 busybox sleep 1000");
    Broken::breaks(a, "no link", "plain other", "host-1 network");
    a.ok("run -d --name linked --link other busybox sleep 1000");
    Broken::breaks(a, "not exposed", "linked other 81", "host-1 network");
    // The shorter way passes what is on the long one; without it they have that.
    let on_shortcut = || {
        let (why, place) = Broken::ask(a, words);
        let hops = why["hops"].as_array().cloned().unwrap_or_default();
        let short = hops.iter().find(|hop| hop["hop"] == "shortcut");
        (
            place,
            short.map(|hop| hop["detail"].as_str().unwrap_or_default().to_owned()),
        )
    };
    assert!(
        a.ok("why web db 6379")
            .contains("past rules and routes (netdev nuncio)")
    );
    for fault in [
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
        "nft add table ip foreign; nft 'add chain ip foreign it { type filter hook forward priority 5; policy drop; }'",
    ] {
        sh(a, fault);
        let (place, short) = on_shortcut();
        assert_eq!(place, None, "{fault}");
        assert!(
            short.is_some_and(|detail| detail.contains("past rules")),
            "{fault}"
        );
    }
    sh(a, "nft delete table netdev nuncio");
    Broken::breaks(a, "the long way", words, "host-1 forwarding");
    assert!(
        on_shortcut()
            .1
            .is_some_and(|detail| detail.contains("was removed"))
    );
    sh(a, "echo 1 >/proc/sys/net/ipv4/ip_forward");
    Broken::breaks(a, "the long way", words, "host-1 rules");
    sh(a, "nft delete table ip foreign");
    assert_eq!(Broken::ask(a, words).1, None);
    let chain = format!("from-{}", tunnel(b));
    sh(
        b,
        &format!("nft insert rule netdev nuncio {chain} tcp dport 6379 drop"),
    );
    Broken::breaks(a, "a rule of the shortcut", words, "host-2 shortcut");
    restart(a);
    restart(b);
    hosts.all_is_well();
    // From where neither is, and from where only the target is.
    assert_eq!(Broken::ask(b, words).1, None);
    hosts.all_is_well();

    let wrong = a.nuncio("why web nothing-of-that-name");
    assert!(
        wrong
            .refused(125)
            .contains("no such container, service, alias or host")
    );
    let wrong = a.nuncio("why web db port");
    assert!(wrong.refused(125).contains("invalid"));
}

#[test]
fn what_is_broken_on_the_underlay_or_of_the_registry_is_found() {
    let hosts = Broken::new();
    hosts.all_is_well();
    let (a, b) = (&hosts.a, &hosts.b);
    let words = "web db 6379";

    let underlay = a.underlay();
    underlay.narrow(Some(1400));
    wait_until("the route is fitted", || {
        a.ip("route show").contains("mtu 1350")
    });
    hosts.all_is_well();
    let tunnel = tunnel(a);
    let routes = a.ip(&format!("route show dev {tunnel}"));
    for route in routes.lines().filter(|route| route.contains("mtu 1350")) {
        let unfitted = route.replace("mtu 1350", "");
        a.ip(&format!("route replace {unfitted} dev {tunnel}"));
    }
    Broken::breaks(a, "narrow", words, "host-1 mtu");
    underlay.narrow(None);
    hosts.all_is_well();

    a.ip("route del 198.18.0.0/24");
    Broken::breaks(a, "no underlay route", words, "host-1 underlay");
    a.ip("route add 198.18.0.0/24 dev eth0 src 198.18.0.1");
    hosts.all_is_well();
    a.ip("link set eth0 down");
    Broken::breaks(a, "no underlay link", words, "host-1 underlay");
    a.ip("link set eth0 up");
    hosts.all_is_well();

    underlay.block("udp dport 4789");
    underlay.block("tcp dport 51820"); // by which it would be gone around
    Broken::breaks(a, "port blocked", words, "host-1 path");
    underlay.unblock();
    hosts.all_is_well();

    b.kill_daemon();
    Broken::breaks(a, "the peer's daemon is dead", words, "host-1 peer");
    b.start_again();
    hosts.all_is_well();
    a.kill_daemon();
    Broken::breaks(b, "the registry is away", "db web", "host-2 registry");
    a.start_again();
    hosts.all_is_well();
}

#[test]
fn the_way_of_ipv6_is_walked_where_a_network_carries_it() {
    let hosts = Broken::new();
    let (a, b) = (&hosts.a, &hosts.b);
    a.ok("network create -d overlay --ipv6 both");
    a.ok("run -d --name near --network both busybox sleep 1000");
    b.ok("run -d --name far --network both busybox httpd -f -p 6379");
    let words = "-6 near far 6379";
    // BusyBox's httpd listens on :: for both.
    hosts.all_is_well_by(words);
    let id = a.ok("network inspect -f {{.Id}} both");
    let (tunnel, bridge) = (format!("nx-{}", &id[..8]), format!("nb-{}", &id[..8]));
    let route = |word: usize| {
        let script =
            format!("ip -6 route show dev {tunnel} | awk '/via/ {{ print ${word}; exit }}'");
        sh(a, &script)
    };
    let (peer, gateway) = (route(1), route(3));
    assert!(peer.contains(':') && gateway.contains(':'));
    let drop = "nft add table ip6 foreign; nft 'add chain ip6 foreign it { type filter hook forward priority 5; }';
        nft add rule ip6 foreign it tcp dport 6379 drop";
    let faults = [
        (
            a,
            format!("ip -6 route del {peer} dev {tunnel}"),
            "host-1 peer-route",
        ),
        (
            a,
            format!("ip -6 neigh del {gateway} dev {tunnel}"),
            "host-1 neighbour",
        ),
        (
            a,
            "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
            "host-1 forwarding",
        ),
        (
            b,
            format!("ip -6 address flush dev {bridge} scope global"),
            "host-2 bridge",
        ),
        (b, drop.to_owned(), "host-2 rules"),
    ];
    for (host, fault, place) in faults {
        sh(host, &fault);
        Broken::breaks(a, &fault, words, place);
        // By IPv4 all is as it was.
        assert_eq!(Broken::ask(a, "-4 near far 6379").1, None, "{fault}");
        let _ = host.inside("sh", ["-c", "nft delete table ip6 foreign"]);
        restart(host);
        hosts.all_is_well_by(words);
    }

    let address = b.ok("inspect -f {{.NetworkSettings.Networks.both.GlobalIPv6Address}} far");
    assert_eq!(Broken::ask(a, &format!("near [{address}]:6379")).1, None);
    let (_, place) = Broken::ask(a, &format!("near {address} 6380"));
    assert_eq!(place.as_deref(), Some("host-2 listener"));
    Broken::breaks(a, "no IPv6 there", "-6 web db 6379", "host-1 network");
    let wrong = a.nuncio(["why", "-4", "near", &address]);
    assert!(wrong.refused(125).contains("family"));
}

#[test]
fn a_name_on_another_host_goes_before_an_id_that_begins_like_it() {
    let hosts = Broken::new();
    let (a, b) = (&hosts.a, &hosts.b);
    let begin = a.ok("inspect -f {{.Id}} web")[..2].to_owned();
    b.ok(format!("rename db {begin}").as_str());
    wait_until("it is known", || {
        let why: Value =
            serde_json::from_str(&a.nuncio(&*format!("why web {begin} 6379 --json")).stdout)
                .unwrap_or_default();
        let there = why["hops"].as_array().is_some_and(|hops| {
            let mut there = hops.iter().filter(|hop| hop["hop"] == "container");
            there.any(|hop| hop["end"] == begin.as_str() && hop["host"] == "host-2")
        });
        there && why["culprit"].is_null()
    });
}

#[test]
fn without_icc_only_a_link_leads_from_one_to_the_other() {
    let underlay = Underlay::new();
    let host = underlay.host();
    host.start(&["--registry", "embedded", "--icc=false"]);
    host.load(Image::Busybox);
    host.ok("run -d --name db --expose 6379 busybox httpd -f -p 6379");
    host.ok("run -d --name web busybox sleep 1000");
    host.ok("run -d --name linked --link db busybox sleep 1000");
    Broken::breaks(&host, "no link", "web db 6379", "host-1 network");
    Broken::breaks(&host, "not exposed", "linked db 6380", "host-1 network");
    assert_eq!(Broken::ask(&host, "linked db 6379").1, None);
    let text = host.nuncio("why web db 6379");
    assert!(
        text.stdout.contains(
            "web does not reach db: on host-1, both are in bridge, but with --icc=false only a link"
        ),
        "{text:?}"
    );
    let text = host.ok("why linked db:6379");
    assert!(
        text.ends_with("nothing keeps linked from db:6379"),
        "{text}"
    );
}
