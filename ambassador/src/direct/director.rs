//! Keeps the programs in the kernel at what the forwards say, on a thread of its own: the kernel
//! makes who changes a set wait, which flows must not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;

use super::ServiceKey;
use super::report::{DirectForward, Standing};
use super::worker::Worker;
use crate::running::Running;

/// How often is looked for cgroups that are still to come, and for ejections that have ended.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether cgroups have gone while nobody is waited for.
const REST: Duration = Duration::from_secs(2);

/// A forward whose clients in `cgroups` are to be spared the relay.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) running: Weak<Running>,
    pub(crate) forward: Arc<str>,
    pub(crate) service: ServiceKey,
    pub(crate) cgroups: Vec<PathBuf>,
}

impl Task {
    /// Those that newcomers may be given, as far as the clients' sockets can talk to them.
    pub(super) fn endpoints(&self) -> Vec<(SocketAddr, u16)> {
        let mut usable = self.usable();
        usable.retain(|(endpoint, _)| self.service.speaks_to(*endpoint));
        usable
    }

    /// Why none of the endpoints will do, if that is so.
    pub(super) fn foreign(&self) -> Option<String> {
        let usable = self.usable();
        let foreign = !usable.is_empty()
            && !(usable.iter()).any(|(endpoint, _)| self.service.speaks_to(*endpoint));
        let service = self.service;
        foreign.then(|| format!("no endpoint of {service} is of the same IP version"))
    }

    /// Whether some endpoints are left out, which time alone may change.
    pub(super) fn is_waiting(&self) -> bool {
        let usable = self.usable().len();
        (self.open()).is_some_and(|running| usable < running.balancer.endpoints().len())
    }

    fn usable(&self) -> Vec<(SocketAddr, u16)> {
        let usable = |running: Arc<Running>| running.balancer.usable(Instant::now());
        self.open().map_or_else(Vec::new, usable)
    }

    fn open(&self) -> Option<Arc<Running>> {
        let running = self.running.upgrade();
        running.filter(|running| !running.closed.is_cancelled())
    }
}

/// Owns the thread; dropping it detaches everything.
#[derive(Debug)]
pub(crate) struct Director {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where the thread finds what it is to do.
#[derive(Debug)]
pub(crate) struct Desk {
    orders: Mutex<Orders>,
    called: Condvar,
    /// The number of the orders that are carried out, as far as the kernel lets them.
    done: watch::Sender<u64>,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Orders {
    tasks: Arc<Vec<Task>>,
    number: u64,
    /// Endpoints may have changed.
    news: bool,
    stop: bool,
}

impl Director {
    pub(crate) fn new() -> Self {
        Self {
            desk: Arc::new(Desk {
                orders: Mutex::default(),
                called: Condvar::new(),
                done: watch::channel(0).0,
                standing: Mutex::default(),
            }),
            thread: Mutex::default(),
        }
    }

    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Makes `tasks` all there is to do. The thread begins with the first one.
    pub(crate) fn order(&self, tasks: Vec<Task>) {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            if tasks.is_empty() {
                return;
            }
            let desk = self.desk.clone();
            let begun = thread::Builder::new().name("direct".into());
            match begun.spawn(move || work(&desk)) {
                Ok(begun) => *thread = Some(begun),
                Err(error) => {
                    return warn!(%error, "no thread to rewrite connections: all are relayed");
                }
            }
        }
        let mut orders = lock(&self.desk.orders);
        orders.tasks = Arc::new(tasks);
        orders.number += 1;
        self.desk.called.notify_one();
    }

    /// Returns once the last order is carried out.
    pub(crate) async fn settled(&self) {
        let number = lock(&self.desk.orders).number;
        let mut done = self.desk.done.subscribe();
        // The sender lives as long as `self`.
        let _ = done.wait_for(|done| *done >= number).await;
    }

    pub(crate) fn reports(&self) -> Vec<DirectForward> {
        let standing = lock(&self.desk.standing).clone();
        standing.reports()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        lock(&self.desk.orders).stop = true;
        self.desk.called.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            // A panic there was told by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Desk {
    /// Has the endpoints looked at.
    pub(crate) fn tell(&self) {
        lock(&self.orders).news = true;
        self.called.notify_one();
    }
}

/// Nobody waits for a thread that has panicked.
struct Done<'a>(&'a watch::Sender<u64>);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.send_replace(u64::MAX);
    }
}

fn work(desk: &Desk) {
    let _done = Done(&desk.done);
    let mut worker = Worker::default();
    let mut pause = Pause::Endless;
    while let Some((number, tasks)) = next(desk, pause) {
        if worker.carry_out(number, &tasks) {
            *lock(&desk.standing) = worker.standing(&tasks);
        }
        desk.done
            .send_if_modified(|done| std::mem::replace(done, number) != number);
        pause = worker.pause(&tasks);
    }
    // It holds the programs too.
    *lock(&desk.standing) = Standing::default();
}

/// How long the thread may sleep if nobody wakes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pause {
    /// Something is waited for.
    Short,
    /// All is as it should be.
    Long,
    /// Nothing changes by itself.
    Endless,
}

impl Pause {
    fn length(self) -> Option<Duration> {
        match self {
            Self::Short => Some(TICK),
            Self::Long => Some(REST),
            Self::Endless => None,
        }
    }
}

/// Waits until there is something to do; none if nothing ever will be.
fn next(desk: &Desk, pause: Pause) -> Option<(u64, Arc<Vec<Task>>)> {
    let done = *desk.done.borrow();
    let until = pause.length().map(|pause| Instant::now() + pause);
    let mut orders = lock(&desk.orders);
    while !orders.stop && !orders.news && orders.number == done {
        let rest = until.map(|until| until.saturating_duration_since(Instant::now()));
        orders = match rest {
            Some(Duration::ZERO) => break,
            Some(rest) => {
                let woken = desk.called.wait_timeout(orders, rest);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let woken = desk.called.wait(orders);
                woken.unwrap_or_else(PoisonError::into_inner)
            }
        };
    }
    orders.news = false;
    (!orders.stop).then(|| (orders.number, orders.tasks.clone()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
