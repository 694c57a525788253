//! Published ports: which ones, and that they are reached from wherever somebody may be.

mod support;

use support::{Client, Host, Image, cluster, single, wait_until};

/// Runs a container that tells whom it sees, over TCP at port 80 and over UDP at port 5300.
#[track_caller]
fn serve(host: &Host, flags: &str) {
    let script = "socat UDP4-RECVFROM:5300,fork SYSTEM:'echo $SOCAT_PEERADDR; cat >/dev/null' & \
         exec socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR'";
    let words = format!("run -d --name web {flags} busybox");
    let words: Vec<&str> = words
        .split_whitespace()
        .chain(["sh", "-c", script])
        .collect();
    host.ok(&*words);
    wait_until("it listens", || {
        let listens = "netstat -ltn | grep -q :80 && netstat -lun | grep -q :5300";
        host.nuncio(["exec", "web", "sh", "-c", listens]).code == 0
    });
}

/// Who the server says that it sees, over TCP and over UDP, when a process of `container` asks.
fn seen_from(host: &Host, container: &str, address: &str) -> [String; 2] {
    let tcp = format!("socat -u -T 3 TCP4:{address}:8080,connect-timeout=2 -");
    let udp = format!("echo ping | socat -t 2 -T 2 - UDP4:{address}:5353");
    [tcp, udp].map(|ask| {
        let said = host.nuncio(["exec", container, "sh", "-c", &ask]).stdout;
        said.lines().next().unwrap_or_default().to_owned()
    })
}

/// The same for a process of the host itself.
fn seen_by(host: &Host, address: &str) -> [String; 2] {
    let ask = format!("exec 3<>/dev/udp/{address}/5353 && echo ping >&3 && head -n 1 <&3");
    let udp = host.inside("timeout", ["3", "bash", "-c", &ask]).stdout;
    [host.reads(address, 8080), udp.trim_end().to_owned()]
}

/// Of each network, from everywhere.
#[test]
fn a_port_is_reached_from_everywhere() {
    let [a, b] = cluster(&[Image::Busybox]);
    let outside = a.underlay().host();
    a.ok("network create inner");
    a.ok("network create -d overlay mesh");
    a.ok("network create apart");
    a.ok("run -d --name apart --network apart busybox sleep 1000");
    b.ok("run -d --name far --network mesh busybox sleep 1000");
    b.ok("run -d --name default busybox sleep 1000");
    let public = a.address.to_string();
    // Somebody else's rules, which are none of ours to touch.
    for theirs in [
        "add table inet theirs",
        "add chain inet theirs input { type filter hook input priority 10 ; }",
        "add rule inet theirs input tcp dport 8080 counter",
    ] {
        a.inside("nft", theirs).ok();
    }
    let foreign = || {
        a.inside("nft", ["-s", "list", "table", "inet", "theirs"])
            .ok()
    };
    let before = foreign();
    for network in ["bridge", "inner", "mesh"] {
        let flags = format!("--network {network} -p 8080:80 -p 5353:5300/udp");
        serve(&a, &flags);
        a.ok(&format!(
            "run -d --name near --network {network} busybox sleep 1000"
        ));
        // Who comes from outside is seen as who he is.
        assert_eq!(
            seen_by(&outside, &public),
            [outside.address.to_string(), outside.address.to_string()]
        );
        assert_eq!(
            seen_by(&b, &public),
            [b.address.to_string(), b.address.to_string()]
        );
        let answered = |seen: [String; 2], from: &str| {
            assert!(
                seen.iter().all(|seen| !seen.is_empty()),
                "{network}, from {from}: {seen:?}"
            );
        };
        answered(seen_by(&a, &public), "its host, by the public address");
        answered(seen_by(&a, "127.0.0.1"), "its host, by loopback");
        answered(seen_from(&a, "web", &public), "itself");
        answered(seen_from(&a, "near", &public), "its neighbour");
        answered(seen_from(&a, "apart", &public), "another network");
        answered(seen_from(&b, "far", &public), "an overlay on another host");
        answered(
            seen_from(&b, "default", &public),
            "the default network of another host",
        );
        a.ok("rm -f web near");
        assert_eq!(seen_by(&outside, &public), [""; 2], "nobody is there");
    }
    assert_eq!(foreign(), before);
    for host in [&a, &b] {
        let names = host.ok("ps -aq");
        for name in names.lines() {
            host.ok(["rm", "-f", name]);
        }
        host.stop_daemon();
    }
    assert_eq!(foreign(), before);
}

#[test]
fn ports_are_chosen_as_asked() {
    let host = single(&[Image::Busybox]);
    for client in Client::ALL {
        let ports = |flags: &str| {
            client.ok(
                &host,
                &format!("run -d --name web {flags} busybox sleep 1000"),
            );
            let mut lines: Vec<String> = client
                .ok(&host, "port web")
                .lines()
                .filter(|line| !line.contains("[::]"))
                .map(str::to_owned)
                .collect();
            lines.sort();
            client.ok(&host, "rm -f web");
            lines
        };
        assert_eq!(
            ports("-p 8000-8002:80-82"),
            [
                "80/tcp -> 0.0.0.0:8000",
                "81/tcp -> 0.0.0.0:8001",
                "82/tcp -> 0.0.0.0:8002"
            ]
        );
        assert_eq!(ports("-p 8000-8010:80/udp"), ["80/udp -> 0.0.0.0:8000"]);
        assert_eq!(ports("-p 127.0.0.1::80"), ["80/tcp -> 127.0.0.1:49000"]);
        assert_eq!(
            ports("-P --expose 80-81"),
            ["80/tcp -> 0.0.0.0:49000", "81/tcp -> 0.0.0.0:49001"]
        );
        client.ok(&host, "run -d --name first -p 8000:80 busybox sleep 1000");
        assert_eq!(ports("-p 8000-8010:80"), ["80/tcp -> 0.0.0.0:8001"]);
        client.ok(&host, "rm -f first");
        for wrong in ["-p 80:80/sctp", "--expose 80/sctp"] {
            let refused = client
                .run(&host, &format!("create {wrong} busybox true"))
                .refused(1);
            assert!(
                refused.contains("port 80/sctp: SCTP is not built, only TCP and UDP"),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_range_of_one_s_own_is_chosen_from_until_it_is_used_up() {
    let host = single(&[]);
    host.stop_daemon();
    host.start(&["--registry", "embedded", "--publish-range", "40000-40002"]);
    host.load(Image::Busybox);
    // Another program has the second of them.
    host.ok("run -d --name stranger --network host busybox socat TCP4-LISTEN:40001,fork PIPE");
    wait_until("it listens", || {
        let listening = host.nuncio("exec stranger netstat -ltn").stdout;
        listening.contains(":40001 ")
    });
    for (name, port) in [("one", "40000"), ("two", "40002")] {
        host.ok(&format!(
            "run -d --name {name} -P --expose 80 busybox sleep 1000"
        ));
        assert_eq!(
            host.ok(&format!("port {name} 80")),
            format!("0.0.0.0:{port}\n[::]:{port}")
        );
    }
    let refused = host
        .nuncio("run -d -P --expose 80 busybox sleep 1000")
        .refused(125);
    assert!(
        refused.contains("Bind for 0.0.0.0:40000-40002 failed: port is already allocated"),
        "{refused}"
    );
    host.ok("rm -f one");
    host.ok("run -d --name three -P --expose 80 busybox sleep 1000");
    assert_eq!(host.ok("port three 80"), "0.0.0.0:40000\n[::]:40000");
}
