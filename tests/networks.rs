//! Networks that a container joins and leaves, from both clients.

mod support;

use support::{Client, Image, cluster, single, wait_until};

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
    // Who leaves `none` may go elsewhere, and back when he is nowhere.
    host.docker("network disconnect none alone").ok();
    host.ok("network connect inner alone");
    assert_eq!(networks("alone"), "inner");
    assert_eq!(host.nuncio("exec db ping -c 1 -W 5 alone").code, 0);
    host.ok("restart -t 0 alone");
    assert_eq!(networks("alone"), "inner");
    assert_eq!(host.nuncio("network connect none alone").code, 1);
    host.ok("network disconnect inner alone");
    host.docker("network connect none alone").ok();
    assert_eq!(networks("alone"), "none");
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

/// Over two hosts.
#[test]
fn an_overlay_keeps_addresses_back_and_hands_them_out_of_a_range() {
    let [a, b] = cluster(&[Image::Busybox]);
    // A host's block is then a /26; the second one's first address is kept back, so that is nobody's.
    a.ok("network create -d overlay --subnet 10.98.0.0/20 --gateway 10.98.0.9 --ip-range 10.98.4.0/22 \
          --aux-address printer=10.98.4.2 --aux-address router=10.98.4.65 office");
    for client in Client::ALL {
        let shown = "{{json .IPAM.Config}}";
        let shown = client.ok(&b, ["network", "inspect", "-f", shown, "office"]);
        for words in [
            "\"Gateway\":\"10.98.0.9\"",
            "\"IPRange\":\"10.98.4.0/22\"",
            "\"printer\":\"10.98.4.2\"",
        ] {
            assert!(shown.contains(words), "{client:?}: {shown}");
        }
    }
    for (host, name, address) in [(&a, "one", "10.98.4.3"), (&b, "two", "10.98.4.130")] {
        host.ok(&format!(
            "run -d --name {name} --network office busybox sleep 1000"
        ));
        let field = "{{.NetworkSettings.Networks.office.IPAddress}}";
        assert_eq!(host.ok(["inspect", "-f", field, name]), address);
    }
    wait_until("they reach each other", || {
        a.nuncio("exec one ping -c 1 -W 1 two").code == 0
    });
    let taken = a.nuncio("run --rm --network office --ip 10.98.4.2 busybox true");
    assert!(taken.stderr.contains("reserved:printer"), "{taken:?}");
    let subnet = "network create -d overlay --subnet 10.99.0.0/20";
    for (flags, words) in [
        ("--ip-range 10.99.4.0/29", "too small"),
        ("--ip-range 10.98.4.0/22", "no matching subnet"),
        ("--aux-address a=10.99.0.0", "Address already in use"),
        (
            "--gateway 10.99.0.7 --aux-address a=10.99.0.7",
            "Address already in use",
        ),
        ("-o com.docker.network.bridge.name=br0", "of one host"),
    ] {
        let refused = a.nuncio(&format!("{subnet} {flags} wrong")).refused(1);
        assert!(refused.contains(words), "{flags}: {refused}");
    }
    a.ok("rm -f one");
    b.ok("rm -f two");
    a.ok("network rm office");
}

#[test]
fn they_are_listed_and_pruned_by_filters() {
    let host = single(&[Image::Busybox]);
    host.ok("network create --label stage=test idle");
    host.ok("network create --label stage=live kept");
    host.ok("network create -d overlay mesh");
    host.ok("network create used");
    host.ok("run -d --name web --network used busybox sleep 1000");
    for client in Client::ALL {
        let id = host.ok("network ls -q --no-trunc --filter name=^idle$");
        for (filter, names) in [
            ("driver=overlay", "mesh"),
            (&*format!("id={}", &id[..12]), "idle"),
            ("label=stage", "idle kept"),
            ("label=stage=live", "kept"),
            ("name=us", "used"),
            ("scope=swarm", "mesh"),
            ("type=builtin", "bridge host none"),
            ("type=custom", "idle kept mesh used"),
            ("dangling=true", "idle kept mesh"),
            ("dangling=false", "bridge host none used"),
        ] {
            let list = ["network", "ls", "--filter", filter, "--format", "{{.Name}}"];
            let found = client.ok(&host, list);
            assert_eq!(found.replace('\n', " "), names, "{client:?} {filter}");
        }
        for wrong in ["type=other", "dangling=perhaps", "colour=red"] {
            let list = ["network", "ls", "--filter", wrong];
            let refused = client.run(&host, list).refused(1);
            assert!(refused.contains("invalid filter"), "{refused}");
        }
        let prune = |filter: &str| {
            client.ok(&host, &format!("network prune -f --filter {filter}"));
            let list = "network ls --filter type=custom --format {{.Name}}";
            host.ok(list).replace('\n', " ")
        };
        assert_eq!(prune("until=1h"), "idle kept mesh used");
        assert_eq!(
            prune("label!=stage=live --filter label=stage"),
            "kept mesh used"
        );
        assert_eq!(prune("until=0s --filter label!=stage"), "kept used");
        host.ok("network create --label stage=test idle");
        host.ok("network create -d overlay mesh");
    }
}
