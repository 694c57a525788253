//! Clocks that are wrong: of a host's daemon, and of a member of the registry.

use super::support::{Clock, wait_until};
use super::{Mesh, NOBODY};

const HOUR: i64 = 3600;

/// The lease of each host that lives, and since which revision it does.
fn lives(mesh: &Mesh) -> Vec<(String, u64, i64)> {
    let member = mesh.etcds.member(0);
    let told = member.etcdctl(["get", "--prefix", "/nuncio/v1/alive/", "-w", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.ok()).expect("JSON");
    let keys = told["kvs"].as_array().expect("keys");
    let life = |kv: &serde_json::Value| {
        (
            kv["key"].as_str().expect("a key").to_owned(),
            kv["create_revision"].as_u64().expect("a revision"),
            kv["lease"].as_i64().expect("a lease"),
        )
    };
    keys.iter().map(life).collect()
}

/// What the daemon believes to be the time, in seconds from now.
fn told_ahead(mesh: &Mesh) -> i64 {
    let told = mesh.b.ok("info --format {{.SystemTime}}");
    let told: jiff::Timestamp = told.parse().expect("a time");
    told.as_second() - jiff::Timestamp::now().as_second()
}

#[test]
fn a_clock_is_wrong() {
    let mesh = Mesh::new(false);
    let (clock, etcds) = (Clock::default(), Clock::default());
    mesh.b.set_clock(&clock);
    mesh.b.kill_daemon();
    mesh.b.start_again();
    let other = mesh.follower();
    for place in [other, mesh.etcds.leader()] {
        mesh.etcds.member(place).set_clock(&etcds);
        mesh.etcds.member(place).kill();
        mesh.etcds.start_member(place, "new", &[]);
        mesh.etcds.await_health();
    }
    mesh.await_agreement();
    let before = lives(&mesh);
    assert_eq!(before.len(), 2, "{before:?}");
    for (ahead, whose) in [(HOUR, "is ahead"), (-HOUR, "is behind"), (0, "is right")] {
        let begin = || {
            clock.set_ahead(ahead);
            assert!(
                (told_ahead(&mesh) - ahead).abs() < HOUR / 2,
                "it is not set"
            );
        };
        mesh.endure(&format!("a host's clock {whose}"), NOBODY, begin, || ());
        let begin = || etcds.set_ahead(ahead);
        let fault = format!("the clock of two members {whose}");
        mesh.endure(&fault, NOBODY, begin, || ());
        assert_eq!(
            lives(&mesh),
            before,
            "somebody was held to be dead: {whose}"
        );
    }
}

/// The host that leads.
fn leader(mesh: &Mesh) -> String {
    let mut leader = None;
    wait_until("somebody leads", || {
        let told = mesh.etcds.read("/nuncio/v1/leader");
        let record = told.get("/nuncio/v1/leader");
        let record = record.and_then(|it| serde_json::from_str::<serde_json::Value>(it).ok());
        leader = record.and_then(|it| it["node"].as_str().map(str::to_owned));
        leader.is_some()
    });
    leader.expect("waited for")
}

/// What was waited for by the time of one leader goes on under the next, whose clock is an hour behind that.
#[test]
fn an_update_goes_on_under_a_leader_whose_clock_is_behind() {
    let mesh = Mesh::new(false);
    let clock = Clock::default();
    mesh.b.set_clock(&clock);
    mesh.b.kill_daemon();
    let id = mesh.a.ok("info --format {{.Swarm.NodeID}}");
    wait_until("the host leads whose clock is right", || {
        leader(&mesh) == id
    });
    clock.set_ahead(-HOUR);
    mesh.b.start_again();
    mesh.await_agreement();

    let create = "service create -d --name beat --replicas 4 --update-delay 4s --update-monitor 1s --restart-delay 1s \
                  busybox sleep 10000";
    mesh.a.ok(create);
    let running = || {
        let ps = "service ps beat --filter desired-state=running --format {{.CurrentState}}";
        let told = mesh.b.ok(ps);
        told.lines()
            .filter(|line| line.starts_with("Running"))
            .count()
    };
    wait_until("its tasks run", || running() == 4);
    mesh.a.ok("service update -d --env-add NEW=1 beat");
    let update = || {
        mesh.b
            .ok("service inspect beat --format {{.UpdateStatus.State}}")
    };
    let new = || {
        let list = "ps --filter name=beat -q";
        let hosts = [&mesh.a, &mesh.b];
        let count = |host: &super::Host| {
            let ids = host.ok(list);
            let has = |id: &&str| {
                host.ok(["inspect", "-f", "{{.Config.Env}}", id])
                    .contains("NEW=1")
            };
            ids.lines().filter(has).count()
        };
        hosts.into_iter().map(count).sum::<usize>()
    };
    wait_until("the first is replaced", || new() >= 1);
    mesh.a.stop_daemon();
    wait_until("the update is complete", || update() == "completed");
    assert_ne!(leader(&mesh), id);

    // A task that ends is followed by another one, by that clock too.
    for ahead in [-HOUR, HOUR] {
        clock.set_ahead(ahead);
        wait_until("its tasks run", || running() == 4);
        let of_b = mesh.b.ok("ps --filter name=beat -q");
        let one = of_b.lines().next().expect("a task");
        mesh.b.ok(["kill", one]);
        wait_until("it has ended", || {
            !mesh.b.ok("ps --filter name=beat -q").contains(one)
        });
        wait_until("another one runs", || running() == 4);
    }
    clock.set_ahead(0);
    mesh.a.start_again();
    mesh.nothing_was_lost();
}
