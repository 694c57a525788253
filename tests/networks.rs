//! Networks that a container joins and leaves, from both clients.

mod support;

use support::{Client, Image, single, wait_until};

#[test]
fn networks_come_and_go_while_it_runs() {
    let host = single(&[Image::Busybox]);
    host.ok("network create inner");
    host.ok("run -d --name web busybox sleep 1000");
    host.ok("run -d --name db --network inner busybox sleep 1000");
    host.docker("network connect --alias site inner web").ok();
    wait_until("its alias is known and it answers", || {
        host.nuncio("exec db ping -c 1 -W 1 site").code == 0
    });
    wait_until("it finds others, too", || {
        host.nuncio("exec web ping -c 1 -W 1 db").code == 0
    });
    let networks = |name: &str| {
        let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
        host.ok(["inspect", "-f", format, name])
    };
    assert_eq!(networks("web"), "bridge inner");
    let refused = host.docker("network connect inner web").refused(1);
    assert!(
        refused.contains("endpoint with name web already exists in network inner"),
        "{refused}"
    );

    // The way out goes by the network that is left.
    host.ok("network disconnect bridge web");
    assert_eq!(networks("web"), "inner");
    let gateway = host.ok([
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Gateway}}",
        "inner",
    ]);
    let route = host.ok("exec web ip route");
    assert!(route.contains(&format!("default via {gateway}")), "{route}");
    assert!(!route.contains("eth0"), "{route}");

    // So it is after a restart, and under the next daemon.
    host.kill_daemon();
    host.start_again();
    assert_eq!(networks("web"), "inner");
    host.ok("restart -t 0 web");
    assert_eq!(networks("web"), "inner");
    wait_until("it finds others again", || {
        host.nuncio("exec web ping -c 1 -W 1 db").code == 0
    });
    host.docker("network connect bridge web").ok();
    assert_eq!(networks("web"), "bridge inner");
    host.docker("network disconnect inner web").ok();
    assert_ne!(host.nuncio("exec db ping -c 1 -W 1 site").code, 0);
    let refused = host.nuncio("network disconnect inner web").refused(1);
    assert!(refused.contains("is not connected to network"), "{refused}");
    host.ok("run -d --name alone --network none busybox sleep 1000");
    let refused = host.nuncio("network connect inner alone").refused(1);
    assert!(refused.contains("private (none) mode"), "{refused}");
    host.ok("rm -f web db alone");
    host.ok("network rm inner");
}

#[test]
fn addresses_are_kept_back_and_handed_out_of_a_range() {
    let host = single(&[Image::Busybox]);
    let create = "network create --subnet 10.97.0.0/24 --gateway 10.97.0.1 --ip-range 10.97.0.16/29 --aux-address printer=10.97.0.18 office";
    for client in Client::ALL {
        client.ok(&host, create);
        let shown = client.ok(
            &host,
            [
                "network",
                "inspect",
                "-f",
                "{{json .IPAM.Config}}",
                "office",
            ],
        );
        for words in [
            "\"Gateway\":\"10.97.0.1\"",
            "\"IPRange\":\"10.97.0.16/29\"",
            "\"AuxiliaryAddresses\":{\"printer\":\"10.97.0.18\"}",
        ] {
            assert!(shown.contains(words), "{client:?}: {shown}");
        }
        let address = |name: &str, flags: &str| {
            client.ok(
                &host,
                &format!("run -d --name {name} --network office {flags} busybox sleep 1000"),
            );
            let field = "{{.NetworkSettings.Networks.office.IPAddress}}";
            client.ok(&host, ["inspect", "-f", field, name])
        };
        // The first of a range is skipped, as that of a subnet is.
        let given = ["one", "two"].map(|name| address(name, ""));
        let free = ["10.97.0.19", "10.97.0.20", "10.97.0.21", "10.97.0.22"];
        let is_free = |given: &String| free.contains(&given.as_str());
        assert!(given.iter().all(is_free), "{client:?}: {given:?}");
        // By itself a container may ask for any that is free.
        assert_eq!(address("three", "--ip 10.97.0.200"), "10.97.0.200");
        let taken = client.run(
            &host,
            "run --name four --network office --ip 10.97.0.18 busybox true",
        );
        assert_ne!(taken.code, 0, "{taken:?}");
        client.ok(&host, "rm -f one two three");
        let _ = client.run(&host, "rm -f four");
        client.ok(&host, "network rm office");
    }
}
