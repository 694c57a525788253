use nuncio_orchestration::{
    Availability, HostPort, Mode, Platform, Preference, Protocol, Resources, Spec, explain_pending,
    plan,
};

use crate::world::{World, constraint, replicas};

#[test]
fn replicas_are_spread_and_scaled() {
    let mut world = World::of(3);
    world.add("web", replicas(7));
    world.converge();
    assert_eq!(world.counts("web"), [3, 2, 2]);
    world.service("web").spec.mode = Mode::Replicated { replicas: 3 };
    let before: Vec<_> = world.current("web").into_iter().cloned().collect();
    world.converge();
    assert_eq!(world.counts("web"), [1, 1, 1]);
    assert_eq!(
        world.cluster.tasks.len(),
        3,
        "what was removed is forgotten"
    );
    for task in world.current("web") {
        assert!(before.contains(task), "{task:?} was not there before");
    }
    world.service("web").spec.mode = Mode::Replicated { replicas: 9 };
    world.converge();
    assert_eq!(world.counts("web"), [3, 3, 3]);
    world.cluster.services.clear();
    world.converge();
    assert_eq!(world.cluster.tasks.len(), 0);
}

#[test]
fn the_same_cluster_gives_the_same_plan() {
    let mut world = World::of(5);
    world.add("web", replicas(12));
    assert_eq!(plan(&world.cluster), plan(&world.cluster.clone()));
    // Half of a plan is carried out: the rest of it is planned again, and nothing twice.
    let first = plan(&world.cluster);
    for action in &first.actions[..5] {
        crate::world::apply(&mut world.cluster, action);
    }
    assert_eq!(plan(&world.cluster).actions, first.actions[5..]);
}

#[test]
fn a_global_service_has_one_on_each_host_that_suits() {
    let mut world = World::of(4);
    world.node("n03").labels.insert("disk".into(), "hdd".into());
    let mut spec = Spec {
        mode: Mode::Global,
        ..replicas(0)
    };
    spec.placement.constraints = vec![constraint("node.labels.disk != hdd")];
    world.add("agent", spec);
    world.converge();
    assert_eq!(world.counts("agent"), [1, 1, 1, 0]);
    world.node("n01").availability = Availability::Drain;
    world.node("n02").availability = Availability::Pause;
    world.converge();
    assert_eq!(world.counts("agent"), [1, 0, 1, 0]);
    world.node("n01").availability = Availability::Active;
    world.kill("n00");
    world.converge();
    assert_eq!(world.counts("agent"), [0, 1, 1, 0]);
    world.revive("n00");
    world.converge();
    assert_eq!(world.counts("agent"), [1, 1, 1, 0]);
}

#[test]
fn who_has_no_place_is_told_why() {
    let mut world = World::of(6);
    world.node("n00").availability = Availability::Drain;
    world.node("n01").memory = 1 << 20;
    for id in ["n02", "n03"] {
        world.node(id).labels.insert("zone".into(), "b".into());
    }
    world.node("n04").arch = "aarch64".into();
    let mut spec = replicas(2);
    spec.placement.constraints = vec![constraint("node.labels.zone!=b")];
    spec.placement.reservations.memory = 1 << 30;
    spec.placement.platforms = vec![Platform {
        os: "linux".into(),
        arch: "amd64".into(),
    }];
    let port = HostPort {
        protocol: Protocol::Tcp,
        port: 80,
    };
    spec.placement.host_ports.insert(port);
    world.add("web", spec);
    world.converge();
    assert_eq!(world.places("web"), ["n05", ""]);
    let waiting = world.current("web")[1].clone();
    assert_eq!(
        waiting.reason.as_deref(),
        Some(
            "no suitable node (scheduling constraints not satisfied on 2 nodes; \
             1 node not available for new tasks; insufficient resources on 1 node; \
             unsupported platform on 1 node; host-mode port already in use on 1 node)"
        )
    );
    let each: Vec<_> = explain_pending(&world.cluster, &waiting.id)
        .into_iter()
        .map(|(node, why)| format!("{node}: {why}"))
        .collect();
    assert_eq!(
        each,
        [
            "n00: its availability is drain",
            "n01: insufficient resources: 1073741824 bytes of memory are reserved, 1048576 are free",
            "n02: scheduling constraint node.labels.zone!=b is not satisfied",
            "n03: scheduling constraint node.labels.zone!=b is not satisfied",
            "n04: unsupported platform linux/aarch64",
            "n05: host-mode port 80/tcp is already in use",
        ]
    );
    world.node("n02").labels.clear();
    world.converge();
    assert_eq!(world.places("web"), ["n05", "n02"]);
    assert_eq!(world.current("web")[1].reason, None);
    assert!(explain_pending(&world.cluster, &waiting.id).is_empty());
}

#[test]
fn no_more_than_the_most_for_one_host() {
    let mut world = World::of(2);
    let mut spec = replicas(5);
    spec.placement.max_per_node = 2;
    world.add("web", spec);
    world.converge();
    assert_eq!(world.counts("web"), [2, 2]);
    let reason = world.current("web").iter().find_map(|t| t.reason.clone());
    let told = "no suitable node (max replicas per node limit exceed)";
    assert_eq!(reason.as_deref(), Some(told));
}

#[test]
fn preferences_come_before_the_hosts_own_number() {
    let mut world = World::of(5);
    for (id, rack) in [("n00", "a"), ("n01", "b"), ("n02", "b"), ("n03", "b")] {
        world.node(id).labels.insert("rack".into(), rack.into());
    }
    let mut spec = replicas(9);
    spec.placement.preferences = vec![Preference {
        spread: "node.labels.rack".into(),
    }];
    world.add("web", spec);
    world.converge();
    // Three racks, for n04 is in one without a name.
    assert_eq!(world.counts("web"), [3, 1, 1, 1, 3]);
}

#[test]
fn resources_are_not_given_twice() {
    let mut world = World::of(2);
    let mut spec = replicas(10);
    spec.placement.reservations = Resources {
        cpus: 1_500_000_000,
        memory: 0,
    };
    world.add("web", spec);
    world.converge();
    assert_eq!(world.counts("web"), [2, 2]);
    let waiting = world.places("web").iter().filter(|p| p.is_empty()).count();
    assert_eq!(waiting, 6);
}

#[test]
fn a_frozen_cluster_moves_nothing_and_says_so() {
    let mut world = World::of(3);
    world.add("web", replicas(3));
    world.converge();
    world.kill("n00");
    world.kill("n01");
    world.cluster.frozen = true;
    assert!(plan(&world.cluster).actions.is_empty());
    world.cluster.frozen = false;
    world.converge();
    assert_eq!(world.counts("web"), [0, 0, 3]);
}
