use nuncio_orchestration::{
    Action, Desired, FailureAction, Order, Spec, Update, UpdateState, plan,
};

use crate::world::{World, replicas};

fn state(world: &World) -> Option<UpdateState> {
    let service = &world.cluster.services["web"];
    service.update.as_ref().map(|update| update.state)
}

fn versions(world: &World) -> Vec<u64> {
    let current = world.current("web").into_iter();
    current.map(|task| task.spec_version).collect()
}

/// A service that runs on three hosts, and is about to be changed.
fn running(spec: Spec) -> World {
    let mut world = World::of(3);
    world.add("web", spec);
    world.converge();
    world
}

#[test]
fn an_update_replaces_each_task() {
    let mut world = running(replicas(4));
    assert_eq!(state(&world), None);
    world.change("web", |_| {});
    world.converge();
    assert_eq!(versions(&world), [2; 4]);
    assert_eq!(state(&world), Some(UpdateState::Completed));
    assert_eq!(world.counts("web"), [2, 1, 1]);
    let update = world.service("web").update.clone().expect("an update");
    assert_eq!(update.message, "update completed");
    assert_eq!((update.version, update.total, update.failures), (2, 4, 0));
}

#[test]
fn scaling_and_settings_are_no_update() {
    let mut world = running(replicas(2));
    let before: Vec<_> = world.current("web").into_iter().cloned().collect();
    let spec = &mut world.service("web").spec;
    spec.mode = nuncio_orchestration::Mode::Replicated { replicas: 3 };
    spec.update.parallelism = 7;
    world.converge();
    assert_eq!(state(&world), None);
    assert_eq!(world.current("web").len(), 3);
    assert!(
        before
            .iter()
            .all(|task| world.current("web").contains(&task))
    );
}

#[test]
fn stop_first_ends_two_at_a_time_and_waits_for_them() {
    let mut world = running(replicas(5));
    world.change("web", |spec| spec.update.parallelism = 2);
    let ended = |actions: &[Action]| {
        let ends = actions.iter().filter(|a| {
            matches!(
                a,
                Action::Desire {
                    desired: Desired::Shutdown,
                    ..
                }
            )
        });
        ends.count()
    };
    assert_eq!(ended(&world.step().actions), 2);
    // The new ones are there and wait; nothing more happens until the old ones have ended.
    let current = world.current("web");
    let waiting = current.iter().filter(|t| t.node.is_none());
    assert_eq!(waiting.count(), 2);
    assert_eq!(plan(&world.cluster).actions, []);
    world.agents();
    let given = world.step().actions;
    assert!(
        given.iter().all(|a| matches!(a, Action::Assign { .. })),
        "{given:?}"
    );
    assert_eq!(given.len(), 2);
    // They run; but as long as one is not announced nothing goes on.
    world.agents();
    let new = world
        .cluster
        .tasks
        .values_mut()
        .find(|t| t.spec_version == 2);
    new.expect("a new task").announced = false;
    assert_eq!(plan(&world.cluster).actions, []);
    world.agents();
    // One plan notes that the batch is up, and begins the next.
    assert_eq!(ended(&world.step().actions), 2);
    world.agents();
    world.step();
    world.agents();
    assert_eq!(ended(&world.step().actions), 1);
}

#[test]
fn start_first_ends_what_is_old_once_the_new_is_up() {
    let mut spec = replicas(3);
    spec.update.order = Order::StartFirst;
    let mut world = running(spec);
    world.change("web", |_| {});
    world.step();
    assert_eq!(versions(&world), [1, 2, 1, 1]);
    let places: Vec<_> = world.places("web").into_iter().map(str::to_owned).collect();
    assert_eq!(
        places[0], places[1],
        "where its predecessor is, for that goes"
    );
    let new = world.current("web")[1].id.clone();
    let seen = world.cluster.tasks.get_mut(&new).expect("the new task");
    seen.state = nuncio_orchestration::TaskState::Running;
    (seen.healthy, seen.announced) = (true, false);
    assert_eq!(plan(&world.cluster).actions, []);
    world
        .cluster
        .tasks
        .get_mut(&new)
        .expect("the new task")
        .announced = true;
    world.step();
    assert_eq!(versions(&world), [2, 1, 1]);
    world.converge();
    assert_eq!(versions(&world), [2; 3]);
    assert_eq!(world.counts("web"), [1, 1, 1]);
}

#[test]
fn start_first_goes_on_once_what_is_old_has_ended() {
    let mut spec = replicas(2);
    spec.update.order = Order::StartFirst;
    let mut world = running(spec);
    world.change("web", |_| {});
    world.step();
    world.agents();
    world.step();
    assert_eq!(versions(&world), [2, 1]);
    // It was asked to end, and has not: nobody is replaced meanwhile.
    world.step();
    assert_eq!(versions(&world), [2, 1]);
    world.agents();
    world.step();
    assert_eq!(versions(&world), [2, 1, 2]);
}

#[test]
fn who_takes_an_update_back_by_hand_goes_by_the_settings_for_that() {
    let mut world = running(replicas(4));
    world.change("web", |_| {});
    world.converge();
    let now = world.cluster.now;
    let service = world.service("web");
    service.spec = service.previous.take().expect("a spec");
    service.spec.rollback.parallelism = 3;
    service.update = Some(Update::going_back(1, now));
    world.step();
    let waiting = world
        .places("web")
        .into_iter()
        .filter(|place| place.is_empty());
    assert_eq!(waiting.count(), 3);
    world.converge();
    let update = world.service("web").update.clone().expect("an update");
    assert_eq!(update.message, "rollback completed");
    assert_eq!(
        (update.state, update.total),
        (UpdateState::RollbackCompleted, 4)
    );
    assert_eq!(versions(&world), [1; 4]);
}

