//! What holds of every plan, whatever the cluster.

use std::collections::{BTreeMap, BTreeSet};

use nuncio_orchestration::{
    Availability, Cluster, Desired, HostPort, Mode, Order, Preference, Protocol, Resources, Spec,
    Task, TaskState, plan,
};
use proptest::prelude::*;

use crate::world::{World, apply, constraint, node};

/// A host: rack, whether it has an SSD, CPUs, GiB, and whether it is given tasks.
#[derive(Clone, Debug)]
struct HostLot {
    rack: u8,
    ssd: bool,
    cpus: u64,
    memory: u64,
    alive: bool,
    availability: Availability,
}

/// A service: how many of it, and what it asks of hosts.
#[derive(Clone, Debug)]
struct ServiceLot {
    replicas: u64,
    global: bool,
    ssd: Option<bool>,
    cpus: u64,
    memory: u64,
    port: Option<u16>,
    most: u64,
    spread: bool,
    start_first: bool,
}

fn host() -> impl Strategy<Value = HostLot> {
    let availability = prop_oneof![
        6 => Just(Availability::Active),
        1 => Just(Availability::Pause),
        1 => Just(Availability::Drain),
    ];
    let alive = prop::bool::weighted(0.9);
    (
        0..3_u8,
        any::<bool>(),
        1..5_u64,
        1..5_u64,
        alive,
        availability,
    )
        .prop_map(|(rack, ssd, cpus, memory, alive, availability)| HostLot {
            rack,
            ssd,
            cpus,
            memory,
            alive,
            availability,
        })
}

fn service() -> impl Strategy<Value = ServiceLot> {
    (
        (0..9_u64, prop::bool::weighted(0.2)),
        prop::option::of(any::<bool>()),
        (0..4_u64, 0..4_u64),
        prop::option::of(80..82_u16),
        0..3_u64,
        (any::<bool>(), any::<bool>()),
    )
        .prop_map(|(much, ssd, takes, port, most, how)| ServiceLot {
            replicas: much.0,
            global: much.1,
            ssd,
            cpus: takes.0,
            memory: takes.1,
            port,
            most,
            spread: how.0,
            start_first: how.1,
        })
}

fn world() -> impl Strategy<Value = World> {
    let hosts = prop::collection::vec(host(), 1..8);
    let services = prop::collection::vec(service(), 1..5);
    (hosts, services).prop_map(|(hosts, services)| {
        let mut world = World::of(0);
        for (at, lot) in hosts.into_iter().enumerate() {
            let mut node = node(&format!("n{at:02}"));
            node.labels.insert("rack".into(), lot.rack.to_string());
            node.labels.insert("ssd".into(), lot.ssd.to_string());
            node.cpus = lot.cpus * 1_000_000_000;
            node.memory = lot.memory << 30;
            (node.alive, node.availability) = (lot.alive, lot.availability);
            world.cluster.nodes.insert(node.id.clone(), node);
        }
        for (at, lot) in services.into_iter().enumerate() {
            world.add(&format!("s{at}"), spec(&lot));
        }
        world
    })
}

fn spec(lot: &ServiceLot) -> Spec {
    let mut spec = Spec {
        version: 1,
        mode: Mode::Replicated {
            replicas: lot.replicas,
        },
        ..Spec::default()
    };
    if lot.global {
        spec.mode = Mode::Global;
    }
    let ssd = lot
        .ssd
        .map(|ssd| constraint(&format!("node.labels.ssd=={ssd}")));
    spec.placement.constraints.extend(ssd);
    spec.placement.reservations = Resources {
        cpus: lot.cpus * 500_000_000,
        memory: lot.memory << 28,
    };
    spec.placement
        .host_ports
        .extend(lot.port.map(|port| HostPort {
            protocol: Protocol::Tcp,
            port,
        }));
    spec.placement.max_per_node = lot.most;
    if lot.spread {
        spec.placement.preferences.push(Preference {
            spread: "node.labels.rack".into(),
        });
    }
    if lot.start_first {
        spec.update.order = Order::StartFirst;
    }
    spec
}

/// What happens to a cluster from outside.
#[derive(Clone, Debug)]
enum Event {
    Dies(usize),
    Returns(usize),
    Drained(usize),
    Active(usize),
    Relabelled(usize),
    Scaled(usize, u64),
    Updated(usize),
    Fails(usize),
    Rebalanced(usize),
    Removed(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..8_usize;
    prop_oneof![
        at.clone().prop_map(Event::Dies),
        at.clone().prop_map(Event::Returns),
        at.clone().prop_map(Event::Drained),
        at.clone().prop_map(Event::Active),
        at.clone().prop_map(Event::Relabelled),
        (at.clone(), 0..9_u64).prop_map(|(at, replicas)| Event::Scaled(at, replicas)),
        at.clone().prop_map(Event::Updated),
        at.clone().prop_map(Event::Fails),
        at.clone().prop_map(Event::Rebalanced),
        at.prop_map(Event::Removed),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let nodes: Vec<_> = world.cluster.nodes.keys().cloned().collect();
    let services: Vec<_> = world.cluster.services.keys().cloned().collect();
    let node = |at: usize| nodes[at % nodes.len()].clone();
    let service = |at: usize| services.get(at % services.len().max(1)).cloned();
    match *event {
        Event::Dies(at) => world.kill(&node(at)),
        Event::Returns(at) => world.revive(&node(at)),
        Event::Drained(at) => world.node(&node(at)).availability = Availability::Drain,
        Event::Active(at) => world.node(&node(at)).availability = Availability::Active,
        Event::Relabelled(at) => {
            let labels = &mut world.node(&node(at)).labels;
            let ssd = labels["ssd"] != "true";
            labels.insert("ssd".into(), ssd.to_string());
        }
        Event::Fails(at) => {
            let now = world.cluster.now;
            let mut tasks = world.cluster.tasks.values_mut();
            if let Some(task) = tasks.nth(at).filter(|t| t.state == TaskState::Running) {
                (task.state, task.changed, task.exit_code) = (TaskState::Failed, now, Some(1));
            }
        }
        Event::Scaled(at, replicas) => {
            let Some(service) = service(at) else { return };
            let mode = &mut world.service(&service).spec.mode;
            if *mode != Mode::Global {
                *mode = Mode::Replicated { replicas };
            }
        }
        Event::Updated(at) => {
            let Some(service) = service(at) else { return };
            world.change(&service, |_| {});
        }
        Event::Rebalanced(at) => {
            let Some(service) = service(at) else { return };
            world.service(&service).rebalance = true;
        }
        Event::Removed(at) => {
            let Some(service) = service(at) else { return };
            world.cluster.services.remove(&service);
        }
    }
}

/// No host has more than it has room for, two tasks of a port, or too many of a service.
fn within_bounds(cluster: &Cluster) -> Result<(), TestCaseError> {
    for node in cluster.nodes.values() {
        let tasks = cluster.tasks.values();
        let here: Vec<_> = tasks
            .filter(|t| t.node.as_ref() == Some(&node.id) && !t.ended())
            .collect();
        let taken = here.iter().fold((0, 0), |(cpus, memory), t| {
            let more = t.placement.reservations;
            (cpus + more.cpus, memory + more.memory)
        });
        prop_assert!(
            taken.0 <= node.cpus && taken.1 <= node.memory,
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
    within_bounds(&world.cluster)?;
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
