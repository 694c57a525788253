//! Clusters and events that chance makes.

use nuncio_orchestration::{
    Availability, HostPort, Mode, Order, Preference, Protocol, Resources, Spec, TaskState,
};
use proptest::prelude::*;

use crate::world::{World, constraint, node};

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
pub(crate) struct ServiceLot {
    pub(crate) replicas: u64,
    pub(crate) global: bool,
    pub(crate) ssd: Option<bool>,
    pub(crate) cpus: u64,
    pub(crate) memory: u64,
    pub(crate) port: Option<u16>,
    pub(crate) most: u64,
    pub(crate) spread: bool,
    pub(crate) start_first: bool,
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

pub(crate) fn world() -> impl Strategy<Value = World> {
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

pub(crate) fn spec(lot: &ServiceLot) -> Spec {
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
pub(crate) enum Event {
    Dies(usize),
    Returns(usize),
    Drained(usize),
    Active(usize),
    Relabelled(usize),
    Shrinks(usize),
    Constrained(usize, bool),
    Scaled(usize, u64),
    Updated(usize),
    Fails(usize),
    Rebalanced(usize),
    Removed(usize),
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let at = 0..8_usize;
    prop_oneof![
        at.clone().prop_map(Event::Dies),
        at.clone().prop_map(Event::Returns),
        at.clone().prop_map(Event::Drained),
        at.clone().prop_map(Event::Active),
        at.clone().prop_map(Event::Relabelled),
        at.clone().prop_map(Event::Shrinks),
        (at.clone(), any::<bool>()).prop_map(|(at, ssd)| Event::Constrained(at, ssd)),
        (at.clone(), 0..9_u64).prop_map(|(at, replicas)| Event::Scaled(at, replicas)),
        at.clone().prop_map(Event::Updated),
        at.clone().prop_map(Event::Fails),
        at.clone().prop_map(Event::Rebalanced),
        at.prop_map(Event::Removed),
    ]
}

pub(crate) fn happen(world: &mut World, event: &Event) {
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
        Event::Shrinks(at) => {
            let node = world.node(&node(at));
            (node.cpus, node.memory) = (node.cpus / 2, node.memory / 2);
        }
        Event::Constrained(at, ssd) => {
            let Some(service) = service(at) else { return };
            world.constrain(&service, &[&format!("node.labels.ssd=={ssd}")]);
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
