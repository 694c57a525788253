use nuncio_orchestration::{Availability, Desired, Order, Preference, Task, TaskState, plan};

use crate::world::{World, constraint, replicas};

#[test]
fn what_a_dead_host_had_runs_elsewhere_and_ends_when_it_is_back() {
    let mut world = World::of(3);
    world.add("web", replicas(3));
    world.converge();
    let lost = world.current("web")[0].clone();
    let home = lost.node.clone().expect("a host");
    world.kill(&home);
    world.step();
    // At once, and elsewhere.
    assert!(
        world
            .places("web")
            .iter()
            .all(|place| **place != *home && !place.is_empty())
    );
    world.converge();
    assert_eq!(world.cluster.tasks[&lost.id].state, TaskState::Running);
    assert_eq!(world.cluster.tasks[&lost.id].desired, Desired::Shutdown);
    let elsewhere: Vec<_> = world.places("web").into_iter().map(str::to_owned).collect();
    world.revive(&home);
    world.converge();
    assert_eq!(world.cluster.tasks[&lost.id].state, TaskState::Shutdown);
    assert_eq!(world.places("web"), elsewhere, "the new one stands");
}

#[test]
fn who_stays_away_for_a_day_is_given_up() {
    let mut world = World::of(2);
    world.add("web", replicas(2));
    world.converge();
    world.kill("n00");
    world.converge();
    let wake_at = plan(&world.cluster).wake_at.expect("a time");
    assert_eq!(wake_at, world.node("n00").since + 24 * 60 * 60 * 1000);
    world.cluster.now = wake_at;
    world.converge();
    let orphaned = world
        .cluster
        .tasks
        .values()
        .filter(|t| t.state == TaskState::Orphaned);
    assert_eq!(orphaned.count(), 1);
    // A host that is removed takes its tasks along.
    world.cluster.nodes.remove("n01");
    world.revive("n00");
    world.converge();
    assert_eq!(world.counts("web"), [2]);
    let orphaned = world
        .cluster
        .tasks
        .values()
        .filter(|t| t.state == TaskState::Orphaned);
    assert_eq!(orphaned.count(), 3);
}

#[test]
fn a_fenced_task_waits_until_its_predecessor_has_surely_ended() {
    let mut world = World::of(2);
    world.cluster.fence_grace = 3_000;
    let mut spec = replicas(1);
    spec.fence = true;
    world.add("db", spec);
    world.converge();
    world.kill("n00");
    let dead = world.cluster.now;
    let made = world.step();
    assert_eq!(made.wake_at, Some(dead + 3_000));
    assert_eq!(world.places("db"), [""]);
    let reason = world.current("db")[0].reason.clone();
    assert_eq!(
        reason.as_deref(),
        Some("waits for its predecessor to be fenced")
    );
    world.cluster.now = dead + 2_999;
    assert_eq!(plan(&world.cluster).actions, []);
    world.cluster.now = dead + 3_000;
    world.step();
    assert_eq!(world.places("db"), ["n01"]);
}

#[test]
fn a_fenced_host_that_is_back_early_has_to_say_that_it_ended() {
    let mut world = World::of(2);
    world.cluster.fence_grace = 3_000;
    let mut spec = replicas(1);
    spec.fence = true;
    world.add("db", spec);
    world.converge();
    world.kill("n00");
    world.step();
    world.cluster.now += 1_000;
    world.revive("n00");
    world.cluster.now += 60_000;
    world.step();
    assert_eq!(world.places("db"), [""]);
    world.agents();
    world.step();
    assert!(!world.places("db")[0].is_empty());
}

#[test]
fn a_drained_host_gives_up_its_tasks_in_the_order_that_is_set() {
    for order in [Order::StopFirst, Order::StartFirst] {
        let mut world = World::of(3);
        let mut spec = replicas(3);
        spec.update.order = order;
        world.add("web", spec);
        world.converge();
        world.node("n00").availability = Availability::Drain;
        world.step();
        let there = world
            .cluster
            .tasks
            .values()
            .find(|t| t.node.as_deref() == Some("n00"));
        let desired = there.expect("the old task").desired;
        match order {
            Order::StopFirst => assert_eq!(desired, Desired::Shutdown),
            Order::StartFirst => assert_eq!(desired, Desired::Running),
        }
        world.converge();
        assert_eq!(world.counts("web"), [0, 2, 1]);
        let running = world
            .cluster
            .tasks
            .values()
            .filter(|t| t.state == TaskState::Running);
        assert_eq!(running.count(), 3);
        // It is not brought back for its own sake.
        world.node("n00").availability = Availability::Active;
        world.converge();
        assert_eq!(world.counts("web"), [0, 2, 1]);
    }
}

