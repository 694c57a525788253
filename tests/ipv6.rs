//! Networks that carry IPv6 beside IPv4, from both clients.

mod support;

use support::{Client, Host, Image, Underlay, cluster, single, wait_until};

/// What `inspect` says of a container's place in a network.
fn place(host: &Host, client: Client, container: &str, network: &str) -> String {
    let format = format!(
        "{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.GlobalIPv6Address}}}}/{{{{.GlobalIPv6PrefixLen}}}} {{{{.IPv6Gateway}}}}{{{{end}}}}"
    );
    client.ok(host, ["inspect", "-f", &format, container])
}

fn pings(host: &Host, from: &str, to: &str) -> bool {
    host.nuncio(["exec", from, "ping6", "-c", "1", "-W", "2", to])
        .code
        == 0
}

/// The addresses that a container's name server gives for a name, of one kind of records.
fn resolved(host: &Host, container: &str, kind: &str, name: &str) -> String {
    let kind = format!("-type={kind}");
    let words = ["exec", container, "nslookup", &kind, name, "127.0.0.11"];
    host.nuncio(words).stdout
}

#[test]
fn a_bridge_carries_both_families() {
    let host = single(&[Image::Busybox]);
    let create = "network create --ipv6 --subnet 10.98.0.0/24 --subnet fd00:98::/64 --gateway fd00:98::1 --ip-range fd00:98:0:0:8::/80 --aux-address printer=fd00:98::8:0:0:2 office";
    for client in Client::ALL {
        client.ok(&host, create);
        let format = "{{.EnableIPv6}} {{json .IPAM.Config}}";
        let shown = client.ok(&host, ["network", "inspect", "-f", format, "office"]);
        for part in [
            "true ",
            r#""Subnet":"10.98.0.0/24""#,
            r#""Subnet":"fd00:98::/64""#,
            r#""Gateway":"fd00:98::1""#,
            r#""IPRange":"fd00:98:0:0:8::/80""#,
            r#""printer":"fd00:98::8:0:0:2""#,
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        client.ok(&host, "run -d --name web --network office --ip6 fd00:98::9 --network-alias site --hostname shop busybox sleep 1000");
        client.ok(
            &host,
            "run -d --name db --network office busybox sleep 1000",
        );
        assert_eq!(
            place(&host, client, "web", "office"),
            "fd00:98::9/64 fd00:98::1"
        );
        // Out of the range, of which the first two are nobody's, and without the one that is kept back.
        assert_eq!(
            place(&host, client, "db", "office"),
            "fd00:98::8:0:0:3/64 fd00:98::1"
        );
        let shown = client.ok(&host, "network inspect office");
        assert!(
            shown.contains(r#""IPv6Address": "fd00:98::9/64""#),
            "{shown}"
        );
        for name in ["web", "site", "fd00:98::9", "fd00:98::1"] {
            wait_until("it answers", || pings(&host, "db", name));
        }
        let answer = resolved(&host, "db", "aaaa", "site");
        assert!(answer.contains("fd00:98::9"), "{answer}");
        let answer = resolved(&host, "db", "a", "site");
        assert!(
            answer.contains("10.98.0.") && !answer.contains("fd00"),
            "{answer}"
        );
        let answer = host.nuncio("exec db nslookup fd00:98::9 127.0.0.11").stdout;
        assert!(answer.contains("web.office"), "{answer}");
        let hosts = host.ok("exec web cat /etc/hosts");
        assert!(hosts.contains("fd00:98::9\tshop"), "{hosts}");
        assert!(
            hosts.contains("\tshop\n") && hosts.contains("10.98.0."),
            "{hosts}"
        );

        let taken = "run --rm --network office --ip6 fd00:98::9 busybox true";
        let refused = client.run(&host, taken).refused(125);
        assert!(refused.contains("fd00:98::9"), "{refused}");
        let outside = "run --rm --network office --ip6 fd00:99::9 busybox true";
        let refused = client.run(&host, outside).refused(125);
        assert!(refused.contains("fd00:99::9"), "{refused}");
        for name in host.ok("ps -aq").lines() {
            host.ok(["rm", "-f", name]);
        }
        client.ok(&host, "network rm office");
    }
}

/// Over two hosts.
#[test]
fn an_overlay_keeps_addresses_back_and_hands_them_out_of_a_range() {
    let [a, b] = cluster(&[Image::Busybox]);
    // A host's block is then a /96; the second one's first address is kept back, so that is nobody's.
    a.ok("network create -d overlay --ipv6 --subnet fd00:98::/64 --gateway fd00:98::9 --ip-range fd00:98:0:0:8::/80 \
          --aux-address printer=fd00:98::8:0:0:2 --aux-address router=fd00:98::8:1:0:1 office");
    for client in Client::ALL {
        let shown = "{{json .IPAM.Config}}";
        let shown = client.ok(&b, ["network", "inspect", "-f", shown, "office"]);
        for words in [
            r#""Gateway":"fd00:98::9""#,
            r#""IPRange":"fd00:98:0:0:8::/80""#,
            r#""printer":"fd00:98::8:0:0:2""#,
        ] {
            assert!(shown.contains(words), "{client:?}: {shown}");
        }
    }
    for (host, name, address) in [
        (&a, "one", "fd00:98::8:0:0:3"),
        (&b, "two", "fd00:98::8:2:0:2"),
    ] {
        host.ok(&format!(
            "run -d --name {name} --network office busybox sleep 1000"
        ));
        let place = place(host, Client::Nuncio, name, "office");
        assert!(place.starts_with(&format!("{address}/")), "{place}");
    }
    wait_until("they reach each other", || pings(&a, "one", "two"));
    // What the network is from the start has been changed by nobody.
    for host in [&a, &b] {
        assert!(!host.log().contains("changed by others"), "{}", host.log());
    }
    let taken = a.nuncio("run --rm --network office --ip6 fd00:98::8:0:0:2 busybox true");
    assert!(taken.stderr.contains("reserved:printer"), "{taken:?}");
    let subnet = "network create -d overlay --ipv6 --subnet fd00:99::/64";
    for (flags, words) in [
        ("--ip-range fd00:99::/122", "too small"),
        ("--ip-range fd00:98::/80", "no matching subnet"),
        ("--aux-address a=fd00:99::", "Address already in use"),
        (
            "--gateway fd00:99::7 --aux-address a=fd00:99::7",
            "Address already in use",
        ),
    ] {
        let refused = a.nuncio(&format!("{subnet} {flags} wrong")).refused(1);
        assert!(refused.contains(words), "{flags}: {refused}");
    }
    a.ok("rm -f one");
    b.ok("rm -f two");
    a.ok("network rm office");
}

#[test]
fn a_running_container_joins_and_leaves_and_keeps_its_address() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        client.ok(&host, "network create --ipv6 office"); // of IPv6 out of the host's own prefix
        let subnet = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
        let subnets = client.ok(&host, ["network", "inspect", "-f", subnet, "office"]);
        let v6 = subnets.split_whitespace().nth(1).expect("two subnets");
        assert!(v6.starts_with("fd") && v6.ends_with("/64"), "{subnets}");
        let prefix = v6.strip_suffix("::/64").expect("a whole /64");
        let own = format!("{prefix}::77");
        client.ok(&host, "run -d --name web busybox sleep 1000");
        client.ok(
            &host,
            "run -d --name db --network office busybox sleep 1000",
        );
        assert_eq!(host.ok("exec web ip -6 route"), "");
        client.ok(
            &host,
            ["network", "connect", "--ip6", &own, "office", "web"],
        );
        wait_until("it is reached", || pings(&host, "db", "web"));
        let expected = format!("{own}/64 {prefix}::1");
        assert_eq!(place(&host, client, "web", "office"), expected);
        // The way out of IPv4 stays where it was, that of IPv6 is the only one.
        let default = host.ok("exec web ip -6 route show default");
        assert!(
            default.contains(&format!("via {prefix}::1 dev eth1")),
            "{default}"
        );
        let default = host.ok("exec web ip route show default");
        assert!(default.contains("dev eth0"), "{default}");

        // So it is under the next daemon, and after a restart.
        host.kill_daemon();
        host.start_again();
        assert!(pings(&host, "db", "web"));
        assert_eq!(place(&host, client, "web", "office"), expected);
        host.ok("restart -t 0 web");
        assert_eq!(place(&host, client, "web", "office"), expected);
        wait_until("it is reached again", || pings(&host, "db", "web"));

        client.ok(&host, "network disconnect office web");
        assert!(!pings(&host, "db", &own));
        assert_eq!(host.ok("exec web ip -6 route"), "");
        host.ok("rm -f web db");
        client.ok(&host, "network rm office");
    }
}

