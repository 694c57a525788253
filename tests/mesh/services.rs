//! Services in a mesh whose registry lets each host write no more than is its own.

use crate::support::{Host, Image, Underlay, wait_until};
use crate::{found, join};

#[test]
fn a_service_runs_on_hosts_that_have_joined_whoever_leads() {
    let underlay = Underlay::new();
    let hosts: [Host; 2] = std::array::from_fn(|_| underlay.host());
    let [a, b] = &hosts;
    let token = found(a, "");
    join(b, &token, a);
    for host in &hosts {
        host.load(Image::Busybox);
    }
    let words = "service create -q --name web --replicas 2 --stop-grace-period 1s -p 8080:80 busybox httpd -f";
    b.docker(words).ok();
    let running = |host: &Host| {
        host.docker("service ls --format {{.Replicas}}")
            .stdout
            .trim()
            == "2/2"
    };
    wait_until("both tasks run", || running(a));
    for host in &hosts {
        wait_until("each host answers", || {
            host.inside("curl", ["-s", "-m", "5", "http://127.0.0.1:8080/"])
                .code
                == 0
        });
    }
    let told = b.docker("service update -q --env-add N=1 web");
    assert_eq!(told.code, 0, "{told:?}");
    // The logs of all tasks are told by hosts that know each other by certificates.
    b.docker([
        "service",
        "create",
        "-q",
        "--name",
        "talk",
        "--replicas",
        "2",
        "--stop-grace-period",
        "1s",
        "busybox",
        "sh",
        "-c",
        "echo said; exec sleep 1000",
    ])
    .ok();
    wait_until("both are told", || {
        a.docker("service logs --raw talk").stdout.lines().count() == 2
    });
    b.docker("service rm web talk").ok();
    wait_until("nothing is left", || {
        hosts
            .iter()
            .all(|host| host.docker("ps -aq").stdout.is_empty())
    });
}
