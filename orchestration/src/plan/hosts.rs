//! The hosts as a plan fills them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::constraint::canonical_arch;
use crate::{Availability, Cluster, Constraint, HostPort, Node, Placement, Resources, Task};

/// Why a host is not given a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Its lease has ended.
    Down,
    /// It is given no more tasks.
    Paused,
    /// Its tasks move elsewhere.
    Drained,
    /// Too little is left of it.
    Resources {
        /// What the task is to have.
        wanted: Resources,
        /// What is not kept for others.
        free: Resources,
    },
    /// It does not meet a constraint.
    Constraint(Constraint),
    /// It has another operating system or architecture.
    Platform {
        /// Its operating system.
        os: String,
        /// Its architecture.
        arch: String,
    },
    /// Another task has the port.
    HostPort(HostPort),
    /// It has as many of the service's tasks as one host may have.
    MaxPerNode(u64),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("it is down"),
            Self::Paused => f.write_str("its availability is pause"),
            Self::Drained => f.write_str("its availability is drain"),
            Self::Resources { wanted, free } => {
                f.write_str("insufficient resources:")?;
                let mut apart = "";
                if wanted.cpus > free.cpus {
                    let cpus = |nanos: u64| nanos as f64 / 1e9;
                    let (wanted, free) = (cpus(wanted.cpus), cpus(free.cpus));
                    write!(f, " {wanted} CPUs are reserved, {free} are free")?;
                    apart = ",";
                }
                if wanted.memory > free.memory {
                    let (wanted, free) = (wanted.memory, free.memory);
                    write!(
                        f,
                        "{apart} {wanted} bytes of memory are reserved, {free} are free"
                    )?;
                }
                Ok(())
            }
            Self::Constraint(constraint) => {
                write!(f, "scheduling constraint {constraint} is not satisfied")
            }
            Self::Platform { os, arch } => write!(f, "unsupported platform {os}/{arch}"),
            Self::HostPort(port) => write!(f, "host-mode port {port} is already in use"),
            Self::MaxPerNode(most) => write!(f, "it has {most} tasks of the service, the most"),
        }
    }
}

/// A host, and what it has by now.
pub(super) struct Host<'a> {
    pub(super) node: &'a Node,
    taken: Resources,
    ports: BTreeSet<HostPort>,
    /// Tasks that have not ended.
    pub(super) tasks: u64,
    /// And how many of each service.
    by_service: HashMap<&'a str, u64>,
    /// Tasks that have no room on it any more, since it has become smaller.
    pub(super) beyond: BTreeSet<&'a str>,
}

impl<'a> Host<'a> {
    /// Whether it may be given tasks at all.
    pub(super) fn ready(&self) -> bool {
        self.node.alive && self.node.availability == Availability::Active
    }

    pub(super) fn take(&mut self, service: &'a str, placement: &Placement) {
        let Resources { cpus, memory } = placement.reservations;
        self.taken.cpus = self.taken.cpus.saturating_add(cpus);
        self.taken.memory = self.taken.memory.saturating_add(memory);
        self.ports.extend(&placement.host_ports);
        self.tasks += 1;
        *self.by_service.entry(service).or_default() += 1;
    }

    fn free(&self) -> Resources {
        Resources {
            cpus: self.node.cpus.saturating_sub(self.taken.cpus),
            memory: self.node.memory.saturating_sub(self.taken.memory),
        }
    }

