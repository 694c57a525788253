//! Services over several hosts, by docker's own client: placed, found, published, scaled, updated, moved, and gone.

#[path = "orchestration/balance.rs"]
mod balance;
mod support;
#[path = "orchestration/told.rs"]
mod told;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{Host, Image, cluster, wait_until};

/// What busybox's own HTTP server answers with, so that one sees who did.
const WEB: &str = "mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 80 -h /www";

#[track_caller]
fn docker(host: &Host, words: &str) -> String {
    host.docker(words).ok()
}

/// Makes a service `web` with more flags.
#[track_caller]
fn web(host: &Host, flags: &str) {
    let words = format!("service create -q --name web {flags} busybox sh -c");
    let words: Vec<&str> = words.split_whitespace().chain([WEB]).collect();
    host.docker(&*words).ok();
}

/// The tasks of `web` that run, with their hosts.
fn running(host: &Host) -> BTreeMap<String, String> {
    let format = "{{.ID}} {{.Node}} {{.CurrentState}}";
    let told = host.docker([
        "service",
        "ps",
        "--no-trunc",
        "--filter",
        "desired-state=running",
        "--format",
        format,
        "web",
    ]);
    let running = told.stdout.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (id, node) = (words.next()?, words.next()?);
        (words.next() == Some("Running")).then(|| (id.to_owned(), node.to_owned()))
    });
    running.collect()
}

#[track_caller]
fn until_running(host: &Host, number: usize) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    wait_until(&format!("{number} tasks run"), || {
        found = running(host);
        found.len() == number
    });
    found
}

/// Whoever answers on a port of the host, asked from itself.
fn asked(host: &Host, port: u16) -> Option<String> {
    let url = format!("http://127.0.0.1:{port}/");
    let told = host.inside("curl", ["-s", "-m", "5", &url]);
    (told.code == 0).then(|| told.stdout.trim().to_owned())
}

fn inspected(host: &Host, what: &str) -> Value {
    let told = host.docker(what).ok();
    let all: Value = serde_json::from_str(&told).unwrap_or_default();
    all[0].clone()
}

/// Asks on and on until it is told to stop; how many were answered, and what went wrong.
struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    asking: std::thread::JoinHandle<(usize, Vec<String>)>,
}

impl Load {
    fn on(host: &Host, port: u16) -> Self {
        let stop = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let url = format!("http://127.0.0.1:{port}/");
        let (ended, mut command) = (std::sync::Arc::clone(&stop), host.command("curl"));
        command.args(["-sS", "-m", "20", &url]);
        let asking = std::thread::spawn(move || {
            let (mut answered, mut failed) = (0, Vec::new());
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let told = command.output().expect("curl runs");
                match told.status.success() && !told.stdout.is_empty() {
                    true => answered += 1,
                    false => failed.push(String::from_utf8_lossy(&told.stderr).into_owned()),
                }
            }
            (answered, failed)
        });
        Self { stop, asking }
    }

    #[track_caller]
    fn without_an_error(self) -> usize {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (answered, failed) = self.asking.join().expect("it asks");
        assert!(failed.is_empty(), "{answered} answered, and {failed:?}");
        answered
    }
}

#[test]
fn a_service_is_spread_found_published_scaled_and_removed() {
    let hosts = cluster::<3>(&[Image::Busybox]);
    let [a, b, c] = &hosts;
    docker(a, "network create -d overlay mesh");
    web(a, "--replicas 3 --network mesh -p 8080:80");
    let tasks = until_running(b, 3);
    let nodes: std::collections::BTreeSet<&String> = tasks.values().collect();
    assert_eq!(nodes.len(), 3, "one on each: {tasks:?}");
    assert_eq!(
        docker(c, "service ls --format {{.Name}}:{{.Replicas}}:{{.Ports}}"),
        "web:3/3:*:8080->80/tcp"
    );

    // Each host leads to all of them.
    for host in &hosts {
        let mut names = std::collections::BTreeSet::new();
        wait_until("all of them answer", || {
            names.extend(asked(host, 8080));
            names.len() == 3
        });
    }
    // By name, from another container of the network.
    b.ok("run -d --name client --network mesh busybox sleep 1000");
    wait_until("it is found by name", || {
        let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 web 80";
        b.nuncio(["exec", "client", "sh", "-c", ask])
            .stdout
            .contains("200 OK")
    });

    assert!(docker(a, "service scale web=1 --detach").contains("web scaled to 1"));
    until_running(a, 1);
    assert!(docker(b, "service rm web").contains("web"));
    wait_until("nothing is left of it", || {
        hosts.iter().all(|host| {
            host.docker("ps -aq --filter label=com.docker.swarm.task")
                .stdout
                .is_empty()
        }) && a.docker("service ls -q").stdout.is_empty()
    });
    wait_until("the port is closed", || {
        hosts.iter().all(|host| asked(host, 8080).is_none())
    });
}

