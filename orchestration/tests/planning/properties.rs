//! What holds of every plan, whatever the cluster.

use std::collections::{BTreeMap, BTreeSet};

use nuncio_orchestration::{Availability, Cluster, Desired, Mode, Node, Order, Task, plan};
use proptest::prelude::*;

use crate::generated::{Event, ServiceLot, event, happen, spec, world};
use crate::world::{World, apply};

/// What is on a host and has not ended.
fn on<'a>(tasks: &'a BTreeMap<String, Task>, node: &Node) -> Vec<&'a Task> {
    let tasks = tasks.values();
    tasks
        .filter(|t| t.node.as_ref() == Some(&node.id) && !t.ended())
        .collect()
}

/// What they reserve together: CPU and memory.
fn reserved<'a>(tasks: impl Iterator<Item = &'a Task>) -> (u64, u64) {
    tasks.fold((0, 0), |(cpus, memory), t| {
        let more = t.placement.reservations;
        (cpus + more.cpus, memory + more.memory)
    })
}

/// No host is given more than it has room for, two tasks of a port, or too many of a service.
fn within_bounds(before: &BTreeMap<String, Task>, cluster: &Cluster) -> Result<(), TestCaseError> {
    for node in cluster.nodes.values() {
        let here = on(&cluster.tasks, node);
        // One that has become smaller has what it had, until that has ended.
        let had = reserved(on(before, node).into_iter());
        let taken = reserved(here.iter().copied());
        prop_assert!(
            taken.0 <= node.cpus.max(had.0) && taken.1 <= node.memory.max(had.1),
            "{node:?}: {taken:?}"
        );
        let mut ports = BTreeSet::new();
        let mut of_service: BTreeMap<&str, u64> = BTreeMap::new();
        for task in here {
            for port in &task.placement.host_ports {
                prop_assert!(ports.insert(port), "{port} of {} twice", node.id);
            }
            let count = of_service.entry(&task.service).or_default();
            *count += 1;
            let most = task.placement.max_per_node;
            prop_assert!(most == 0 || *count <= most, "{count} of {most}");
        }
    }
    Ok(())
}

/// Whether a host may be given such a task, but for what it has already.
fn suits(cluster: &Cluster, node: &str, task: &Task) -> bool {
    let node = &cluster.nodes[node];
    node.alive
        && node.availability == Availability::Active
        && task.placement.constraints.iter().all(|c| c.met_by(node))
}

/// Plans once, and looks at each task that is given a host by it.
fn step(world: &mut World) -> Result<bool, TestCaseError> {
    let made = plan(&world.cluster);
    prop_assert_eq!(&made, &plan(&world.cluster.clone()));
    let before = world.cluster.tasks.clone();
    for action in &made.actions {
        apply(&mut world.cluster, action);
    }
    for task in world.cluster.tasks.values() {
        let Some(node) = &task.node else { continue };
        let given = before.get(&task.id).is_none_or(|t| t.node.is_none());
        prop_assert!(!given || suits(&world.cluster, node, task), "{task:?}");
    }
    within_bounds(&before, &world.cluster)?;
    Ok(!made.actions.is_empty())
}

/// Goes on until nothing is left to do.
fn converge(world: &mut World) -> Result<(), TestCaseError> {
    for _ in 0..500 {
        let planned = step(world)?;
        let changed = world.agents();
        let wake_at = plan(&world.cluster).wake_at;
        match wake_at {
            _ if planned || changed => {}
            Some(at) if at < world.cluster.now + 60 * 60 * 1000 => world.cluster.now = at,
            _ => return Ok(()),
        }
    }
    Err(TestCaseError::fail(format!(
        "no rest: {:#?}",
        plan(&world.cluster).actions
    )))
}

