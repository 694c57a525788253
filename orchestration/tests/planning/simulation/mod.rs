//! A cluster in virtual time, whose hosts crash, are cut off and come back, and whose leaders see little and die mid-plan.
//!
//! A seed decides all that happens. `NUNCIO_SIM_SEED=N` runs one alone and tells what happened,
//! `NUNCIO_SIM_SEEDS=N` says how many are run.

use std::collections::BTreeSet;
use std::fmt::Write;

mod agents;
mod faults;
mod judge;
mod lots;

use lots::Lots;
use nuncio_orchestration::{Action, Cluster, FailureAction, Mode, Order, Spec, Task, plan};

use crate::world::{World, apply};

/// How far the clock goes on at a time, in milliseconds.
const TICK: u64 = 500;
/// For how long faults happen, and in what time after them all must be at rest.
const FAULTS: u64 = 90_000;
const REST: u64 = 400_000;
/// How long a lease lives that is not renewed.
const LEASE: u64 = 10_000;
/// How long a host may take after its lease has ended until its fenced tasks have.
const FENCE: u64 = 3_000;

struct Simulation {
    lots: Lots,
    /// What the registry has.
    truth: Cluster,
    hosts: Vec<agents::Host>,
    /// What a leader sees from when it began to lag behind.
    lagging: Cluster,
    lags: bool,
    wake_at: Option<u64>,
    /// What was last planned for, so that nothing is planned when nothing has changed.
    planned: Option<Cluster>,
    /// When the leader that is there takes up its work.
    leader_from: u64,
    changes: u64,
    /// Versions of `web` whose tasks do not come up.
    bad: BTreeSet<u64>,
    log: String,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut lots = Lots::new(seed);
        let count = lots.between(3, 6);
        let mut world = World::of(usize::try_from(count).expect("a few"));
        world.cluster.fence_grace = FENCE;
        for (name, fence) in [("web", false), ("one", true)] {
            let mut spec = Spec {
                version: 1,
                fence,
                ..Spec::default()
            };
            let replicas = if fence { 1 } else { lots.between(1, 6) };
            spec.mode = Mode::Replicated { replicas };
            spec.update.parallelism = lots.between(0, 3);
            spec.update.delay = lots.between(0, 3) * 1000;
            spec.update.monitor = 1000;
            if lots.one_in(2) {
                spec.update.order = Order::StartFirst;
            }
            spec.restart.delay = 1000;
            // Hosts that crash take new tasks with them, which is nothing that an update is to stop for.
            spec.update.on_failure = FailureAction::Continue;
            spec.rollback = spec.update;
            world.add(name, spec);
        }
        if lots.one_in(3) {
            let mut spec = Spec {
                version: 1,
                mode: Mode::Global,
                ..Spec::default()
            };
            spec.update.on_failure = FailureAction::Continue;
            world.add("agent", spec);
        }
        let truth = world.cluster;
        let hosts = truth
            .nodes
            .keys()
            .map(|id| agents::Host::new(id, truth.now));
        Self {
            lots,
            hosts: hosts.collect(),
            lagging: truth.clone(),
            truth,
            lags: false,
            wake_at: None,
            planned: None,
            leader_from: 0,
            changes: 0,
            bad: BTreeSet::new(),
            log: String::new(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let begin = self.truth.now;
        while self.truth.now < begin + FAULTS {
            self.faults();
            self.tick(true)?;
        }
        self.end_faults();
        while self.truth.now < begin + FAULTS + REST {
            self.tick(false)?;
            if self.at_rest() {
                return self.all_is_well();
            }
        }
        Err(format!("does not come to rest:\n{}", self.describe()))
    }

    /// What is there, and what would be done, a line for each.
    fn describe(&self) -> String {
        let mut text = String::new();
        for service in self.truth.services.values() {
            let (mode, version) = (service.spec.mode, service.spec.version);
            let update = &service.update;
            let _ = writeln!(text, "{} v{version} {mode:?} {update:?}", service.id);
        }
        for task in self.truth.tasks.values() {
            let _ = writeln!(text, "{}", line(task));
        }
        for action in &plan(&self.truth).actions {
            let _ = writeln!(text, "would {}", brief(action));
        }
        text
    }

    fn tick(&mut self, faults: bool) -> Result<(), String> {
        self.truth.now += TICK;
        self.leases();
        self.agents(faults);
        self.fenced_run_once()?;
        self.lead(faults)
    }

    /// The leader plans by what it sees, and carries out what it gets to.
    fn lead(&mut self, faults: bool) -> Result<(), String> {
        let now = self.truth.now;
        if now < self.leader_from {
            return Ok(());
        }
        self.lagging.now = now;
        let seen = match self.lags {
            true => &self.lagging,
            false => &self.truth,
        };
        let due = self.wake_at.is_some_and(|at| at <= now);
        let known = self.planned.as_mut().is_some_and(|planned| {
            planned.now = now;
            planned == seen
        });
        if known && !due {
            return Ok(());
        }
        let made = plan(seen);
        self.wake_at = made.wake_at;
        self.planned = Some(seen.clone());
        if !self.lags {
            judge::steps(&self.truth, &made.actions)
                .map_err(|error| format!("{error}\n{}", self.describe()))?;
        }
        let killed = (faults && self.lots.one_in(12)).then(|| self.lots.below(4));
        for (at, action) in made.actions.iter().enumerate() {
            if killed.is_some_and(|last| at as u64 >= last) {
                self.note("the leader dies");
                self.leader_from = now + self.lots.between(1, 12) * 1000;
                (self.planned, self.wake_at, self.lags) = (None, None, false);
                break;
            }
            if faults && self.lots.one_in(15) {
                self.note(&format!("lost: {}", brief(action)));
                self.planned = None;
                continue;
            }
            self.note(&brief(action));
            for _ in 0..=u64::from(faults && self.lots.one_in(10)) {
                apply(&mut self.truth, action);
            }
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        let _ = writeln!(self.log, "{} {text}", self.truth.now);
    }
}

fn brief(action: &Action) -> String {
    match action {
        Action::Create(task) => format!("create {}", line(task)),
        other => format!("{other:?}"),
    }
}

fn line(task: &Task) -> String {
    let (service, slot, attempt, version) =
        (&task.service, &task.slot, task.attempt, task.spec_version);
    let (node, desired, state, reason) = (&task.node, task.desired, task.state, &task.reason);
    let up = if task.up() { "up" } else { "" };
    let id = &task.id;
    format!(
        "{id} {service} {slot:?}/{attempt} v{version} {node:?} {desired:?} {state:?} {up} {reason:?}"
    )
}

fn run(seed: u64) {
    let mut simulation = Simulation::new(seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
    let failed = match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => "panicked".to_owned(),
    };
    let alone = std::env::var("NUNCIO_SIM_SEED").is_ok();
    let log = if alone { &simulation.log } else { "" };
    panic!("{log}seed {seed}: {failed}\nNUNCIO_SIM_SEED={seed} tells more");
}

fn run_share(share: u64) {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    if let Some(seed) = number("NUNCIO_SIM_SEED") {
        if seed % 4 == share {
            run(seed);
        }
        return;
    }
    let seeds = number("NUNCIO_SIM_SEEDS").unwrap_or(2_000);
    for seed in (share..seeds).step_by(4) {
        run(seed);
    }
}

#[test]
fn faults_of_seeds_0() {
    run_share(0);
}

#[test]
fn faults_of_seeds_1() {
    run_share(1);
}

#[test]
fn faults_of_seeds_2() {
    run_share(2);
}

#[test]
fn faults_of_seeds_3() {
    run_share(3);
}
