//! What `network create --opt` does.

mod support;

use support::{Client, Host, Image, cluster, single, wait_until};

/// Runs a container that says its name at ports 80, which it exposes, and 81, which it does not.
#[track_caller]
fn serve(host: &Host, name: &str, flags: &str) {
    let script = format!(
        "socat TCP6-LISTEN:81,fork,reuseaddr SYSTEM:'echo {name}' & \
         exec socat TCP6-LISTEN:80,fork,reuseaddr SYSTEM:'echo {name}'"
    );
    let words = format!("run -d --name {name} --expose 80 {flags} busybox");
    let words: Vec<&str> = words
        .split_whitespace()
        .chain(["sh", "-c", &script])
        .collect();
    host.ok(&*words);
    wait_until("it listens", || {
        let listens = "netstat -ltn | grep -q :80 && netstat -ltn | grep -q :81";
        host.nuncio(["exec", name, "sh", "-c", listens]).code == 0
    });
}

/// What a process of `container` hears at an address, over that version of IP; nothing if it does not get there.
fn hears(host: &Host, container: &str, ip: u8, address: &str, port: u16) -> String {
    let ask = format!("socat -u -T 3 TCP{ip}:{address}:{port},connect-timeout=1 -");
    let words = format!("exec {container} {ask}");
    host.nuncio(&words).stdout.trim_end().to_owned()
}

/// On a bridge, and from host to host.
#[test]
fn without_icc_a_link_is_the_permission() {
    let [a, b] = cluster(&[Image::Busybox]);
    let quiet = "-o com.docker.network.bridge.enable_icc=false quiet";
    for (driver, far) in [("bridge", &a), ("overlay", &b)] {
        a.ok(&format!("network create -d {driver} --ipv6 {quiet}"));
        serve(&a, "web", "--network quiet");
        let client = |name: &str, link: &str| {
            far.ok(&format!(
                "run -d --name {name} --network quiet {link} busybox sleep 1000"
            ));
        };
        client("linked", "--link web:db");
        client("other", "");
        // Who is linked on the server's own host, too.
        a.ok("run -d --name near --network quiet --link web:db busybox sleep 1000");
        for ip in [4, 6] {
            let hears = |host: &Host, container: &str, address: &str, port| {
                hears(host, container, ip, address, port)
            };
            wait_until("who is linked gets there", || {
                hears(far, "linked", "db", 80) == "web"
            });
            assert_eq!(hears(far, "linked", "web", 80), "web");
            assert_eq!(hears(far, "linked", "web", 81), "", "it is not exposed");
            assert_eq!(hears(far, "other", "web", 80), "", "it is not linked");
            let back = hears(&a, "web", "linked", 80);
            assert_eq!(back, "", "nor is there a way back");
            wait_until("its neighbour gets there", || {
                hears(&a, "near", "db", 80) == "web"
            });
        }
        far.ok("rm -f linked other");
        a.ok("rm -f web near");
        a.ok("network rm quiet");
    }
}

#[test]
fn sizes_and_sources_are_as_asked() {
    let host = single(&[Image::Busybox]);
    let outside = host.underlay().host();
    for client in Client::ALL {
        for (option, mtu) in [
            ("com.docker.network.driver.mtu=1300", "1300"),
            ("com.docker.network.driver.mtu=1600", "1600"),
            ("mtu=1280", "1280"),
        ] {
            client.ok(&host, &format!("network create -o {option} sized"));
            let words = "run --rm --network sized busybox cat /sys/class/net/eth0/mtu";
            assert_eq!(client.ok(&host, words), mtu);
            client.ok(&host, "network rm sized");
        }
        for wrong in [
            "com.docker.network.driver.mtu=67",
            "mtu=65536",
            "com.docker.network.bridge.enable_icc=perhaps",
            "com.docker.network.bridge.enable_ip_masquerade=2",
            "com.docker.network.bridge.host_binding_ipv4=localhost",
        ] {
            let create = format!("network create -o {wrong} sized");
            let refused = client.run(&host, &create).refused(1);
            let option = wrong.split('=').next().unwrap_or_default();
            assert!(refused.contains(option), "{refused}");
        }
        let long = "network create -d overlay -o com.docker.network.driver.mtu=1451 sized";
        let refused = client.run(&host, long).refused(1);
        assert!(refused.contains("1451 is more than the 1450"), "{refused}");
    }
    // Who names no address of the host publishes at the network's.
    let binding = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
    host.ok(&format!("network create -o {binding} shy"));
    let own = host.address.to_string();
    let ports = format!("--network shy -p 8081:80 -p {own}:8082:80");
    serve(&host, "web", &ports);
    assert_eq!(
        host.ok("port web 80/tcp"),
        format!("127.0.0.1:8081\n{own}:8082")
    );
    assert_eq!(outside.reads(&own, 8082), "web");
    assert_eq!(outside.reads(&own, 8081), "");
    wait_until("it answers", || host.reads("127.0.0.1", 8081) == "web");
    // Outside, containers are seen as themselves, if somebody knows the way back.
    let masquerade = "com.docker.network.bridge.enable_ip_masquerade";
    host.ok(&format!(
        "network create --subnet 10.77.0.0/24 -o {masquerade}=false plain"
    ));
    outside.ip(&format!("route add 10.77.0.0/24 via {}", host.address));
    host.ok("run -d --name client --network plain busybox sleep 1000");
    let ping = format!("exec client ping -c 1 -W 5 {}", outside.address);
    assert_eq!(host.nuncio(&ping).code, 0);
    outside.ip("route del 10.77.0.0/24");
    assert_ne!(host.nuncio(&ping).code, 0, "nobody knows the way back");
}