#[test]
fn an_update_and_going_back_lose_no_request() {
    let hosts = cluster::<3>(&[Image::Busybox]);
    let [a, b, c] = &hosts;
    web(
        a,
        "--replicas 3 -p 8080:80 --stop-grace-period 1s --update-monitor 100ms --rollback-monitor 100ms",
    );
    let before = until_running(a, 3);
    wait_until("it answers", || {
        [a, c].iter().all(|host| asked(host, 8080).is_some())
    });
    let loads = [Load::on(a, 8080), Load::on(c, 8080)];
    for (order, number) in [("stop-first", 1), ("start-first", 2)] {
        let told = b.docker(&*format!(
            "service update --update-order {order} --env-add N={number} web"
        ));
        assert!(told.stdout.contains("converged"), "{told:?}");
        wait_until("it is complete", || {
            inspected(a, "service inspect web")["UpdateStatus"]["State"] == "completed"
        });
    }
    let after = running(a);
    assert!(
        after.keys().all(|task| !before.contains_key(task)) && after.len() == 3,
        "{after:?}"
    );
    let told = b.docker("service rollback web");
    assert!(told.stdout.contains("converged"), "{told:?}");
    let env = &inspected(a, "service inspect web")["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"];
    assert_eq!(env, &serde_json::json!(["N=1"]));
    for load in loads {
        assert!(load.without_an_error() > 10);
    }
    // Who saw what has changed meanwhile changes nothing.
    let old = inspected(a, "service inspect web");
    docker(a, "service update --detach --label-add x=y web");
    let body = old["Spec"].to_string();
    let id = old["ID"].as_str().unwrap_or_default();
    let url = format!(
        "http://localhost/services/{id}/update?version={}",
        old["Version"]["Index"]
    );
    let socket = a.exec_root().join("nuncio.sock").display().to_string();
    let told = a.inside(
        "curl",
        [
            "-s",
            "--unix-socket",
            &socket,
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            &body,
            &url,
        ],
    );
    assert!(told.stdout.contains("update out of sequence"), "{told:?}");
}

#[test]
fn an_update_that_fails_stands_still_or_goes_back() {
    let [a] = &cluster::<1>(&[Image::Busybox]);
    web(
        a,
        "--replicas 2 --update-failure-action rollback --update-delay 30s --restart-delay 100ms --stop-grace-period 1s",
    );
    let before = until_running(a, 2);
    let told = a.docker("service update --detach --args false web");
    assert_eq!(told.code, 0, "{told:?}");
    wait_until("it has gone back", || {
        inspected(a, "service inspect web")["UpdateStatus"]["State"] == "rollback_completed"
    });
    let after = until_running(a, 2);
    let told = || docker(a, "service ps --no-trunc web");
    let stays = after.keys().any(|task| before.contains_key(task));
    assert!(stays, "one of them never ended: {before:?}\n{}", told());
    docker(
        a,
        "service update --detach --update-failure-action pause --args false web",
    );
    wait_until("it stands still", || {
        inspected(a, "service inspect web")["UpdateStatus"]["State"] == "paused"
    });
    assert!(!running(a).is_empty(), "one of them serves on");
}

#[test]
fn hosts_are_drained_lost_and_come_back() {
    let hosts = cluster::<3>(&[Image::Busybox]);
    let [a, b, c] = &hosts;
    web(a, "--replicas 3");
    docker(
        a,
        "service create -q --name all --mode global busybox sleep 1000",
    );
    until_running(a, 3);
    docker(a, "node update --availability drain host-2");
    let listed = b.ok("node ls --format {{.Name}}={{.Availability}}");
    assert!(
        listed.contains("host-2=Drain") && listed.contains("host-1=Active"),
        "{listed}"
    );
    wait_until("nothing of it is on the drained host", || {
        let tasks = running(a);
        tasks.len() == 3
            && tasks.values().all(|node| node != "host-2")
            && b.docker("ps -q").stdout.is_empty()
    });
    docker(a, "node update --availability active host-2");
    wait_until("what is on all hosts is there again", || {
        b.docker("ps --format {{.Names}}").stdout.contains("all.")
    });
    // A host that is lost has its tasks begun elsewhere, and ends its own when it is back.
    let tasks = running(a);
    let lost = c.daemon_pid();
    assert!(lost > 0);
    c.underlay().block(&format!("ip saddr {0}", "198.18.0.3"));
    wait_until("they run elsewhere", || {
        let now = running(a);
        now.len() == 3 && now.values().all(|node| node != "host-3")
    });
    assert_ne!(tasks, running(a));
    c.underlay().unblock();
    wait_until("there is nobody twice", || {
        let counted: usize = hosts
            .iter()
            .map(|host| {
                host.docker("ps -q --filter name=web")
                    .stdout
                    .lines()
                    .count()
            })
            .sum();
        counted == 3 && running(a).len() == 3
    });
}

