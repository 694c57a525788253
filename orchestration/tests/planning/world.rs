//! A cluster in memory: carries plans out, and does what agents would.

use nuncio_orchestration::{
    Action, Cluster, Constraint, Desired, Mode, Node, Plan, Service, Spec, Task, TaskState, plan,
};

/// A cluster, and agents that do at once what is wanted of them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Tasks of these versions fail as soon as they are started.
    pub(crate) bad_versions: Vec<u64>,
}

impl World {
    /// A cluster of so many hosts, `n00` and so on.
    pub(crate) fn of(nodes: usize) -> Self {
        let mut cluster = Cluster {
            now: 1_000_000,
            ..Cluster::default()
        };
        for at in 0..nodes {
            let node = node(&format!("n{at:02}"));
            cluster.nodes.insert(node.id.clone(), node);
        }
        Self {
            cluster,
            bad_versions: Vec::new(),
        }
    }

    pub(crate) fn node(&mut self, id: &str) -> &mut Node {
        self.cluster.nodes.get_mut(id).expect("a host")
    }

    pub(crate) fn service(&mut self, id: &str) -> &mut Service {
        self.cluster.services.get_mut(id).expect("a service")
    }

    pub(crate) fn add(&mut self, id: &str, spec: Spec) {
        let service = Service {
            id: id.to_owned(),
            name: id.to_owned(),
            spec,
            ..Service::default()
        };
        self.cluster.services.insert(id.to_owned(), service);
    }

    /// Changes a service as its author would: a new version, and the old spec as what to go back to.
    pub(crate) fn change(&mut self, id: &str, change: impl FnOnce(&mut Spec)) {
        let service = self.service(id);
        service.previous = Some(service.spec.clone());
        service.spec.version += 1;
        service.spec.akin.clear();
        service.update = None;
        change(&mut service.spec);
    }

    /// Changes where a service may run, and nothing else.
    pub(crate) fn constrain(&mut self, id: &str, constraints: &[&str]) {
        let spec = self.service(id).spec.clone();
        self.change(id, |next| {
            next.akin = spec.akin;
            next.akin.insert(spec.version);
            next.placement.constraints = constraints.iter().map(|text| constraint(text)).collect();
        });
    }

    pub(crate) fn kill(&mut self, node: &str) {
        let now = self.cluster.now;
        let node = self.node(node);
        (node.alive, node.since) = (false, now);
    }

    pub(crate) fn revive(&mut self, node: &str) {
        let now = self.cluster.now;
        let node = self.node(node);
        (node.alive, node.since) = (true, now);
    }

    /// Plans, and carries all of it out.
    pub(crate) fn step(&mut self) -> Plan {
        let plan = plan(&self.cluster);
        for action in &plan.actions {
            apply(&mut self.cluster, action);
        }
        plan
    }

    /// Has each agent that lives do all that is wanted of it.
    pub(crate) fn agents(&mut self) -> bool {
        let (now, nodes) = (self.cluster.now, &self.cluster.nodes);
        let mut changed = false;
        for task in self.cluster.tasks.values_mut() {
            let node = task.node.as_ref().and_then(|id| nodes.get(id));
            if !node.is_some_and(|n| n.alive) || task.ended() {
                continue;
            }
            let before = task.clone();
            if task.desired > Desired::Running {
                (task.announced, task.drained) = (true, true);
                task.state = TaskState::Shutdown;
            } else if self.bad_versions.contains(&task.spec_version) {
                (task.state, task.exit_code) = (TaskState::Failed, Some(1));
                task.started = Some(now);
            } else {
                task.state = TaskState::Running;
                task.started.get_or_insert(now);
                (task.healthy, task.announced) = (true, true);
            }
            if task.state != before.state {
                task.changed = now;
            }
            changed |= *task != before;
        }
        changed
    }