    /// How much of it is reserved, in millionths of what it has: of CPU or memory, whichever is more.
    pub(super) fn fullness(&self) -> u64 {
        let share = |taken: u64, all: u64| {
            let share = u128::from(taken) * 1_000_000 / u128::from(all.max(1));
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        share(self.taken.cpus, self.node.cpus).max(share(self.taken.memory, self.node.memory))
    }

    /// Why it is not given such a task, the first reason in the order in which Swarm looks for them.
    pub(super) fn refusal(&self, service: &str, placement: &Placement) -> Option<Refusal> {
        self.unavailable()
            .or_else(|| self.too_small(placement))
            .or_else(|| unfit(self.node, placement))
            .or_else(|| self.taken_up(service, placement))
    }

    /// Whether a host that is ready and [fit](unfit) has room for such a task now.
    pub(super) fn has_room(&self, service: &str, placement: &Placement) -> bool {
        self.too_small(placement).is_none() && self.taken_up(service, placement).is_none()
    }

    fn unavailable(&self) -> Option<Refusal> {
        match (self.node.alive, self.node.availability) {
            (false, _) => Some(Refusal::Down),
            (true, Availability::Active) => None,
            (true, Availability::Pause) => Some(Refusal::Paused),
            (true, Availability::Drain) => Some(Refusal::Drained),
        }
    }

    fn too_small(&self, placement: &Placement) -> Option<Refusal> {
        let (wanted, free) = (placement.reservations, self.free());
        // Who reserves nothing fits anywhere, also where too much was reserved.
        (wanted.cpus > free.cpus || wanted.memory > free.memory)
            .then_some(Refusal::Resources { wanted, free })
    }

    fn taken_up(&self, service: &str, placement: &Placement) -> Option<Refusal> {
        let taken = placement.host_ports.iter().find(|p| self.ports.contains(p));
        if let Some(port) = taken {
            return Some(Refusal::HostPort(*port));
        }
        let most = placement.max_per_node;
        let has = self.by_service.get(service).copied().unwrap_or(0);
        (most > 0 && has >= most).then_some(Refusal::MaxPerNode(most))
    }
}

/// What of a host will not change as it fills: constraints and platform.
pub(super) fn unfit(node: &Node, placement: &Placement) -> Option<Refusal> {
    if let Some(constraint) = placement.constraints.iter().find(|c| !c.met_by(node)) {
        return Some(Refusal::Constraint(constraint.clone()));
    }
    let platforms = &placement.platforms;
    let suits = platforms.is_empty()
        || platforms.iter().any(|p| {
            let os = p.os.is_empty() || p.os.eq_ignore_ascii_case(&node.os);
            let (wanted, has) = (canonical_arch(&p.arch), canonical_arch(&node.arch));
            os && (wanted.is_empty() || wanted.eq_ignore_ascii_case(has))
        });
    (!suits).then(|| Refusal::Platform {
        os: node.os.clone(),
        arch: node.arch.clone(),
    })
}

/// All hosts, in the order of their ids.
pub(super) struct Hosts<'a> {
    pub(super) all: Vec<Host<'a>>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Hosts<'a> {
    /// The hosts with all tasks that have not ended, whatever is wanted of them.
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let all: Vec<_> = cluster
            .nodes
            .values()
            .map(|node| Host {
                node,
                taken: Resources::default(),
                ports: BTreeSet::new(),
                tasks: 0,
                by_service: HashMap::new(),
                beyond: BTreeSet::new(),
            })
            .collect();
        let index = all
            .iter()
            .enumerate()
            .map(|(at, host)| (host.node.id.as_str(), at))
            .collect();
        let mut hosts = Self { all, index };
        for task in cluster.tasks.values().filter(|t| !t.ended()) {
            if let Some(at) = hosts.of(task.node.as_deref()) {
                hosts.all[at].take(&task.service, &task.placement);
            }
        }
        hosts.find_beyond(cluster);
        hosts
    }

    /// Finds what has no room any more: the youngest of those that reserve something.
    fn find_beyond(&mut self, cluster: &'a Cluster) {
        let too_full = |host: &Host<'_>| {
            let Resources { cpus, memory } = host.taken;
            // Of one that has neither, nothing is known.
            let known = host.node.cpus > 0 || host.node.memory > 0;
            known && (cpus > host.node.cpus || memory > host.node.memory)
        };
        let full: BTreeSet<&str> = self
            .all
            .iter()
            .filter(|host| too_full(host))
            .map(|host| host.node.id.as_str())
            .collect();
        if full.is_empty() {
            return;
        }
        let reserves = |task: &&Task| task.placement.reservations != Resources::default();
        let tasks = cluster.tasks.values().filter(|t| t.current());
        let mut tasks: Vec<_> = tasks.filter(reserves).collect();
        tasks.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        let mut left: HashMap<&str, Resources> = HashMap::new();
        for task in tasks {
            let Some(id) = task.node.as_deref().filter(|id| full.contains(id)) else {
                continue;
            };
            let Some(at) = self.of(Some(id)) else {
                continue;
            };
            let host = &mut self.all[at];
            let left = left.entry(id).or_insert(Resources {
                cpus: host.node.cpus,
                memory: host.node.memory,
            });
            let Resources { cpus, memory } = task.placement.reservations;
            if cpus <= left.cpus && memory <= left.memory {
                left.cpus -= cpus;
                left.memory -= memory;
            } else {
                host.beyond.insert(&task.id);
            }
        }
    }

    /// Where a host is among all, by its id.
    pub(super) fn of(&self, id: Option<&str>) -> Option<usize> {
        self.index.get(id?).copied()
    }
}
