//! What somebody changes by hand in the kernel is mended as soon as the kernel tells of it, and told.

mod support;

use std::time::{Duration, Instant};

use support::{Host, Image, cluster, wait_until};

/// What nuncio has in the kernel of a host, without what counts or comes by itself.
fn picture(host: &Host) -> String {
    let script = "ip -o link | sed 's/^[0-9]*: //; s/@if[0-9]*//; s/state [A-Z]*//; s/,LOWER_UP//; s/NO-CARRIER,//' | sort;
        ip -o -4 addr | sed 's/^[0-9]*: //' | sort; ip -4 route | sort; ip neigh show nud permanent | sort;
        bridge fdb | grep nx- | grep -v 33:33: | sort; nft -s list table inet nuncio; cat /proc/sys/net/ipv4/ip_forward";
    host.inside("sh", ["-c", script]).stdout
}

/// The kinds of repairs that were told so far.
fn told(host: &Host) -> Vec<String> {
    let words = "events --since 1 --until 0s -f type=daemon -f event=repair --format {{.Actor.Attributes.kind}}";
    host.ok(words).lines().map(str::to_owned).collect()
}

/// The name of the one link that begins so.
fn link(host: &Host, begin: &str) -> String {
    let links = host.ip("-br link");
    let names = links
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let names = names.map(|name| name.split('@').next().unwrap_or(name));
    let mut found = names.filter(|name| name.starts_with(begin));
    found.next().expect("there is one").to_owned()
}

#[test]
fn what_is_changed_by_hand_is_mended_at_once_and_told() {
    let [a, b] = cluster(&[Image::Busybox]);
    a.ok("network create -d overlay mesh");
    for host in [&a, &b] {
        let name = format!("on-{}", host.address);
        host.ok([
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "mesh",
            "busybox",
            "sleep",
            "1000",
        ]);
    }
    let reaches = || {
        let ping = format!("exec on-{} ping -c 1 -W 2 on-{}", a.address, b.address);
        a.nuncio(&*ping).code == 0
    };
    wait_until("they reach each other", reaches);
    let (bridge, tunnel) = (link(&a, "nb-"), link(&a, "nx-"));
    let before = picture(&a);
    let peer = "$(ip route show dev TUNNEL | awk '/via/ { print $1; exit }')";
    let gateway = "$(ip neigh show dev TUNNEL nud permanent | awk '{ print $1; exit }')";
    let mac = "$(bridge fdb show dev TUNNEL | awk '/dst/ { print $1; exit }')";
    let damages = [
        (format!("ip route del {peer} dev TUNNEL"), "route"),
        (format!("ip route replace blackhole {peer}"), "route"),
        (format!("ip neigh del {gateway} dev TUNNEL"), "neighbour"),
        (format!("bridge fdb del {mac} dev TUNNEL"), "fdb"),
        (
            format!("bridge fdb replace {mac} dev TUNNEL dst 192.0.2.9 self"),
            "fdb",
        ),
        ("ip link del TUNNEL".to_owned(), "link"),
        ("ip link del BRIDGE".to_owned(), "link"),
        ("ip link set TUNNEL down".to_owned(), "link"),
        ("ip link set BRIDGE mtu 1000".to_owned(), "link"),
        ("ip addr flush dev BRIDGE".to_owned(), "address"),
        ("nft delete table inet nuncio".to_owned(), "table"),
        ("nft flush chain inet nuncio forward".to_owned(), "table"),
        ("nft add rule inet nuncio input accept".to_owned(), "table"),
        (
            "echo 0 >/proc/sys/net/ipv4/ip_forward".to_owned(),
            "setting",
        ),
    ];
    for (damage, kind) in damages {
        let damage = damage.replace("TUNNEL", &tunnel).replace("BRIDGE", &bridge);
        let tellings = told(&a).len();
        let done = a.inside("sh", ["-ec", &damage]);
        assert_eq!(done.code, 0, "{damage}: {}", done.stderr);
        let done = Instant::now();
        wait_until(&damage, || {
            // Every 30 s it would be seen in any case, even if nobody listened.
            assert!(
                done.elapsed() < Duration::from_secs(25),
                "{damage}: not heard of"
            );
            told(&a).iter().skip(tellings).any(|told| told == kind) && picture(&a) == before
        });
    }
    assert!(reaches());
}