    /// Goes on until nothing is left to do, letting time pass where that is what is waited for.
    pub(crate) fn converge(&mut self) {
        for _ in 0..1_000 {
            let plan = self.step();
            let changed = self.agents();
            match plan.wake_at {
                _ if !plan.actions.is_empty() || changed => {}
                Some(at) if at < self.cluster.now + 60 * 60 * 1000 => self.cluster.now = at,
                _ => return,
            }
        }
        panic!("does not come to rest: {:#?}", plan(&self.cluster));
    }

    /// The tasks of a service that are to run and have not ended, in the order of their slots.
    pub(crate) fn current(&self, service: &str) -> Vec<&Task> {
        let tasks = self.cluster.tasks.values();
        let mut current: Vec<_> = tasks
            .filter(|t| t.service == service && t.current())
            .collect();
        current.sort_by(|a, b| (&a.slot, a.attempt).cmp(&(&b.slot, b.attempt)));
        current
    }

    /// On which host each of them is; empty, if on none.
    pub(crate) fn places(&self, service: &str) -> Vec<&str> {
        let current = self.current(service).into_iter();
        current
            .map(|t| t.node.as_deref().unwrap_or_default())
            .collect()
    }

    /// How many of them each host has, in the order of hosts.
    pub(crate) fn counts(&self, service: &str) -> Vec<usize> {
        let places = self.places(service);
        let nodes = self.cluster.nodes.keys();
        nodes
            .map(|id| places.iter().filter(|place| *place == id).count())
            .collect()
    }
}

/// Carries an action out as a manager would, in one transaction.
pub(crate) fn apply(cluster: &mut Cluster, action: &Action) {
    let now = cluster.now;
    match action {
        Action::Create(task) => {
            let id = task.id.clone();
            cluster.tasks.entry(id).or_insert_with(|| task.clone());
        }
        Action::Assign { task, node } => {
            if let Some(task) = cluster.tasks.get_mut(task)
                && task.node.is_none()
            {
                task.node = Some(node.clone());
                (task.state, task.changed, task.reason) = (TaskState::Assigned, now, None);
            }
        }
        Action::Desire { task, desired } => {
            if let Some(task) = cluster.tasks.get_mut(task)
                && task.desired < *desired
            {
                if task.desired == Desired::Running {
                    (task.announced, task.drained) = (false, false);
                }
                task.desired = *desired;
            }
        }
        Action::Explain { task, reason } => {
            if let Some(task) = cluster.tasks.get_mut(task) {
                (task.state, task.reason) = (TaskState::Pending, Some(reason.clone()));
            }
        }
        Action::Orphan { task } => {
            if let Some(task) = cluster.tasks.get_mut(task) {
                (task.state, task.changed) = (TaskState::Orphaned, now);
            }
        }
        Action::Adopt {
            task,
            spec_version,
            placement,
        } => {
            if let Some(task) = cluster.tasks.get_mut(task) {
                task.spec_version = *spec_version;
                task.placement = placement.clone();
            }
        }
        Action::Progress { service, update } => {
            if let Some(service) = cluster.services.get_mut(service) {
                service.update = Some(update.clone());
            }
        }
        Action::RollBack { service, update } => {
            if let Some(service) = cluster.services.get_mut(service)
                && let Some(previous) = service
                    .previous
                    .take_if(|spec| spec.version == update.version)
            {
                service.spec = previous;
                service.update = Some(update.clone());
            }
        }
        Action::Forget { task } => {
            cluster.tasks.remove(task);
        }
        Action::Rebalanced { service } => {
            if let Some(service) = cluster.services.get_mut(service) {
                service.rebalance = false;
            }
        }
    }
}

/// A host with four CPUs and 8 GiB.
pub(crate) fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        name: id.to_owned(),
        alive: true,
        role_manager: true,
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        cpus: 4_000_000_000,
        memory: 8 << 30,
        ..Node::default()
    }
}

pub(crate) fn replicas(replicas: u64) -> Spec {
    Spec {
        version: 1,
        mode: Mode::Replicated { replicas },
        ..Spec::default()
    }
}

pub(crate) fn constraint(text: &str) -> Constraint {
    Constraint::parse(text).expect("a constraint")
}
