use nuncio_orchestration::{FailureAction, UpdateState};

use crate::world::{World, replicas};

fn state(world: &World) -> Option<UpdateState> {
    let service = &world.cluster.services["web"];
    service.update.as_ref().map(|update| update.state)
}

fn versions(world: &World) -> Vec<u64> {
    let current = world.current("web").into_iter();
    current.map(|task| task.spec_version).collect()
}

#[test]
fn an_update_replaces_each_task() {
    let mut world = World::of(3);
    world.add("web", replicas(4));
    world.converge();
    assert_eq!(state(&world), None);
    world.change("web", |_| {});
    world.converge();
    assert_eq!(versions(&world), [2; 4]);
    assert_eq!(state(&world), Some(UpdateState::Completed));
    assert_eq!(world.counts("web"), [2, 1, 1]);
}

#[test]
fn an_update_that_fails_pauses_or_goes_back() {
    let mut world = World::of(3);
    world.bad_versions.push(2);
    let mut spec = replicas(4);
    spec.restart.max_attempts = 3;
    world.add("web", spec);
    world.converge();
    world.change("web", |_| {});
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::Paused));
    assert_eq!(versions(&world), [1; 3]);

    world.change("web", |spec| {
        spec.update.on_failure = FailureAction::Rollback
    });
    world.bad_versions.push(3);
    world.cluster.services.get_mut("web").expect("web").previous =
        Some(nuncio_orchestration::Spec {
            version: 1,
            ..world.cluster.services["web"].spec.clone()
        });
    world.converge();
    assert_eq!(state(&world), Some(UpdateState::RollbackCompleted));
    assert_eq!(versions(&world), [1; 4]);
}
