//! Networks that a container joins and leaves, from both clients.

mod support;

use support::{Image, single, wait_until};

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
