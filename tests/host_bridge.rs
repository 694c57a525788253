//! Containers on a bridge that the host had before, and so on the network that it is on.

mod support;

use support::{Client, Host, Image, Spawned, Underlay, wait_until};

/// A host whose link to the underlay is a port of its bridge br0, as hypervisors are set up; no daemon runs yet.
#[track_caller]
fn bridged(underlay: &Underlay) -> Host {
    let host = underlay.host();
    let address = format!("{}/24", host.address);
    host.ip("link add br0 type bridge");
    host.ip(&format!("address del {address} dev eth0"));
    host.ip("link set eth0 master br0");
    host.ip(&format!("address add {address} dev br0"));
    host.ip("address add 10.55.0.1/24 dev br0");
    host.ip("link set br0 up");
    host
}

/// The bridge, its addresses and ports, but for those of containers.
fn picture(host: &Host, bridge: &str) -> String {
    let own = |line: &&str| !line.contains(" nv-");
    let ports = host.ip(&format!("-o link show master {bridge}"));
    let ports: Vec<&str> = ports.lines().filter(own).collect();
    format!(
        "{}\n{}\n{}",
        host.ip(&format!("-o -d link show {bridge}")),
        host.ip(&format!("-o address show {bridge}")),
        ports.join("\n")
    )
}