#[test]
fn what_cannot_be_placed_says_why_and_waits() {
    let [a] = &cluster::<1>(&[Image::Busybox]);
    web(a, "-d --constraint node.labels.disk==ssd");
    wait_until("it says why", || {
        let told = a.docker("service ps --no-trunc --format {{.CurrentState}}|{{.Error}} web");
        told.stdout.contains("Pending")
            && told
                .stdout
                .contains("scheduling constraints not satisfied on 1 node")
    });
    docker(a, "node update --label-add disk=ssd host-1");
    until_running(a, 1);
    for (flags, error) in [
        ("--constraint disk", "constraint expected one operator"),
        ("--network nowhere", "network nowhere not found"),
        ("-p 8080:80/sctp", "not built"),
        ("--label nuncio.fence=perhaps", "expected true or false"),
        ("--label nuncio.drain=soon", "expected a time"),
    ] {
        let words = format!("service create -d --name other {flags} busybox sleep 1000");
        let told = a.docker(&*words);
        assert!(told.code != 0 && told.stderr.contains(error), "{told:?}");
    }
    let told = a.docker("service create -d --name web busybox sleep 1000");
    assert!(
        told.stderr
            .contains("name conflicts with an existing object"),
        "{told:?}"
    );
    web_is_published_once(a);
}

fn web_is_published_once(a: &Host) {
    docker(a, "service update -d --publish-add 8080:80 web");
    let told = a.docker("service create -d --name other -p 8080:80 busybox sleep 1000");
    assert!(
        told.stderr
            .contains("port '8080' is already in use by service 'web'"),
        "{told:?}"
    );
}

#[test]
fn logs_are_those_of_all_tasks() {
    let underlay = support::Underlay::new();
    let [a, b] = std::array::from_fn(|_| underlay.host());
    let url = a.registry_url();
    for (host, registry) in [(&a, "embedded"), (&b, url.as_str())] {
        host.start(&["--registry", registry, "--insecure-peek"]);
        host.load(Image::Busybox);
    }
    let talk = "echo slot {{.Task.Slot}} at {{.Node.Hostname}}; exec sleep 10000";
    let words = "service create -q --name talk --replicas 2 --stop-grace-period 1s busybox sh -c";
    let words: Vec<&str> = words.split_whitespace().chain([talk]).collect();
    // What is a template is the environment's and the names', not the command's.
    a.docker(&*words).ok();
    let said = |host: &Host| host.docker("service logs --raw talk").stdout;
    wait_until("both are told", || {
        [&a, &b].iter().all(|host| said(host).lines().count() == 2)
    });
    let told = a.docker("service logs talk").stdout;
    assert!(
        told.contains("talk.1.") && told.contains("talk.2.") && told.contains("@host-2"),
        "{told}"
    );
    let mut follows = b.spawn_docker("service logs -f --raw talk");
    follows.until("slot");
    docker(&a, "service scale -d talk=3");
    wait_until("the third is told too", || {
        follows.output().lines().count() == 3
    });
    drop(follows);
    let told = a.docker("service logs nobody");
    assert!(
        told.code != 0 && told.stderr.contains("no such task or service"),
        "{told:?}"
    );
}

#[test]
fn the_example_stack_serves_and_is_updated() {
    let hosts = cluster::<2>(&[Image::Busybox, Image::Redis]);
    let [a, b] = &hosts;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stack/compose.yml");
    a.ok(["stack", "deploy", "-c", file, "shop"]);
    wait_until("all of it runs", || {
        let told = docker(b, "stack services --format {{.Name}}={{.Replicas}} shop");
        ["primary=1/1", "replica=2/2", "web=2/2", "load=1/1"]
            .iter()
            .all(|part| told.contains(part))
    });
    wait_until("the front answers on both hosts", || {
        hosts.iter().all(|host| asked(host, 8080).is_some())
    });
    let load = hosts.iter().find_map(|host| {
        let found = host.docker("ps -q --filter name=shop_load").stdout;
        (!found.is_empty()).then(|| (host, found.trim().to_owned()))
    });
    let (host, load) = load.expect("the load runs on one of them");
    let counted = || {
        host.docker(["logs", &load])
            .stdout
            .lines()
            .filter_map(|line| line.parse::<u64>().ok())
            .max()
    };
    wait_until("replicas have what the primary was told", || {
        counted().is_some_and(|most| most > 1)
    });
    let told = b.docker("service update --env-add COLOUR=blue --detach shop_replica");
    assert_eq!(told.code, 0, "{told:?}");
    wait_until("the replicas are updated", || {
        let state = &inspected(a, "service inspect shop_replica")["UpdateStatus"]["State"];
        state == "completed"
    });
    a.ok("stack rm shop");
    wait_until("nothing is left of it", || {
        hosts.iter().all(|host| {
            host.docker("ps -aq --filter label=com.docker.swarm.task")
                .stdout
                .is_empty()
        })
    });
}
