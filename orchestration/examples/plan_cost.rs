//! What a plan costs, by the number of hosts: `cargo run --release -p nuncio-orchestration --example plan_cost`.
//!
//! Each host has ten tasks, and each service a hundred, with a constraint, a preference and reservations. Each figure is the
//! median of several plans, in milliseconds.

use std::time::Instant;

use nuncio_orchestration::{
    Action, Cluster, Constraint, Desired, Mode, Node, Plan, Preference, Resources, Service, Spec,
    Task, TaskState, plan,
};

const SIZES: [usize; 5] = [100, 250, 500, 750, 1000];
const ROUNDS: usize = 9;

fn main() {
    println!("| hosts | tasks | fresh, ms | one host dead, ms | update begins, ms | at rest, ms |");
    println!("|--:|--:|--:|--:|--:|--:|");
    for hosts in SIZES {
        let mut cluster = wanted(hosts);
        let fresh = cost(&cluster, |plan| plan.actions.len() == hosts * 10);
        carry_out(&mut cluster);
        let rest = cost(&cluster, |plan| plan.actions.is_empty());

        let mut updating = cluster.clone();
        for service in updating.services.values_mut() {
            service.previous = Some(service.spec.clone());
            service.spec.version += 1;
        }
        let update = cost(&updating, |plan| !plan.actions.is_empty());

        let first = cluster.nodes.values_mut().next().expect("a host");
        first.alive = false;
        let dead = cost(&cluster, |plan| !plan.actions.is_empty());
        let tasks = hosts * 10;
        println!("| {hosts} | {tasks} | {fresh:.1} | {dead:.1} | {update:.1} | {rest:.1} |");
    }
}

/// Hosts in ten racks, and services that want ten tasks for each of them.
fn wanted(hosts: usize) -> Cluster {
    let mut cluster = Cluster {
        now: 1_000_000,
        ..Cluster::default()
    };
    for at in 0..hosts {
        let id = format!("node-{at:04}");
        let mut node = Node {
            id: id.clone(),
            name: id.clone(),
            alive: true,
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 32_000_000_000,
            memory: 64 << 30,
            ..Node::default()
        };
        node.labels
            .insert("rack".to_owned(), format!("{}", at % 10));
        cluster.nodes.insert(id, node);
    }
    for at in 0..hosts / 10 {
        let mut spec = Spec {
            version: 1,
            mode: Mode::Replicated { replicas: 100 },
            ..Spec::default()
        };
        let constraint = Constraint::parse("node.labels.rack!=none").expect("a constraint");
        spec.placement.constraints.push(constraint);
        spec.placement.preferences.push(Preference {
            spread: "node.labels.rack".to_owned(),
        });
        spec.placement.reservations = Resources {
            cpus: 500_000_000,
            memory: 1 << 30,
        };
        let id = format!("service-{at:04}");
        let service = Service {
            id: id.clone(),
            name: id.clone(),
            spec,
            ..Service::default()
        };
        cluster.services.insert(id, service);
    }
    cluster
}

/// Carries out a plan that only creates, and has all of it run.
fn carry_out(cluster: &mut Cluster) {
    for action in plan(cluster).actions {
        let Action::Create(task) = action else {
            panic!("{action:?} where only tasks were to be created")
        };
        let task = Task {
            desired: Desired::Running,
            state: TaskState::Running,
            started: Some(cluster.now),
            healthy: true,
            announced: true,
            ..task
        };
        cluster.tasks.insert(task.id.clone(), task);
    }
}

fn cost(cluster: &Cluster, expected: impl Fn(&Plan) -> bool) -> f64 {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            let plan = plan(cluster);
            let took = begun.elapsed();
            assert!(expected(&plan), "{} actions", plan.actions.len());
            took
        })
        .collect();
    times.sort();
    times[ROUNDS / 2].as_secs_f64() * 1000.0
}