#[test]
fn an_overlay_carries_both_families_across_hosts_on_either_underlay() {
    for (over_v6, options, room) in [
        (false, "", 1450),
        (true, "", 1430),
        (false, "--opt encrypted", 1440),
    ] {
        let underlay = Underlay::new();
        let [a, b] = [underlay.host(), underlay.host()];
        if over_v6 {
            a.use_v6();
            b.use_v6();
        }
        a.start(&["--registry", "embedded"]);
        b.start(&["--registry", &a.registry_url()]);
        for host in [&a, &b] {
            host.load(Image::Busybox);
        }
        a.ok(&*format!(
            "network create -d overlay {options} --ipv6 --subnet fd00:77::/64 mesh"
        ));
        a.ok("run -d --name one --network mesh --label nuncio.service=web busybox sleep 1000");
        b.docker("run -d --name two --network mesh --label nuncio.service=web busybox sleep 1000")
            .ok();
        wait_until("they reach each other", || pings(&a, "one", "two"));
        assert!(pings(&b, "two", "one"));
        let places = [
            place(&a, Client::Docker, "one", "mesh"),
            place(&b, Client::Nuncio, "two", "mesh"),
        ];
        for place in &places {
            assert!(
                place.starts_with("fd00:77::") && place.contains("/80 "),
                "{place}"
            );
        }
        assert_ne!(places[0], places[1], "each host has a block of its own");
        // The largest packet that fits, whole: IPv6 is fragmented by nobody on the way.
        let size = &*(room - 48).to_string();
        let target = places[1].split('/').next().expect("an address");
        a.ok(["exec", "one", "ping6", "-c", "1", "-s", size, target]);
        let mtu = a.ok("exec one cat /sys/class/net/eth0/mtu");
        assert_eq!(mtu, room.to_string());
        wait_until("both are found as tasks", || {
            let found = resolved(&a, "one", "aaaa", "tasks.web");
            places
                .iter()
                .all(|place| found.contains(place.split('/').next().expect("an address")))
        });

        // What somebody takes away of it comes back.
        let route = a
            .inside("sh", ["-c", "ip -6 route | grep 'dev nx-' | head -1"])
            .ok();
        let block = route
            .split_whitespace()
            .next()
            .expect("a route to the peer");
        a.ip(&format!("-6 route del {block}"));
        wait_until("the route is back", || a.ip("-6 route").contains(block));
        a.inside("sysctl", "-qw net.ipv6.conf.all.forwarding=0")
            .ok();
        wait_until("it routes again", || {
            a.inside("sysctl", "-n net.ipv6.conf.all.forwarding")
                .stdout
                .trim()
                == "1"
        });
        let told = "events --since 1 --until 0s -f type=daemon -f event=repair --format {{.Actor.Attributes.object}}";
        let told = a.ok(told);
        assert!(told.contains(&format!("route to {block}")), "{told}");
        assert!(told.contains("net.ipv6.conf.all.forwarding"), "{told}");
        assert!(pings(&b, "two", "one"));
    }
}

