//! What a container does not reach, and whom it cannot pass for.

mod support;

use support::{Client, Host, Image, cluster, single, wait_until};

/// Runs a container that says its name to whoever connects to port 80.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &str) {
    let words = format!("run -d --name {name} {flags} busybox socat TCP4-LISTEN:80,fork,reuseaddr");
    let said = format!("SYSTEM:echo {name}");
    let words: Vec<&str> = words.split_whitespace().chain([&*said]).collect();
    host.ok(&*words);
    wait_until("it listens", || {
        let listening = host.nuncio(["exec", name, "netstat", "-ltn"]).stdout;
        listening.contains(":80 ")
    });
}

/// What a process of `container` hears at an address; nothing if it does not get there.
fn hears(host: &Host, container: &str, address: &str, port: u16) -> String {
    let ask = format!("socat -u -T 3 TCP4:{address}:{port},connect-timeout=1 -");
    let words = format!("exec {container} {ask}");
    host.nuncio(&words).stdout.trim_end().to_owned()
}

#[track_caller]
fn address(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
    host.ok(["inspect", "-f", &format, container])
}

#[track_caller]
fn gateway(host: &Host, container: &str, network: &str) -> String {
    let format = format!("{{{{.NetworkSettings.Networks.{network}.Gateway}}}}");
    host.ok(["inspect", "-f", &format, container])
}

#[test]
fn networks_of_one_host_do_not_meet() {
    let host = single(&[Image::Busybox]);
    for network in ["red", "blue"] {
        host.ok(&format!("network create {network}"));
        serve(&host, network, &format!("--network {network} -p 80"));
    }
    serve(&host, "green", "-p 127.0.0.1::80");
    for (server, network, port) in [("red", "red", 80), ("green", "bridge", 80)] {
        let inside = address(&host, server, network);
        assert_eq!(hears(&host, "blue", &inside, port), "", "{server}");
        assert_eq!(hears(&host, server, &inside, port), server);
    }
    // A published port is open to all, at the host's address.
    let published = host.ok("port red 80/tcp");
    let port = published
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let port = port.expect("a port");
    let outside = host.address.to_string();
    assert_eq!(hears(&host, "blue", &outside, port), "red");
    // But not at what is another network's, or at the port of loopback.
    let red = gateway(&host, "red", "red");
    assert_eq!(hears(&host, "blue", &red, 80), "");
    let published = host.ok("port green 80/tcp");
    let port = published
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    assert_eq!(hears(&host, "blue", &outside, port.expect("a port")), "");
}

#[test]
fn what_listens_on_the_host_is_for_those_who_are_told_of_it() {
    let host = single(&[Image::Busybox]);
    host.ok("network create red");
    // The host's own program is one with the host's network.
    serve(&host, "own", "--network host");
    let outside = host.address.to_string();
    for network in ["bridge", "red"] {
        for client in Client::ALL {
            client.ok(
                &host,
                &format!("run -d --name other --network {network} busybox sleep 1000"),
            );
            let near = gateway(&host, "other", network);
            for address in [&near, &outside] {
                assert_eq!(
                    hears(&host, "other", address, 80),
                    "",
                    "{network} {address}"
                );
                host.ok(&format!("exec other ping -c 1 -W 5 {address}"));
            }
            let told = "--add-host host.docker.internal:host-gateway";
            client.ok(
                &host,
                &format!("run -d --name told --network {network} {told} busybox sleep 1000"),
            );
            for address in ["host.docker.internal", &near, &outside] {
                assert_eq!(
                    hears(&host, "told", address, 80),
                    "own",
                    "{network} {address}"
                );
            }
            assert_eq!(hears(&host, "other", &near, 80), "");
            host.ok("rm -f other told");
        }
    }
    host.stop_daemon();
    host.start(&["--registry", "embedded", "--host-access"]);
    host.ok("run -d --name any --network red busybox sleep 1000");
    assert_eq!(hears(&host, "any", &outside, 80), "own");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let [a, b] = cluster(&[Image::Busybox]);
    let elsewhere = b.address.to_string();
    serve(&b, "elsewhere", "-p 80:80");
    for (driver, near) in [("bridge", &a), ("overlay", &b)] {
        a.ok(&format!("network create -d {driver} --internal inner"));
        serve(near, "web", "--network inner -p 8080:80");
        a.ok("run -d --name client --cap-add NET_ADMIN --network inner busybox sleep 1000");
        wait_until("its neighbour is found", || {
            hears(&a, "client", "web", 80) == "web"
        });
        let ways_out = a.ok("exec client ip route");
        assert!(!ways_out.contains("default"), "{ways_out}");
        // Nor does it find one that it makes itself.
        let address = address(&a, "client", "inner");
        let first = format!("{}.1", address.rsplit_once('.').expect("dots").0);
        let _ = a.nuncio(&format!("exec client ip route add default via {first}"));
        for target in [elsewhere.clone(), a.address.to_string()] {
            assert_eq!(hears(&a, "client", &target, 80), "", "{target}");
            let ping = format!("exec client ping -c 1 -W 1 {target}");
            assert_eq!(a.nuncio(&ping).code != 0, target == elsewhere, "{target}");
        }
        // Nor is there one in, though a port is published.
        assert_eq!(a.reads(&near.address.to_string(), 8080), "");
        near.ok("rm -f web");
        a.ok("rm -f client");
        a.ok("network rm inner");
    }
}

#[test]
fn a_container_with_every_right_in_its_network_is_still_itself() {
    let host = single(&[Image::Busybox]);
    host.ok("network create mesh");
    host.ok("run -d --name other --network mesh busybox sleep 1000");
    host.ok("run -d --name liar --cap-add NET_ADMIN --cap-add NET_RAW --network mesh busybox sleep 1000");
    let (own, other) = (
        address(&host, "liar", "mesh"),
        address(&host, "other", "mesh"),
    );
    let stolen = format!("{}.200", own.rsplit_once('.').expect("dots").0);
    let liar = |command: &str| host.nuncio(&format!("exec liar {command}")).code;
    assert_eq!(liar(&format!("ping -c 1 -W 5 {other}")), 0);
    assert_eq!(liar(&format!("ip address add {stolen}/32 dev eth0")), 0);
    assert_ne!(liar(&format!("ping -c 1 -W 1 -I {stolen} {other}")), 0);
    let to_stolen = format!("exec other ping -c 1 -W 1 {stolen}");
    assert_ne!(host.nuncio(&to_stolen).code, 0);
    let mac = host.ok("exec liar cat /sys/class/net/eth0/address");
    assert_eq!(liar("ip link set eth0 address 02:42:00:00:00:99"), 0);
    assert_ne!(liar(&format!("ping -c 1 -W 1 {other}")), 0);
    assert_eq!(liar(&format!("ip link set eth0 address {mac}")), 0);
    assert_eq!(liar(&format!("ping -c 1 -W 5 {other}")), 0);
    // What was dropped is counted, where an administrator looks for it.
    let counted = host
        .inside("nft", ["list", "table", "bridge", "nuncio"])
        .ok();
    assert!(
        counted
            .lines()
            .any(|line| line.contains("counter packets") && !line.contains("packets 0")),
        "{counted}"
    );
    // So it is in a network that it joins, and leaves.
    host.ok("network create late");
    host.ok("network connect late liar");
    host.ok("run -d --name third --network late busybox sleep 1000");
    let third = address(&host, "third", "late");
    assert_eq!(liar(&format!("ping -c 1 -W 5 {third}")), 0);
    host.ok("network disconnect late liar");
    assert_eq!(liar(&format!("ping -c 1 -W 5 {other}")), 0);
}
