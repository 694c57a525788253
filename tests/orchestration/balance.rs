//! Where newcomers are led, and who they are; and tasks that are spread anew.

use crate::support::{Host, Image, cluster, wait_until};
use crate::{Load, asked, docker, running, until_running, web};

/// What comes back of what is said to a port of a host, and what was said before it: as `shown` has it.
fn echoed(from: &Host, to: &Host, port: u16, shown: &str) -> String {
    let line = format!(
        "exec 3<>/dev/tcp/{}/{port} && echo hi >&3 && ({shown}) <&3",
        to.address
    );
    from.inside("timeout", ["10", "bash", "-c", &line]).stdout
}

#[test]
fn a_published_port_says_who_the_client_is() {
    let hosts = cluster::<3>(&[Image::Busybox]);
    let [a, b, c] = &hosts;
    for (version, port) in [("v1", 8081), ("v2", 8082)] {
        let words = format!(
            "service create -q -d --name {version} --label nuncio.proxy-protocol={version} --stop-grace-period 1s \
             -p {port}:80 busybox socat TCP-LISTEN:80,fork,reuseaddr EXEC:cat"
        );
        docker(a, &words);
    }
    // Whichever host has the task, and whichever is asked.
    for (from, to) in [(c, b), (c, a), (a, c)] {
        let (source, target) = (from.address, to.address);
        let header = format!("PROXY TCP4 {source} {target} ");
        wait_until("a line says it", || {
            let told = echoed(from, to, 8081, "head -n 2");
            let mut lines = told.lines();
            let first = lines.next().unwrap_or_default();
            first.starts_with(&header) && first.ends_with(" 8081") && lines.next() == Some("hi")
        });
        // The signature, version 2 and a command to proxy, TCP over IPv4, 12 bytes, and both addresses.
        let bytes =
            [source, target].map(|it| it.octets().map(|byte| format!("{byte:02x}")).concat());
        let header = format!("0d0a0d0a000d0a515549540a2111000c{}", bytes.concat());
        wait_until("bytes say it", || {
            let told = echoed(from, to, 8082, "head -c 28 | od -An -v -tx1 | tr -d ' \\n'");
            told.starts_with(&header)
        });
    }
    let task = docker(a, "service ps -q v1");
    docker(
        a,
        "service update -q -d --label-rm nuncio.proxy-protocol v1",
    );
    wait_until("nothing is said any more", || {
        echoed(c, b, 8081, "head -n 1") == "hi\n"
    });
    assert_eq!(docker(a, "service ps -q v1"), task, "its task is the same");
}

#[test]
fn tasks_are_spread_anew_when_asked_and_no_request_fails() {
    let hosts = cluster::<2>(&[Image::Busybox]);
    let [a, b] = &hosts;
    docker(a, "node update --availability drain host-2");
    web(a, "-d --replicas 4 -p 8080:80 --stop-grace-period 1s");
    let before = until_running(a, 4);
    docker(a, "node update --availability active host-2");
    wait_until("it answers", || {
        hosts.iter().all(|host| asked(host, 8080).is_some())
    });
    let loads = [Load::on(a, 8080), Load::on(b, 8080)];
    b.ok("service update -q -d --rebalance web");
    let spread = || {
        let now = running(a);
        let here = now.values().filter(|node| *node == "host-1").count();
        (now.len(), here) == (4, 2)
    };
    wait_until("two are on each", spread);
    // No more than has to be.
    let stay = running(a)
        .keys()
        .filter(|task| before.contains_key(*task))
        .count();
    assert_eq!(stay, 2);
    for load in loads {
        assert!(load.without_an_error() > 0);
    }
}

#[test]
fn another_constraint_moves_only_what_does_not_meet_it() {
    let hosts = cluster::<2>(&[Image::Busybox]);
    let [a, b] = &hosts;
    web(a, "-d --replicas 2 --stop-grace-period 1s");
    let before = until_running(a, 2);
    let of_first = |tasks: &std::collections::BTreeMap<String, String>| {
        let mut found = tasks.iter().filter(|(_, node)| *node == "host-1");
        found.next().expect("one is there").0.clone()
    };
    let stays = of_first(&before);
    docker(
        b,
        "service update -q -d --constraint-add node.hostname==host-1 web",
    );
    let all_on = |node: &str| {
        let tasks = running(a);
        tasks.len() == 2 && tasks.values().all(|at| at == node)
    };
    wait_until("both are on the first", || all_on("host-1"));
    let now = running(a);
    assert!(now.contains_key(&stays), "{stays} was replaced: {now:?}");
    // Nobody moves for what all meet, and all do for what their host meets no longer.
    let constraint = "--constraint-rm node.hostname==host-1 --constraint-add node.labels.disk!=hdd";
    docker(b, &format!("service update -q -d {constraint} web"));
    wait_until("it counts for them", || {
        let told = docker(a, "service ps -q --filter desired-state=running web");
        let up_to_date =
            "service ps -q --filter desired-state=running --filter _up-to-date=true web";
        told == docker(a, up_to_date)
    });
    assert_eq!(running(a), now);
    docker(a, "node update --label-add disk=hdd host-1");
    wait_until("both are on the second", || all_on("host-2"));
}