/// What of a bridge's details is not the time.
fn settled(picture: &str) -> String {
    let timers = ["_timer", "topology_change"];
    let words: Vec<&str> = picture.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if timers.iter().any(|timer| word.contains(timer)) {
            words.next();
        } else if word != "tentative" {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn address_of(host: &Host, container: &str, network: &str) -> String {
    let field = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    host.ok(["inspect", "-f", &field, container])
}

/// Runs a container that says its name at port 80, which it exposes, and at 81.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &str) {
    let script = format!(
        "socat TCP4-LISTEN:81,fork,reuseaddr SYSTEM:'echo {name}' & \
         exec socat TCP4-LISTEN:80,fork,reuseaddr SYSTEM:'echo {name}'"
    );
    let words = format!("run -d --name {name} --expose 80 {flags} busybox sh -c");
    let words: Vec<&str> = words.split_whitespace().chain([&*script]).collect();
    host.ok(&*words);
    wait_until("it listens", || {
        let listens = "netstat -ltn | grep -q :80 && netstat -ltn | grep -q :81";
        host.nuncio(["exec", name, "sh", "-c", listens]).code == 0
    });
}

/// A program of a host that says a word at port 90.
#[track_caller]
fn says(host: &Host, word: &str) -> Spawned {
    let script = format!(
        "import socket\nserver = socket.create_server(('', 90))\nprint('listens', flush=True)\n\
         while True:\n  client = server.accept()[0]\n  client.sendall(b'{word}')\n  client.close()"
    );
    let mut server = host.spawn_inside("python3", ["-c", &script]);
    server.until("listens");
    server
}

/// What a process of `container` hears at an address; nothing if it does not get there.
fn hears(host: &Host, container: &str, address: &str, port: u16) -> String {
    let ask = format!("socat -u -T 3 TCP4:{address}:{port},connect-timeout=1 -");
    host.nuncio(&format!("exec {container} {ask}"))
        .stdout
        .trim_end()
        .to_owned()
}

#[test]
fn the_default_network_can_be_the_hosts_own() {
    let underlay = Underlay::new();
    let (host, outside) = (bridged(&underlay), underlay.host());
    let before = settled(&picture(&host, "br0"));
    let on_bridge = ["--bridge", "br0", "--fixed-cidr", "198.18.0.64/26"];
    host.start(&on_bridge);
    host.load(Image::Busybox);
    let _on_host = says(&host, "host");
    let _outside = says(&outside, "outside");
    serve(&host, "web", "-p 8080:80");
    let web = address_of(&host, "web", "bridge");
    assert!(web.starts_with("198.18.0."), "{web}");
    let (own, other) = (host.address.to_string(), outside.address.to_string());
    let reached = || {
        wait_until("outside reaches the container itself", || {
            outside.reads(&web, 80) == "web"
        });
        wait_until("the container reaches outside", || {
            hears(&host, "web", &other, 90) == "outside"
        });
    };
    reached();
    assert_eq!(outside.reads(&own, 8080), "web", "by the published port");
    assert_eq!(outside.reads(&own, 90), "host", "the host is not cut off");
    assert_eq!(hears(&host, "web", &own, 90), "host", "nor from within");

    // Other networks are apart from it, and have their way out by it.
    host.ok("network create inner");
    host.ok("run -d --name other --network inner busybox sleep 1000");
    assert_eq!(hears(&host, "other", &other, 90), "outside");
    assert_eq!(hears(&host, "other", &web, 80), "");

    // Nobody else's address is given, and what others do to the bridge stays.
    let taken = host.nuncio("run --rm --network bridge --ip 198.18.0.65 busybox true");
    assert_ne!(taken.code, 0, "{taken:?}");
    host.ip("address add 10.56.0.1/24 dev br0");
    host.ok("run --rm busybox true");
    assert!(host.ip("address show br0").contains("10.56.0.1"));
    host.ip("address del 10.56.0.1/24 dev br0");

    host.kill_daemon();
    assert_eq!(outside.reads(&web, 80), "web", "without a daemon");
    host.start_again();
    reached();
    host.ok("rm -f web other");
    host.ok("network rm inner");
    assert_eq!(settled(&picture(&host, "br0")), before);
    host.kill_daemon();
    host.start(&[&on_bridge[..], &["--icc=false"]].concat());
    serve(&host, "web", "");
    let web = address_of(&host, "web", "bridge");
    host.ok("run -d --name linked --link web:db busybox sleep 1000");
    host.ok("run -d --name other busybox sleep 1000");
    wait_until("a link is the permission", || {
        hears(&host, "linked", "db", 80) == "web"
    });
    assert_eq!(hears(&host, "linked", "db", 81), "", "it is not exposed");
    assert_eq!(hears(&host, "other", &web, 80), "", "it is not linked");
    assert_eq!(
        outside.reads(&web, 81),
        "web",
        "others are not ours to judge"
    );
    host.ok("rm -f web linked other");
    assert_eq!(settled(&picture(&host, "br0")), before);
}

#[test]
fn a_network_can_be_on_a_bridge_that_is_there_or_name_its_own() {
    let underlay = Underlay::new();
    let (host, outside) = (bridged(&underlay), underlay.host());
    host.start(&[]);
    host.load(Image::Busybox);
    let name = "com.docker.network.bridge.name";
    let before = settled(&picture(&host, "br0"));
    for client in Client::ALL {
        client.ok(
            &host,
            &format!("network create -o {name}=br0 --ip-range 198.18.0.128/25 --subnet 198.18.0.0/24 office"),
        );
        let shown = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = client.ok(&host, ["network", "inspect", "-f", shown, "office"]);
        assert_eq!(gateway, host.address.to_string());
        let again = client.run(&host, &format!("network create -o {name}=br0 more"));
        assert!(again.refused(1).contains("networks have same bridge name"));
        serve(&host, "web", "--network office");
        let web = address_of(&host, "web", "office");
        wait_until("outside reaches it", || outside.reads(&web, 80) == "web");
        let own = format!(
            "run --rm --network office --ip {} busybox true",
            host.address
        );
        let refused = client.run(&host, &own);
        assert_ne!(refused.code, 0, "{refused:?}");
        host.kill_daemon();
        assert_eq!(outside.reads(&web, 80), "web", "without a daemon");
        host.start_again();
        host.ok("rm -f web");
        client.ok(&host, "network rm office");
        assert_eq!(settled(&picture(&host, "br0")), before);

        // One that is not there is ours.
        client.ok(&host, &format!("network create -o {name}=br7 own"));
        assert!(host.ip("link").contains("br7:"));
        host.ok("run --rm --network own busybox true");
        client.ok(&host, "network rm own");
        assert!(!host.ip("link").contains("br7:"));
    }
    host.ip("link add br8 type bridge");
    for (flags, words) in [
        (format!("{name}=br8"), "--subnet"),
        (format!("{name}=br8 --subnet 10.58.0.0/24"), "--gateway"),
        (format!("{name}=br0 --internal"), "--internal"),
        (format!("{name}=eth0"), "no bridge"),
        (format!("{name}=a/b"), "invalid bridge name"),
        (format!("{name}=nuncio0"), "same bridge name"),
    ] {
        let refused = host.nuncio(&format!("network create -o {flags} wrong"));
        let refused = refused.refused(1);
        assert!(refused.contains(words), "{flags}: {refused}");
    }
    host.ok(&format!(
        "network create -o {name}=br8 --subnet 10.58.0.0/24 --gateway 10.58.0.9 apart"
    ));
    let down = host.nuncio("run --rm --network apart busybox true");
    assert!(down.stderr.contains("br8 is down"), "{down:?}");
    host.ip("link set br8 up");
    let route = host.ok("run --rm --network apart busybox ip route");
    assert!(route.contains("default via 10.58.0.9"), "{route}");
    host.ip("link del br8");
    let gone = host.nuncio("run --rm --network apart busybox true");
    assert!(gone.stderr.contains("no bridge br8"), "{gone:?}");
    host.ok("run --rm busybox true");
    host.ok("network rm apart");
}

#[test]
fn there_need_be_no_default_network() {
    let underlay = Underlay::new();
    let host = underlay.host();
    host.start(&["--bridge", "none"]);
    host.load(Image::Busybox);
    assert_eq!(host.ok("network ls --format {{.Name}}"), "host\nnone");
    let refused = host.nuncio("run --rm busybox true");
    assert!(
        refused.stderr.contains("network bridge not found"),
        "{refused:?}"
    );
    host.ok("run --rm --network none busybox true");
    host.ok("network create inner");
    host.ok("run --rm --network inner busybox true");
    assert!(!host.ip("link").contains("nuncio0"));
    host.kill_daemon();
    let other = underlay.host();
    let mut wrong = other.daemon_command();
    wrong.args(["--bridge", "br9"]);
    let refused = Spawned::new(wrong, None).finish();
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("there is no such bridge"),
        "{refused:?}"
    );
}