#[test]
fn networks_do_not_meet_and_the_way_out_has_the_host_s_address() {
    let [a, world] = cluster(&[Image::Busybox]);
    let outside = world.use_v6().to_string();
    let own = a.use_v6().to_string();
    a.ok("network create --ipv6 one");
    a.ok("network create --ipv6 two");
    a.ok("network create --ipv6 --internal in");
    for (name, network) in [("c1", "one"), ("c2", "two"), ("c3", "in")] {
        a.ok([
            "run",
            "-d",
            "--name",
            name,
            "--network",
            network,
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    let address = |name: &str, network: &str| {
        let place = place(&a, Client::Nuncio, name, network);
        place.split('/').next().expect("an address").to_owned()
    };
    assert!(pings(&a, "c1", &outside));
    assert!(!pings(&a, "c3", &outside), "it is internal");
    assert!(!pings(&a, "c1", &address("c2", "two")));
    assert!(!pings(&a, "c2", &address("c1", "one")));
    assert!(!pings(&a, "c1", &address("c3", "in")));
    // The world knows no way to the container, and sees the host.
    let serve = "socat TCP6-LISTEN:7000,reuseaddr,fork SYSTEM:'echo $SOCAT_PEERADDR'";
    world.ok([
        "run",
        "-d",
        "--network",
        "host",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let connect = format!("socat -u TCP6:[{outside}]:7000,connect-timeout=2 - </dev/null");
    let mut seen = String::new();
    wait_until("somebody answers", || {
        seen = a.nuncio(["exec", "c1", "sh", "-c", &connect]).stdout;
        !seen.is_empty()
    });
    let digits = |text: &str| {
        text.trim()
            .trim_matches(['[', ']'])
            .parse::<std::net::Ipv6Addr>()
    };
    assert_eq!(digits(&seen).expect(&seen), digits(&own).expect("its own"));
}

#[test]
fn what_is_wrong_is_refused() {
    let host = single(&[Image::Busybox]);
    host.ok("network create --ipv6 --subnet fd00:1::/64 taken");
    host.ok("network create plain");
    host.ip("-6 address add fd00:5::1/64 dev eth0 nodad");
    for (words, told) in [
        (
            "network create --ipv6 --subnet fd00:1:0:0:8::/80 x",
            "overlaps fd00:1::/64",
        ),
        (
            "network create --ipv6 --subnet fd00:5::/48 x",
            "overlaps fd00:5::/64, to which this host has a route",
        ),
        ("network create --ipv6 --subnet fd00:2::/127 x", "too small"),
        (
            "network create -d overlay --ipv6 --subnet fd00:2::/124 x",
            "too small to share among hosts, /120",
        ),
        (
            "network create --ipv6 --subnet fd00:2::1/64 x",
            "fd00:2::/64",
        ),
        (
            "network create --ipv6 --subnet fd00:2::/64 --subnet fd00:3::/64 x",
            "more than one --subnet of IPv6",
        ),
        ("network create --subnet fd00:2::/64 x", "not --ipv6"),
        (
            "network create --ipv6 -o mtu=1279 x",
            "MTU 1279 is too small for IPv6, which needs 1280",
        ),
        (
            "network create --ipv6 --subnet fd00:2::/64 --gateway fd00:2::9 x",
            "only the first address of fd00:2::/64",
        ),
        (
            "run --rm --network plain --ip6 fd00:1::9 busybox true",
            "carries no IPv6",
        ),
        (
            "run --rm --network taken --ip6 fd00:1::1 busybox true",
            "fd00:1::1",
        ),
        (
            "run --rm --ip6 fd00:1::9 busybox true",
            "user defined networks only",
        ),
    ] {
        for client in Client::ALL {
            let finished = client.run(&host, words);
            assert_ne!(finished.code, 0, "{words}");
            assert!(finished.stderr.contains(told), "{words}: {finished:?}");
        }
    }
    let others: Vec<String> = host.ok("ps -aq").lines().map(str::to_owned).collect();
    for id in others {
        host.ok(["rm", "-f", &id]);
    }
    // An underlay too narrow for IPv6, at the network's making and at a container's.
    host.ip("link set eth0 mtu 1300");
    for words in [
        "network create --ipv6 narrow",
        "run --rm --network taken busybox true",
    ] {
        let finished = host.nuncio(words);
        assert_ne!(finished.code, 0, "{words}");
        assert!(
            finished
                .stderr
                .contains("needs an MTU of 1280: the underlay leaves 1250"),
            "{finished:?}"
        );
    }
}
