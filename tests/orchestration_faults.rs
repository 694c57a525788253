//! Services on three hosts with three etcds, as leaders are killed and hosts are cut off.

mod support;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use support::{Etcds, Host, Image, Underlay, wait_until};

/// Three hosts on three etcds, which go away last.
struct Mesh {
    hosts: [Host; 3],
    underlay: Underlay,
    _etcds: Etcds,
}

impl Mesh {
    fn new() -> Self {
        let underlay = Underlay::new();
        let hosts: [Host; 3] = std::array::from_fn(|_| underlay.host());
        let etcds = Etcds::start(&underlay, &[]);
        let urls = etcds.urls("http");
        for host in &hosts {
            host.start(&["--registry", &urls]);
            host.load(Image::Busybox);
        }
        Self {
            hosts,
            underlay,
            _etcds: etcds,
        }
    }

    /// The host of that name.
    fn named(&self, name: &str) -> &Host {
        let number: usize = name.trim_start_matches("host-").parse().expect("a number");
        &self.hosts[number - 1]
    }

    /// Another host than that of this name.
    fn other(&self, name: &str) -> &Host {
        match name {
            "host-1" => &self.hosts[1],
            _ => &self.hosts[0],
        }
    }

    fn leader(&self) -> String {
        let mut leader = String::new();
        wait_until("somebody leads", || {
            let format = "{{if eq .ManagerStatus \"Leader\"}}{{.Hostname}}{{end}}";
            let told = self.hosts[0].docker(["node", "ls", "--format", format]);
            leader = told.stdout.trim().to_owned();
            !leader.is_empty()
        });
        leader
    }

    /// No packet goes to that host, or comes from it.
    fn cut_off(&self, name: &str) {
        let number = name.trim_start_matches("host-");
        self.underlay.block(&format!("ip saddr 198.18.0.{number}"));
    }
}

#[track_caller]
fn create(host: &Host, words: &str) {
    host.docker(&*format!("service create -q {words} busybox sleep 10000"))
        .ok();
}

/// Of a service's tasks that run: each's host.
fn running(host: &Host, service: &str) -> Vec<String> {
    let format = "{{.Node}} {{.CurrentState}}";
    let told = host.docker([
        "service",
        "ps",
        "--filter",
        "desired-state=running",
        "--format",
        format,
        service,
    ]);
    let lines = told.stdout.lines().filter_map(|line| line.split_once(' '));
    let mut nodes: Vec<String> = lines
        .filter(|(_, state)| state.starts_with("Running"))
        .map(|(node, _)| node.to_owned())
        .collect();
    nodes.sort();
    nodes
}

/// All tasks of a service.
fn tasks(host: &Host, service: &str) -> Vec<Value> {
    let socket = host.exec_root().join("nuncio.sock").display().to_string();
    let filters = format!("filters={{\"service\":[\"{service}\"]}}");
    let words = [
        "-s",
        "-G",
        "--unix-socket",
        &socket,
        "--data-urlencode",
        &filters,
        "http://localhost/tasks",
    ];
    let told = host.inside("curl", words);
    serde_json::from_str(&told.stdout).unwrap_or_default()
}

#[test]
fn when_the_leader_dies_the_next_goes_on_with_the_update() {
    let mesh = Mesh::new();
    let leader = mesh.leader();
    let other = mesh.other(&leader);
    create(
        other,
        "--name web --replicas 4 --update-delay 2s --update-monitor 100ms --stop-grace-period 1s",
    );
    wait_until("they run", || running(other, "web").len() == 4);
    other.docker("service update -q -d --env-add N=1 web").ok();
    let renewed = || {
        let is_new =
            |task: &&Value| task["Spec"]["ContainerSpec"]["Env"] == serde_json::json!(["N=1"]);
        let all = tasks(other, "web");
        all.iter()
            .filter(is_new)
            .map(|task| task["Slot"].as_u64().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    wait_until("it is under way", || !renewed().is_empty());
    let dead = mesh.named(&leader);
    dead.kill_daemon();
    dead.start_again();
    wait_until("the update is done", || {
        let told = other
            .docker("service inspect --format {{.UpdateStatus.State}} web")
            .stdout;
        told.trim() == "completed"
    });
    let slots = renewed();
    let distinct: BTreeSet<u64> = slots.iter().copied().collect();
    assert_eq!(
        (slots.len(), distinct.len()),
        (4, 4),
        "each was renewed once: {slots:?}"
    );
    wait_until("all run", || running(other, "web").len() == 4);
}

#[test]
fn a_singleton_that_is_fenced_ends_where_it_is_cut_off_before_it_begins_elsewhere() {
    let mesh = Mesh::new();
    create(
        &mesh.hosts[0],
        "--name one --label nuncio.fence=true --stop-grace-period 1s",
    );
    create(&mesh.hosts[0], "--name all --mode global");
    wait_until("they run", || {
        running(&mesh.hosts[0], "one").len() == 1 && running(&mesh.hosts[0], "all").len() == 3
    });
    let at = running(&mesh.hosts[0], "one").remove(0);
    let (lost, other) = (mesh.named(&at), mesh.other(&at));
    let containers = |host: &Host, service: &str| {
        host.docker(&*format!("ps -q --no-trunc --filter name={service}."))
            .stdout
    };
    let old = containers(lost, "one").trim().to_owned();
    mesh.cut_off(&at);
    wait_until("it runs elsewhere", || {
        let now = running(other, "one");
        now.len() == 1 && now[0] != at
    });
    let time = |host: &Host, what: &str, id: &str| -> Timestamp {
        let told = host
            .docker(["inspect", "-f", &format!("{{{{.State.{what}}}}}"), id])
            .ok();
        told.trim().parse().expect("a time")
    };
    let now = running(other, "one").remove(0);
    let successor = containers(mesh.named(&now), "one").trim().to_owned();
    let (ended, began) = (
        time(lost, "FinishedAt", &old),
        time(mesh.named(&now), "StartedAt", &successor),
    );
    assert!(ended < began, "{ended} is not before {began}");
    assert!(
        !containers(lost, "all").is_empty(),
        "what is not fenced goes on"
    );
    mesh.underlay.unblock();
    wait_until("there is one of it, and three of the other", || {
        let count = |service: &str| -> usize {
            mesh.hosts
                .iter()
                .map(|host| containers(host, service).lines().count())
                .sum()
        };
        count("one") == 1 && count("all") == 3 && running(other, "all").len() == 3
    });
}

#[test]
fn without_its_daemon_or_the_registry_a_task_goes_on_and_is_found_again() {
    let mesh = Mesh::new();
    let [a, b, _] = &mesh.hosts;
    create(a, "--name web --replicas 3");
    wait_until("they run", || running(a, "web").len() == 3);
    let ids = |host: &Host| host.docker("ps -q --no-trunc --filter name=web").stdout;
    let before = ids(b);
    assert!(!before.is_empty());
    b.kill_daemon();
    b.start_again();
    wait_until("all run as before", || running(b, "web").len() == 3);
    assert_eq!(ids(b), before, "it is the same container");
    // Who dies while nobody leads or watches is replaced.
    let id = before.trim();
    b.docker(["kill", id]).ok();
    wait_until("another one is in its place", || {
        running(a, "web").len() == 3 && !ids(b).contains(id)
    });
}
