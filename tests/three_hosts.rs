//! Three hosts: TCP and UDP services by link and by overlay, and networks that do not meet.

mod support;

use support::{Host, Image, cluster, wait_until};

/// Starts a UDP server that sends back what it gets, with its name in front.
fn serve_udp(host: &Host, name: &str, flags: &str) {
    let words = format!(
        "run -d --name {name} --expose 5300/udp {flags} busybox socat UDP4-RECVFROM:5300,fork"
    );
    let reply = format!("SYSTEM:echo {name}; cat");
    let words: Vec<&str> = words.split_whitespace().chain([&*reply]).collect();
    host.ok(&*words);
    wait_until("the UDP server listens", || {
        host.nuncio(["exec", name, "sh", "-c", "netstat -lun | grep -q :5300"])
            .code
            == 0
    });
}

/// What the server at `name` sends back to a client on `host` that is run with `flags`.
fn ask_udp(host: &Host, flags: &str, name: &str) -> String {
    let words = format!("run -i --rm {flags} busybox");
    let ask = format!("echo ping | socat -t 1 - UDP4:{name}:5300");
    let words: Vec<&str> = words.split_whitespace().chain(["sh", "-c", &ask]).collect();
    host.nuncio(&*words).stdout
}

#[test]
fn a_udp_service_by_link() {
    let [_registry, server, client] = cluster(&[Image::Busybox]);
    serve_udp(&server, "echo", "");
    assert_eq!(ask_udp(&client, "--link echo:far", "far"), "echo\nping\n");
    assert_eq!(ask_udp(&server, "--link echo:near", "near"), "echo\nping\n");
    let environment = client.ok("run --rm --link echo:far busybox env");
    assert!(
        environment.contains("FAR_PORT_5300_UDP_PROTO=udp"),
        "{environment}"
    );
}

#[test]
fn a_udp_service_by_overlay() {
    let [a, b, c] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    serve_udp(&b, "echo", "--network mesh");
    for host in [&a, &b, &c] {
        assert_eq!(ask_udp(host, "--network mesh", "echo"), "echo\nping\n");
    }
}

#[test]
fn large_messages_cross_the_overlay() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    a.ok([
        "run",
        "-d",
        "--name",
        "sink",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        "socat -u TCP4-LISTEN:80 - | sha256sum; sleep 1000",
    ]);
    let send = "head -c 20000000 /dev/zero | socat -u - TCP4:sink:80";
    wait_until("the sink listens", || {
        a.nuncio(["exec", "sink", "sh", "-c", "netstat -ltn | grep -q :80"])
            .code
            == 0
    });
    b.ok([
        "run",
        "--rm",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        send,
    ]);
    let expected = a.ok([
        "exec",
        "sink",
        "sh",
        "-c",
        "head -c 20000000 /dev/zero | sha256sum",
    ]);
    wait_until("all of it arrives", || a.ok("logs sink") == expected);
}

#[test]
fn two_overlays_do_not_meet() {
    let [a, b, c] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay red");
    b.ok("network create -d overlay blue");
    serve_udp(&a, "echo", "--network red");
    serve_udp(&b, "other", "--network blue");
    assert_eq!(ask_udp(&c, "--network red", "echo"), "echo\nping\n");
    assert_eq!(ask_udp(&c, "--network blue", "other"), "other\nping\n");
    // Neither by name nor by address.
    assert_eq!(ask_udp(&c, "--network blue", "echo"), "");
    let address = a.ok("inspect -f {{.NetworkSettings.Networks.red.IPAddress}} echo");
    assert_eq!(ask_udp(&c, "--network red", &address), "echo\nping\n");
    for host in [&a, &b, &c] {
        assert_eq!(ask_udp(host, "--network blue", &address), "");
        assert_eq!(ask_udp(host, "", &address), "");
    }
}

#[test]
fn one_name_on_two_networks() {
    let [a, b, c] = cluster(&[Image::Busybox]);
    for network in ["red", "blue"] {
        a.ok(&format!("network create -d overlay {network}"));
    }
    serve_udp(&a, "twin", "--network red");
    serve_udp(&b, "other", "--network blue --network-alias twin");
    assert_eq!(ask_udp(&c, "--network red", "twin"), "twin\nping\n");
    assert_eq!(ask_udp(&c, "--network blue", "twin"), "other\nping\n");
}

#[test]
fn a_container_that_leaves_is_forgotten() {
    let [a, b, c] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    let lookup = |host: &Host| {
        host.nuncio([
            "run",
            "--rm",
            "--network",
            "mesh",
            "busybox",
            "nslookup",
            "web",
        ])
        .code
            == 0
    };
    for host in [&b, &c] {
        host.ok("run -d --name web --network mesh busybox sleep 1000");
        wait_until("its name is known", || lookup(&a));
        host.ok("rm -f web");
        wait_until("its name is gone", || !lookup(&a));
    }
}
