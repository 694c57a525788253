//! What does not get through between hosts is noticed, told, and lived with.

mod support;

use support::{Host, Image, Underlay, cluster, wait_until};

/// Whether that has been told of the path to a host, with that MTU if one is given.
fn told(host: &Host, action: &str, other: &str, mtu: Option<u16>) -> bool {
    let of = format!("event=path_{action}");
    let events = host.ok([
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "-f",
        "type=daemon",
        "-f",
        &of,
        "--format",
        "{{json .Actor.Attributes}}",
    ]);
    let other = format!("\"host\":\"{other}\"");
    let mtu = mtu.map_or_else(String::new, |mtu| format!("\"mtu\":\"{mtu}\""));
    events
        .lines()
        .any(|line| line.contains(&other) && line.contains(&mtu))
}

fn warnings(host: &Host) -> String {
    host.ok(["info", "-f", "{{range .Warnings}}{{.}}\n{{end}}"])
}

/// Whether two hundred kilobytes get from a container on `from` to one on `to`.
fn bulk(from: &Host, to: &str) -> bool {
    let get = format!("printf 'GET /zeros HTTP/1.0\\r\\n\\r\\n' | timeout 3 nc {to} 80 | wc -c");
    let got = from.nuncio(["exec", "client", "sh", "-c", &get]);
    got.stdout
        .trim()
        .parse::<u32>()
        .is_ok_and(|got| got > 200_000)
}

#[test]
fn a_narrow_underlay_is_no_hole_and_is_told_and_so_is_one_that_is_blocked() {
    let [a, b] = cluster(&[Image::Busybox]);
    for host in [&a, &b] {
        // What is too long for the wire is cut up for it, rather than carried over whole as between namespaces.
        host.ip("link set eth0 gso_max_segs 1");
    }
    a.ok("network create -d overlay mesh");
    a.ok("run -d --name client --network mesh busybox sleep 1000");
    let serve = "head -c 200000 /dev/zero >/tmp/zeros; exec httpd -f -h /tmp";
    b.ok([
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    wait_until("two hundred kilobytes come", || bulk(&a, "server"));
    assert_eq!(warnings(&a), "");

    b.underlay().narrow(Some(1400));
    wait_until("the narrow path is told", || {
        told(&a, "narrow", "host-2", Some(1400)) && told(&b, "narrow", "host-1", Some(1400))
    });
    wait_until("two hundred kilobytes come by shorter packets", || {
        bulk(&a, "server")
    });
    assert!(
        a.ip("route show").contains("mtu 1350"),
        "{}",
        a.ip("route show")
    );
    let said = warnings(&a);
    assert!(
        said.contains("packets to host-2 at 198.18.0.2 may have 1400 bytes"),
        "{said}"
    );

    // The next daemon begins with what this one knew.
    a.kill_daemon();
    a.start_again();
    assert!(
        a.ip("route show").contains("mtu 1350"),
        "{}",
        a.ip("route show")
    );

    b.underlay().narrow(None);
    wait_until("the wide path is told", || {
        told(&a, "wide", "host-2", Some(1500))
    });
    wait_until("the route is as before", || {
        !a.ip("route show").contains("mtu")
    });

    b.inside("nft", "add table ip t").ok();
    b.inside(
        "nft",
        "add chain ip t in { type filter hook input priority -10; }",
    )
    .ok();
    b.inside("nft", "add rule ip t in udp dport 4789 drop").ok();
    wait_until("the blocked path is told", || {
        told(&a, "unreachable", "host-2", None)
    });
    let said = warnings(&a);
    assert!(
        said.contains("UDP port 4789) does not get through to host-2"),
        "{said}"
    );
    b.inside("nft", "delete table ip t").ok();
    wait_until("the open path is told", || {
        told(&a, "reachable", "host-2", None)
    });
    wait_until("nothing is left to warn of", || warnings(&a).is_empty());
}

/// The VXLAN device of the one network that two hosts share beside the default one.
fn tunnel(host: &Host, network: &str) -> String {
    let id = host.ok(["network", "inspect", "-f", "{{.Id}}", network]);
    format!("nx-{}", &id.trim()[..8])
}

#[test]
fn checksums_are_left_to_devices_but_where_those_do_not_compute_them() {
    let underlay = Underlay::new();
    let [a, b] = [underlay.host(), underlay.host()];
    let device = underlay.misunderstand(1);
    a.start(&["--registry", "embedded"]);
    b.start(&["--registry", &a.registry_url()]);
    for host in [&a, &b] {
        host.load(Image::Busybox);
        // As a device that cannot cut up what VXLAN carries.
        host.ip("link set eth0 gso_max_segs 1");
    }
    a.ok("network create -d overlay mesh");
    a.ok("run -d --name client --network mesh busybox sleep 1000");
    let serve = "head -c 200000 /dev/zero >/tmp/zeros; exec httpd -f -h /tmp";
    b.ok([
        "run",
        "-d",
        "--name",
        "server",
        "--network",
        "mesh",
        "busybox",
        "sh",
        "-c",
        serve,
    ]);
    let link = tunnel(&a, "mesh");
    for (host, other) in [(&a, "host-2"), (&b, "host-1")] {
        wait_until("broken checksums are told", || {
            told(host, "checksums_broken", other, None)
        });
        wait_until("the host computes them", || !host.tx_checksum(&link, None));
    }
    wait_until("two hundred kilobytes come", || bulk(&a, "server"));
    let said = warnings(&a);
    assert!(
        said.contains("packets to host-2 at 198.18.0.2 whose checksums are left to a device"),
        "{said}"
    );

    // Who has it otherwise, by hand or since the device is made anew, has it mended.
    a.tx_checksum(&link, Some(true));
    wait_until("it is off again", || !a.tx_checksum(&link, None));
    a.ip(&format!("link del {link}"));
    wait_until("the new device computes them, too", || {
        a.ip("link show").contains(&link) && !a.tx_checksum(&link, None)
    });
    wait_until("two hundred kilobytes come again", || bulk(&a, "server"));

    // The next daemon leaves it as it is until it knows.
    a.kill_daemon();
    a.start_again();
    assert!(!a.tx_checksum(&link, None));
    underlay.understand(1, device);
    for host in [&a, &b] {
        wait_until("they are left to devices again", || {
            host.tx_checksum(&link, None)
        });
    }
    wait_until("nothing is left to warn of", || warnings(&a).is_empty());
    assert!(bulk(&a, "server"));
    assert!(!a.ip("link show").contains("nx-checksums"));
}