#[test]
fn a_fenced_service_is_stop_first_whatever_it_wants() {
    let mut spec = replicas(1);
    spec.fence = true;
    spec.update.order = Order::StartFirst;
    let mut world = running(spec);
    world.change("web", |_| {});
    world.step();
    assert_eq!(world.places("web"), [""]);
    world.converge();
    assert_eq!(versions(&world), [2]);
}

#[test]
fn batches_are_apart_and_the_last_is_watched() {
    let mut world = running(replicas(2));
    world.change("web", |spec| {
        spec.update.delay = 30_000;
        spec.update.monitor = 7_000;
    });
    let begun = world.cluster.now;
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Completed));
    let mut created: Vec<_> = world.current("web").iter().map(|t| t.created).collect();
    created.sort_unstable();
    assert_eq!(created, [begun, begun + 30_000]);
    assert_eq!(world.cluster.now, begun + 37_000);
}

#[test]
fn another_leader_goes_on_where_the_last_one_was() {
    let mut world = running(replicas(4));
    world.change("web", |spec| spec.update.delay = 10_000);
    for _ in 0..6 {
        world.step();
        world.agents();
    }
    // All that a leader knows is in the records: they are written, and read by another.
    let json = serde_json::to_string(&world.cluster).expect("json");
    let read: nuncio_orchestration::Cluster = serde_json::from_str(&json).expect("a cluster");
    assert_eq!(read, world.cluster);
    let started = world
        .service("web")
        .update
        .clone()
        .expect("an update")
        .started;
    let replaced = versions(&world).iter().filter(|v| **v == 2).count();
    assert_eq!(replaced, 1);
    world.cluster = read;
    world.converge();
    let update = world.service("web").update.clone().expect("an update");
    assert_eq!(
        (update.state, update.started),
        (UpdateState::Completed, started)
    );
    let of_two = world.cluster.tasks.values().filter(|t| t.spec_version == 2);
    assert_eq!(of_two.count(), 4, "nothing was replaced twice");
}

#[test]
fn an_update_that_fails_pauses() {
    let mut world = running(replicas(4));
    world.bad_versions.push(2);
    world.change("web", |spec| spec.restart.max_attempts = 2);
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Paused));
    assert_eq!(versions(&world), [1; 3]);
    let update = world.service("web").update.clone().expect("an update");
    let words = "update paused due to failure or early termination of task ";
    assert!(update.message.starts_with(words), "{}", update.message);
    // Its author changes it once more: it goes on to the end.
    world.change("web", |_| {});
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Completed));
    assert_eq!(versions(&world), [3; 4]);
}

#[test]
fn an_update_that_fails_goes_back() {
    for order in [Order::StopFirst, Order::StartFirst] {
        let mut world = running(replicas(4));
        world.bad_versions.push(2);
        world.change("web", |spec| {
            spec.update.on_failure = FailureAction::Rollback;
            spec.update.order = order;
        });
        world.converge();
        assert_eq!(state(&world), Some(UpdateState::RollbackCompleted));
        assert_eq!(versions(&world), [1; 4]);
        let service = world.service("web");
        assert_eq!(
            (service.spec.version, service.previous.is_none()),
            (1, true)
        );
        if order == Order::StartFirst {
            assert!(
                world.current("web").iter().all(|t| t.attempt == 0),
                "nothing had to end"
            );
        }
    }
}

#[test]
fn a_bad_version_is_taken_back_though_nothing_was_left_to_replace() {
    let mut world = running(replicas(2));
    world.bad_versions.push(2);
    // All tasks end, and are followed by new ones of another version, before anybody could begin an update.
    let tasks = world.cluster.tasks.values_mut();
    for task in tasks {
        (task.state, task.exit_code) = (nuncio_orchestration::TaskState::Failed, Some(1));
    }
    world.change("web", |spec| {
        spec.update.on_failure = FailureAction::Rollback;
    });
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::RollbackCompleted));
    assert_eq!(versions(&world), [1; 2]);
}

#[test]
fn going_back_that_fails_too_stands_still() {
    let mut world = running(replicas(2));
    world.bad_versions.extend([1, 2]);
    world.change("web", |spec| {
        spec.update.on_failure = FailureAction::Rollback;
        spec.restart.max_attempts = 1;
    });
    world
        .service("web")
        .previous
        .as_mut()
        .expect("a spec")
        .restart
        .max_attempts = 1;
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::RollbackPaused));
}

#[test]
fn some_failures_may_be_allowed() {
    let mut world = running(replicas(4));
    world.change("web", |spec| spec.update.max_failure_ratio = 0.25);
    // The first of the new tasks fails once.
    world.step();
    world.agents();
    world.step();
    let now = world.cluster.now;
    let tasks = world.cluster.tasks.values_mut();
    for task in tasks.filter(|t| t.spec_version == 2) {
        task.state = nuncio_orchestration::TaskState::Failed;
        (task.changed, task.exit_code) = (now, Some(1));
    }
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Completed));
    let update = world.service("web").update.clone().expect("an update");
    assert_eq!((update.failures, update.total), (1, 4));
    assert_eq!(versions(&world), [2; 4]);
}

#[test]
fn one_that_fails_everywhere_may_go_on() {
    let mut world = running(replicas(3));
    world.bad_versions.push(2);
    world.change("web", |spec| {
        spec.update.on_failure = FailureAction::Continue;
        spec.restart.max_attempts = 2;
    });
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Completed));
    assert!(versions(&world).is_empty());
    let update = world.service("web").update.clone().expect("an update");
    assert_eq!(update.failures, 3);
}