#[test]
fn a_host_that_meets_a_constraint_no_longer_is_left() {
    let mut world = World::of(2);
    for id in ["n00", "n01"] {
        world.node(id).labels.insert("disk".into(), "ssd".into());
    }
    let mut spec = replicas(2);
    spec.placement.constraints = vec![constraint("node.labels.disk==ssd")];
    world.add("web", spec);
    world.converge();
    assert_eq!(world.counts("web"), [1, 1]);
    world.node("n00").labels.clear();
    world.converge();
    assert_eq!(world.counts("web"), [0, 2]);
}

#[test]
fn a_constraint_that_the_host_meets_replaces_nothing() {
    let mut world = World::of(3);
    for (id, disk) in [("n00", "ssd"), ("n01", "ssd"), ("n02", "hdd")] {
        world.node(id).labels.insert("disk".into(), disk.into());
    }
    world.add("web", replicas(3));
    world.converge();
    let before: Vec<_> = world.current("web").into_iter().cloned().collect();
    world.constrain("web", &["node.labels.disk==ssd"]);
    world.converge();
    for task in &before {
        let stays = task.node.as_deref() != Some("n02");
        assert_eq!(world.cluster.tasks[&task.id].up(), stays, "{task:?}");
    }
    assert_eq!(world.counts("web").iter().sum::<usize>(), 3);
    assert_eq!(world.counts("web")[2], 0);
    // They heed it from now on.
    world.node("n00").labels.clear();
    world.converge();
    assert_eq!(world.counts("web"), [0, 3, 0]);
    // Where nobody is replaced there is no update.
    let before: Vec<_> = world.current("web").into_iter().cloned().collect();
    world.constrain("web", &["node.labels.disk!=hdd"]);
    world.converge();
    assert_eq!(world.service("web").update, None);
    let ids = |tasks: Vec<&Task>| tasks.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(before.iter().collect()), ids(world.current("web")));
    // And a change of something else replaces all.
    world.change("web", |_| {});
    world.converge();
    assert!(
        before
            .iter()
            .all(|task| !world.cluster.tasks[&task.id].current())
    );
}

#[test]
fn a_host_that_becomes_smaller_keeps_what_it_has_room_for() {
    let mut world = World::of(2);
    let mut spec = replicas(4);
    spec.placement.reservations.cpus = 1_000_000_000;
    world.add("web", spec);
    world.add("free", replicas(2));
    world.converge();
    assert_eq!(world.counts("web"), [2, 2]);
    world.node("n00").cpus = 1_500_000_000;
    world.converge();
    assert_eq!(world.counts("web"), [1, 3]);
    assert_eq!(world.counts("free"), [1, 1], "who reserves nothing stays");
}

#[test]
fn balance_is_restored_when_asked_one_by_one() {
    let mut world = World::of(3);
    world.add("web", replicas(6));
    world.kill("n01");
    world.kill("n02");
    world.converge();
    assert_eq!(world.counts("web"), [6, 0, 0]);
    world.revive("n01");
    world.revive("n02");
    world.converge();
    assert_eq!(world.counts("web"), [6, 0, 0], "nothing moves unasked");

    world.service("web").rebalance = true;
    let mut created = 0;
    loop {
        let made = world.step();
        if made.actions.is_empty() && !world.agents() {
            break;
        }
        let serving = world.cluster.tasks.values().filter(|t| t.up()).count();
        assert!(serving >= 6, "start-first");
        let new = made
            .actions
            .iter()
            .filter(|a| matches!(a, nuncio_orchestration::Action::Create(_)))
            .count();
        assert!(new <= 1, "one at a time");
        created += new;
        world.agents();
    }
    assert_eq!(world.counts("web"), [2, 2, 2]);
    assert_eq!(created, 4, "no more than has to be");
    assert!(!world.service("web").rebalance);
}

#[test]
fn balance_is_between_racks_first() {
    let mut world = World::of(4);
    for (id, rack) in [("n00", "a"), ("n01", "b"), ("n02", "b"), ("n03", "b")] {
        world.node(id).labels.insert("rack".into(), rack.into());
    }
    let mut spec = replicas(6);
    spec.placement.preferences = vec![Preference {
        spread: "node.labels.rack".into(),
    }];
    world.add("web", spec);
    world.kill("n00");
    world.converge();
    assert_eq!(world.counts("web"), [0, 2, 2, 2]);
    world.revive("n00");
    world.service("web").auto_rebalance = true;
    world.converge();
    assert_eq!(world.counts("web"), [3, 1, 1, 1]);
}

#[test]
fn a_move_for_balance_that_fails_is_given_up() {
    let mut world = World::of(2);
    world.add("web", replicas(4));
    world.kill("n01");
    world.converge();
    world.revive("n01");
    world.service("web").rebalance = true;
    world.step();
    let now = world.cluster.now;
    let new = world
        .cluster
        .tasks
        .values_mut()
        .find(|t| t.node.as_deref() == Some("n01"));
    let new = new.expect("the one that is moved");
    (new.state, new.changed, new.exit_code) = (TaskState::Failed, now, Some(1));
    world.converge();
    assert_eq!(world.counts("web"), [4, 0]);
    assert!(!world.service("web").rebalance);
}
