use nuncio_orchestration::{Condition, Desired, Mode, Spec, Task, TaskState, plan};

use crate::world::{World, replicas};

/// Has the only current task of a service end, having run for so long.
fn end(world: &mut World, service: &str, code: i64, ran: u64) -> String {
    world.converge();
    world.cluster.now += ran;
    let id = world.current(service).first().expect("a task").id.clone();
    let now = world.cluster.now;
    let task = world.cluster.tasks.get_mut(&id).expect("a task");
    task.state = if code == 0 {
        TaskState::Complete
    } else {
        TaskState::Failed
    };
    (task.changed, task.exit_code) = (now, Some(code));
    id
}

/// How long after its predecessor's end the next task may begin.
fn delay(world: &mut World) -> u64 {
    world.step();
    let task: &Task = world.current("web").first().copied().expect("a task");
    task.not_before - world.cluster.now
}

#[test]
fn the_condition_says_which_ends_count() {
    for (condition, code, again) in [
        (Condition::Any, 0, true),
        (Condition::Any, 1, true),
        (Condition::OnFailure, 0, false),
        (Condition::OnFailure, 1, true),
        (Condition::None, 0, false),
        (Condition::None, 1, false),
    ] {
        let mut world = World::of(1);
        let mut spec = replicas(1);
        spec.restart.condition = condition;
        world.add("web", spec);
        let ended = end(&mut world, "web", code, 60_000);
        world.converge();
        assert_eq!(
            world.current("web").len(),
            usize::from(again),
            "{condition:?} {code}"
        );
        assert_eq!(world.cluster.tasks[&ended].desired, Desired::Shutdown);
        // What is not begun again is begun anew by an update.
        world.change("web", |_| {});
        world.converge();
        assert_eq!(world.current("web").len(), 1, "{condition:?} {code}");
    }
}

#[test]
fn the_delay_is_kept_and_grows_while_it_fails_at_once() {
    let mut world = World::of(1);
    world.add("web", replicas(1));
    let mut delays = Vec::new();
    for _ in 0..7 {
        end(&mut world, "web", 1, 500);
        delays.push(delay(&mut world));
        let reason = world.current("web")[0].reason.clone();
        assert_eq!(
            reason.as_deref(),
            Some("waits for the delay of its restart policy")
        );
        assert_eq!(world.places("web"), [""]);
        let wake_at = plan(&world.cluster).wake_at;
        assert_eq!(wake_at, Some(world.current("web")[0].not_before));
    }
    assert_eq!(
        delays,
        [5_000, 10_000, 20_000, 40_000, 60_000, 60_000, 60_000]
    );
    end(&mut world, "web", 1, 11_000);
    assert_eq!(delay(&mut world), 5_000, "it ran for a while");
}

#[test]
fn attempts_are_counted_within_the_window() {
    for (window, ran, restarts) in [(0, 60_000, 3), (100_000, 60_000, 20), (100_000, 20_000, 3)] {
        let mut world = World::of(1);
        let mut spec = replicas(1);
        spec.restart.max_attempts = 3;
        spec.restart.window = window;
        spec.restart.delay = 0;
        world.add("web", spec);
        world.converge();
        let mut counted = 0;
        while counted < 20 {
            end(&mut world, "web", 1, ran);
            world.converge();
            if world.current("web").is_empty() {
                break;
            }
            counted += 1;
        }
        assert_eq!(counted, restarts, "within {window}, having run for {ran}");
    }
}

#[test]
fn five_that_ended_are_remembered() {
    let mut world = World::of(1);
    world.add("web", replicas(1));
    for _ in 0..12 {
        end(&mut world, "web", 1, 20_000);
    }
    world.converge();
    let mut attempts: Vec<_> = world.cluster.tasks.values().map(|t| t.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [7, 8, 9, 10, 11, 12]);
}

#[test]
fn a_host_on_which_it_fails_again_and_again_comes_last() {
    let mut world = World::of(2);
    let mut spec = replicas(1);
    spec.restart.delay = 0;
    world.add("web", spec);
    world.add("other", replicas(1));
    for failures in 0..5 {
        world.converge();
        assert_eq!(world.places("web"), ["n01"], "after {failures} failures");
        end(&mut world, "web", 1, 100);
    }
    world.converge();
    assert_eq!(world.places("web"), ["n00"]);
}

#[test]
fn a_job_runs_until_it_has_ended_well_often_enough() {
    let mut world = World::of(2);
    world.add(
        "job",
        Spec {
            version: 1,
            mode: Mode::ReplicatedJob {
                total: 5,
                concurrent: 2,
            },
            ..Spec::default()
        },
    );
    let mut ends = 0;
    loop {
        world.converge();
        let running = world.current("job").len();
        if running == 0 {
            break;
        }
        assert!(running <= 2);
        // The second one to end fails, and is begun again.
        end(&mut world, "job", i64::from(ends == 1), 20_000);
        ends += 1;
    }
    assert_eq!(ends, 6);
    let complete = |world: &World| {
        let tasks = world.cluster.tasks.values();
        tasks.filter(|t| t.state == TaskState::Complete).count()
    };
    assert_eq!(complete(&world), 5);
    // Another version is another run.
    world.change("job", |_| {});
    world.converge();
    assert_eq!(world.current("job").len(), 2);
}

#[test]
fn a_global_job_ends_well_once_on_each_host() {
    let mut world = World::of(3);
    world.node("n02").availability = nuncio_orchestration::Availability::Drain;
    world.add(
        "job",
        Spec {
            version: 1,
            mode: Mode::GlobalJob,
            ..Spec::default()
        },
    );
    world.converge();
    assert_eq!(world.counts("job"), [1, 1, 0]);
    end(&mut world, "job", 0, 100);
    world.converge();
    assert_eq!(world.counts("job"), [0, 1, 0]);
    world.node("n02").availability = nuncio_orchestration::Availability::Active;
    world.converge();
    assert_eq!(world.counts("job"), [0, 1, 1]);
    end(&mut world, "job", 0, 100);
    end(&mut world, "job", 0, 100);
    world.converge();
    assert_eq!(world.current("job").len(), 0);
}