/// What is wanted is there, or says why not; and what waits could be given to no host.
fn all_is_well(world: &World) -> Result<(), TestCaseError> {
    // Start-first, what has to go waits for a place of its successor.
    let goes_first = |task: &&Task| {
        let service = world.cluster.services.get(&task.service);
        service.is_none_or(|service| service.spec.update.order == Order::StopFirst)
    };
    for node in world.cluster.nodes.values().filter(|node| node.alive) {
        let here = on(&world.cluster.tasks, node).into_iter();
        let (cpus, memory) = reserved(here.filter(goes_first));
        prop_assert!(cpus <= node.cpus && memory <= node.memory, "{node:?}");
    }
    for service in world.cluster.services.values() {
        let current = world.current(&service.id);
        let slots: BTreeSet<_> = current.iter().map(|t| &t.slot).collect();
        // Start-first, and there is no room for both: the old one stays as long as the new one waits.
        let placed = || current.iter().filter(|t| t.node.is_some());
        let waiting = || current.iter().filter(|t| t.node.is_none());
        for tasks in [
            placed().map(|t| &t.slot).collect::<Vec<_>>(),
            waiting().map(|t| &t.slot).collect(),
        ] {
            let once: BTreeSet<_> = tasks.iter().collect();
            prop_assert_eq!(once.len(), tasks.len(), "{:?}", current);
        }
        if let Mode::Replicated { replicas } = service.spec.mode {
            prop_assert_eq!(slots.len() as u64, replicas);
        }
        for task in current {
            match &task.node {
                Some(node) => prop_assert!(task.up() && world.cluster.nodes[node].alive),
                None => {
                    prop_assert!(task.reason.is_some());
                    let refusals = nuncio_orchestration::explain_pending(&world.cluster, &task.id);
                    prop_assert!(!refusals.is_empty());
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn nothing_is_exceeded_and_all_comes_to_rest(
        mut world in world(),
        events in prop::collection::vec((event(), 0..4_usize), 0..8),
    ) {
        for (event, steps) in &events {
            happen(&mut world, event);
            for _ in 0..*steps {
                step(&mut world)?;
                world.agents();
            }
        }
        converge(&mut world)?;
        prop_assert_eq!(plan(&world.cluster).actions, []);
        all_is_well(&world)?;
    }

    #[test]
    fn what_runs_stays_where_it_is(mut world in world(), event in event()) {
        converge(&mut world)?;
        let before = world.cluster.clone();
        // Nothing but the fate of a host moves anything: and only what that host had.
        let (Event::Dies(at) | Event::Returns(at) | Event::Drained(at) | Event::Active(at)) = event
        else {
            return Ok(());
        };
        let nodes: Vec<_> = before.nodes.keys().cloned().collect();
        let node = &nodes[at % nodes.len()];
        happen(&mut world, &event);
        converge(&mut world)?;
        for task in before.tasks.values() {
            if task.up() && task.node.as_ref() != Some(node) {
                prop_assert_eq!(world.cluster.tasks.get(&task.id), Some(task));
            }
        }
    }

    #[test]
    fn another_constraint_moves_nothing_that_meets_it(mut world in world(), ssd in any::<bool>()) {
        converge(&mut world)?;
        let before = world.cluster.clone();
        let text = format!("node.labels.ssd=={ssd}");
        world.constrain("s0", &[&text]);
        converge(&mut world)?;
        for task in before.tasks.values().filter(|task| task.up()) {
            let node = &before.nodes[task.node.as_ref().expect("it is up")];
            if node.availability == Availability::Drain {
                continue; // it was to go anyway
            }
            // What does not meet it is replaced step by step, and stays where there is no other place.
            if node.labels["ssd"] == ssd.to_string() || task.service != "s0" {
                let now = world.cluster.tasks.get(&task.id);
                prop_assert!(now.is_some_and(Task::up), "{:?}", now);
            }
        }
    }

    #[test]
    fn tasks_are_level_where_nothing_forbids_it(
        racks in prop::collection::vec(0..4_u8, 1..12),
        replicas in prop::collection::vec(0..20_u64, 1..5),
        preferred in any::<bool>(),
        lost in 0..12_usize,
    ) {
        let mut world = World::of(racks.len());
        for (at, rack) in racks.iter().enumerate() {
            let labels = &mut world.node(&format!("n{at:02}")).labels;
            labels.insert("rack".into(), rack.to_string());
        }
        for (at, replicas) in replicas.iter().enumerate() {
            let lot = ServiceLot {
                replicas: *replicas,
                global: false,
                ssd: None,
                cpus: 0,
                memory: 0,
                port: None,
                most: 0,
                spread: preferred,
                start_first: false,
            };
            world.add(&format!("s{at}"), spec(&lot));
        }
        converge(&mut world)?;
        level(&world, preferred)?;
        // A host is lost and comes back: it is asked for balance, and then it is level again.
        let lost = format!("n{:02}", lost % racks.len());
        world.kill(&lost);
        converge(&mut world)?;
        world.revive(&lost);
        converge(&mut world)?;
        for service in world.cluster.services.values_mut() {
            service.rebalance = true;
        }
        converge(&mut world)?;
        level(&world, preferred)?;
        prop_assert!(world.cluster.services.values().all(|s| !s.rebalance));
    }
}

/// No branch has two more of a service than another: no rack, if that is preferred, and no host of a rack.
fn level(world: &World, preferred: bool) -> Result<(), TestCaseError> {
    let rack = |id: &str| match preferred {
        true => world.cluster.nodes[id].labels["rack"].as_str(),
        false => "",
    };
    for service in world.cluster.services.keys() {
        let counts = world.counts(service);
        let mut racks: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (id, count) in world.cluster.nodes.keys().zip(counts) {
            racks.entry(rack(id)).or_default().push(count);
        }
        let even = |counts: &[usize]| {
            let (most, fewest) = (counts.iter().max(), counts.iter().min());
            most.zip(fewest)
                .is_none_or(|(most, fewest)| most - fewest <= 1)
        };
        let sums: Vec<usize> = racks.values().map(|counts| counts.iter().sum()).collect();
        prop_assert!(even(&sums), "{service}: {racks:?}");
        for counts in racks.values() {
            prop_assert!(even(counts), "{service}: {racks:?}");
        }
    }
    let tasks = world.cluster.tasks.values();
    let unfinished = tasks.filter(|t| t.desired != Desired::Running && !t.ended());
    prop_assert_eq!(unfinished.count(), 0);
    Ok(())
}
