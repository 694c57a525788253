//! Networks, addresses and hosts that cannot be: what is refused, and in which words.

mod support;

use std::process::Command;

use support::{Client, Host, Image, Spawned, Underlay, cluster, single};

#[track_caller]
fn refused(client: Client, host: &Host, line: &str, says: &[&str]) {
    let finished = client.run(host, line);
    let code = if line.starts_with("run") { 125 } else { 1 };
    let message = finished.refused(code);
    for word in says {
        assert!(message.contains(word), "{client:?} {line}: {message}");
    }
}

#[test]
fn subnets() {
    let host = single(&[]);
    host.ok("network create --subnet 10.77.0.0/16 one");
    host.ok("network create -d overlay --subnet 10.78.0.0/16 mesh");
    for client in Client::ALL {
        for driver in ["bridge", "overlay"] {
            let create = |rest: &str| format!("network create -d {driver} {rest} two");
            for (rest, says) in [
                (
                    "--subnet 10.77.3.0/24",
                    &["10.77.3.0/24", "overlaps 10.77.0.0/16"][..],
                ),
                ("--subnet 10.78.0.0/15", &["10.78.0.0/15", "overlaps"]),
                (
                    "--subnet 198.18.0.0/24",
                    &["198.18.0.0/24", "overlaps", "route"],
                ),
                ("--subnet 10.79.0.0/31", &["10.79.0.0/31", "too small"]),
                ("--subnet 10.79.0.0/32", &["10.79.0.0/32", "too small"]),
                ("--subnet 10.79.0.1/24", &["10.79.0.1/24", "10.79.0.0/24"]),
                ("--subnet 10.79.0.0/33", &["10.79.0.0/33"]),
                ("--subnet 10.79.0.0/24 --gateway 10.80.0.1", &["10.80.0.1"]),
                (
                    "--subnet 10.79.0.0/24 --ip-range 10.80.0.0/25",
                    &["10.80.0.0"],
                ),
                (
                    "--subnet 10.79.0.0/24 --aux-address a=10.80.0.9",
                    &["10.80.0.9"],
                ),
            ] {
                refused(client, &host, &create(rest), says);
            }
        }
        refused(
            client,
            &host,
            "network create one",
            &["one", "already exists"],
        );
        refused(
            client,
            &host,
            "network create -d overlay mesh",
            &["mesh", "already exists"],
        );
        let names = client.ok(&host, "network ls --format {{.Name}}");
        assert!(!names.lines().any(|name| name == "two"), "{names}");
    }
}

#[test]
fn addresses_and_members() {
    let host = single(&[Image::Busybox]);
    host.ok("network create --subnet 10.77.0.0/24 one");
    host.ok("network create -d overlay --subnet 10.78.0.0/16 mesh");
    for (network, free, outside) in [("one", "10.77.0.9", "10.80.0.9"), ("mesh", "", "10.80.0.9")] {
        let ip = if free.is_empty() {
            String::new()
        } else {
            format!("--ip {free}")
        };
        host.ok(&format!(
            "run -d --name holder --network {network} {ip} busybox sleep 1000"
        ));
        let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        let held = host.ok(["inspect", "-f", &format, "holder"]);
        for client in Client::ALL {
            let run = |ip: &str| format!("run --rm --network {network} --ip {ip} busybox true");
            refused(client, &host, &run(&held), &[&held, "held by"]);
            let _ = client.run(&host, "container prune -f");
            refused(
                client,
                &host,
                &run(outside),
                &[outside, "not in this host's part"],
            );
            let _ = client.run(&host, "container prune -f");
            let remove = format!("network rm {network}");
            refused(client, &host, &remove, &["has active endpoints", "holder"]);
            refused(
                client,
                &host,
                "run --rm --network nosuch busybox true",
                &["network nosuch not found"],
            );
            let _ = client.run(&host, "container prune -f");
            refused(
                client,
                &host,
                "network connect nosuch holder",
                &["network nosuch not found"],
            );
            refused(
                client,
                &host,
                "network disconnect nosuch holder",
                &["network nosuch not found"],
            );
            refused(client, &host, "network rm nosuch", &["nosuch", "not found"]);
        }
        host.ok("rm -f holder");
        host.ok(&format!("network rm {network}"));
    }
}

/// The daemon's command, with `value` in place of what a flag has.
fn with(host: &Host, flag: &str, value: &str) -> Command {
    let command = host.daemon_command();
    let mut changed = Command::new(command.get_program());
    let mut next = false;
    for word in command.get_args() {
        if next {
            changed.arg(value);
        } else {
            changed.arg(word);
        }
        next = word == flag;
    }
    changed
}

#[track_caller]
fn does_not_start(mut daemon: Command, registry: &str, says: &[&str]) {
    daemon.args(["--registry", registry]);
    let ended = Spawned::new(daemon, None).finish();
    assert_ne!(ended.code, 0);
    let told = ended
        .stderr
        .lines()
        .find(|line| line.starts_with("nuncio: "));
    let told = told.unwrap_or_else(|| panic!("it says why: {}", ended.stderr));
    for word in says {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn hosts_that_pass_for_another() {
    let [first, second] = cluster(&[]);
    let third = first.underlay().host();
    let registry = first.registry_url();
    does_not_start(
        with(&third, "--node-name", "host-2"),
        &registry,
        &["node name host-2 is in use", "--node-name"],
    );
    // Another's address, by which packets for that one would come here.
    let address = second.address.to_string();
    third.ip(&format!("address add {address}/32 dev lo"));
    does_not_start(
        with(&third, "--advertise-addr", &address),
        &registry,
        &[&address, "in use", "--advertise-addr"],
    );
    let nobody = "198.18.0.77";
    does_not_start(
        with(&third, "--advertise-addr", nobody),
        &registry,
        &[nobody, "no address of this host"],
    );
    // Both of them are as they were.
    let nodes = first.ok("node ls");
    assert!(
        nodes.contains("host-1") && nodes.contains("host-2"),
        "{nodes}"
    );
    assert!(!nodes.contains("host-3"), "{nodes}");
    let status = first.ok("registry status --format json");
    for expected in [
        "\"Leader\":\"yes\"",
        "\"Status\":\"Ready\"",
        "\"Name\":\"embedded\"",
    ] {
        assert!(status.contains(expected), "{status}");
    }
}

#[test]
fn an_underlay_that_is_too_narrow() {
    let host = Underlay::new().host();
    host.ip("link set eth0 mtu 100");
    does_not_start(host.daemon_command(), "embedded", &["MTU 100", "68 bytes"]);
    assert!(!host.ip("-br link").contains("nuncio0"));
}

#[test]
fn flags_of_the_daemon() {
    let host = Underlay::new().host();
    for (flag, value, says) in [
        ("--vxlan-port", "0", "0 is not in 1..=65535"),
        ("--publish-range", "200-100", "no range of ports"),
        ("--publish-range", "0-100", "no range of ports"),
        (
            "--default-address-pool",
            "10.0.0.0/16,8",
            "not an address pool",
        ),
        ("--host-access", "perhaps", "unexpected argument"),
    ] {
        let mut daemon = host.daemon_command();
        daemon.args([flag, value]);
        let ended = Spawned::new(daemon, None).finish();
        assert_ne!(ended.code, 0);
        assert!(
            ended.stderr.contains(says),
            "{flag} {value}: {}",
            ended.stderr
        );
    }
}
