//! Every open flow of an ambassador, and those who are told of beginnings and ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::AbortHandle;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{EndCause, EndSide, Ended, Entry, Flow, FlowFilter, Joined, Meter, Totals, Way};
use crate::access_log::AccessLog;

/// Flows are spread over as many locks.
const SHARDS: usize = 64;
/// Events that one who taps may fall behind.
const TAP_BACKLOG: usize = 1024;
/// Those who may tap at once.
const MOST_TAPS: usize = 64;

/// Every open flow. A flow takes the lock of its shard when it begins and ends, never per byte.
#[derive(Debug)]
pub(crate) struct FlowTable {
    next: AtomicU64,
    shards: [Shard; SHARDS],
    /// Set when no flow may go on, before the shards are looked through.
    over: AtomicBool,
    /// By name, so that a forward that is replaced while its flows go on keeps its count.
    forwards: Mutex<HashMap<Arc<str>, Weak<Totals>>>,
    log: OnceLock<AccessLog>,
    taps: Arc<AtomicUsize>,
    events: broadcast::Sender<Event>,
}

/// Has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<HashMap<u64, (Arc<Entry>, AbortHandle)>>);

/// What those who tap are told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Begun(Arc<Entry>),
    Ended(Arc<Entry>),
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            shards: std::array::from_fn(|_| Shard::default()),
            over: AtomicBool::new(false),
            forwards: Mutex::default(),
            log: OnceLock::new(),
            taps: Arc::default(),
            events: broadcast::channel(TAP_BACKLOG).0,
        }
    }

    /// The count of the forward of that name.
    pub(crate) fn totals(&self, forward: &Arc<str>) -> Arc<Totals> {
        let mut forwards = lock(&self.forwards);
        if let Some(totals) = forwards.get(forward).and_then(Weak::upgrade) {
            return totals;
        }
        forwards.retain(|_, totals| totals.strong_count() > 0);
        let totals = Arc::default();
        forwards.insert(forward.clone(), Arc::downgrade(&totals));
        totals
    }

    /// The counts of all forwards that listen or have flows, by name.
    pub(crate) fn all_totals(&self) -> Vec<(Arc<str>, Arc<Totals>)> {
        let forwards = lock(&self.forwards);
        let alive =
            |(name, totals): (&Arc<str>, &Weak<Totals>)| Some((name.clone(), totals.upgrade()?));
        let mut all: Vec<_> = forwards.iter().filter_map(alive).collect();
        drop(forwards);
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Enters a flow that `end` ends; it leaves when the guard is dropped.
    pub(crate) fn open(
        self: &Arc<Self>,
        forward: &Arc<str>,
        totals: &Arc<Totals>,
        joined: impl Into<Joined>,
        way: Way,
        end: AbortHandle,
    ) -> OpenFlow {
        let entry = self.entry(forward, totals, joined.into(), way);
        let endpoint = &entry.endpoint;
        endpoint.opened.fetch_add(1, Ordering::Relaxed);
        endpoint.open.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = entry.joined().connect_time {
            endpoint.connect_times.observe(took);
        }
        let mut open = self.shard(entry.id);
        if self.over.load(Ordering::Relaxed) {
            end.abort();
        }
        open.insert(entry.id, (entry.clone(), end));
        drop(open);
        self.tell(|| Event::Begun(entry.clone()));
        OpenFlow {
            entry,
            table: self.clone(),
        }
    }

    /// Counts and logs a newcomer whose flow ended before it was joined to an upstream.
    pub(crate) fn never_opened(
        &self,
        forward: &Arc<str>,
        totals: &Arc<Totals>,
        joined: Joined,
        (way, waited): (Way, Duration),
        ended: Ended,
    ) {
        let mut entry = self.entry(forward, totals, joined, way);
        if let Some(entry) = Arc::get_mut(&mut entry) {
            entry.begun = Instant::now().checked_sub(waited).unwrap_or(entry.begun);
            entry.since = entry.since.saturating_sub(nanoseconds(waited));
        }
        let _ = entry.ended.set(Box::new(ended));
        self.close(entry);
    }

    fn entry(
        &self,
        forward: &Arc<str>,
        totals: &Arc<Totals>,
        joined: Joined,
        way: Way,
    ) -> Arc<Entry> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Arc::new(Entry {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            forward: forward.clone(),
            protocol: way.protocol(),
            joined: joined.into(),
            since: nanoseconds(since_1970.unwrap_or_default()),
            begun: Instant::now(),
            took: AtomicU64::new(0),
            ended: OnceLock::new(),
            inward: Meter::new(way),
            outward: Meter::new(way),
            endpoint: totals.endpoint(joined.upstream),
            totals: totals.clone(),
        })
    }

    /// The flows that are open and match, oldest first.
    pub(crate) fn entries(&self, filter: &FlowFilter) -> Vec<Arc<Entry>> {
        let mut entries = Vec::new();
        self.each(|entry, _| {
            if filter.matches(entry) {
                entries.push(entry.clone());
            }
        });
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    /// As [`Self::entries`], at this moment.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let entries = self.entries(&FlowFilter::default());
        entries
            .iter()
            .filter_map(|entry| entry.snapshot())
            .collect()
    }

    /// Open flows by their forward and what carries them. Brings the totals up to date as well.
    pub(crate) fn settle(&self) -> HashMap<(Arc<str>, Way), u64> {
        let mut ways = HashMap::new();
        self.each(|entry, _| {
            entry.settle();
            *ways
                .entry((entry.forward.clone(), entry.way()))
                .or_insert(0) += 1;
        });
        ways
    }

    /// Ends the flows that match, and tells how many these are; peers see a reset.
    pub(crate) fn end_matching(&self, filter: &FlowFilter) -> usize {
        let mut count = 0;
        self.each(|entry, end| {
            if filter.matches(entry) && !end.is_aborted() {
                end.abort();
                count += 1;
            }
        });
        count
    }

    /// Ends the flows of one forward that go to `upstreams`, which are no longer its own; peers see a
    /// reset. Returns how many.
    pub(crate) fn end(&self, forward: &Arc<Totals>, upstreams: &[SocketAddr]) -> usize {
        let mut count = 0;
        self.each(|entry, end| {
            let goes = |upstream| upstreams.contains(&upstream);
            if Arc::ptr_eq(&entry.totals, forward) && entry.joined.upstream().is_some_and(goes) {
                entry.end(EndCause::Removed, EndSide::Ambassador, None);
                end.abort();
                count += 1;
            }
        });
        count
    }

    /// Ends every flow at once, also those to come; peers see a reset.
    pub(crate) fn abort_all(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.each(|_, end| end.abort());
    }

    /// Writes the ends of flows to `log` from now on, unless another log was given before.
    pub(crate) fn log_to(&self, log: AccessLog) {
        let _ = self.log.set(log);
    }

    pub(crate) fn access_log(&self) -> Option<&AccessLog> {
        self.log.get()
    }

    /// Tells of flows as they come; nobody, if too many listen already.
    pub(crate) fn tap(&self) -> Option<Tap> {
        let one_more = |taps| (taps < MOST_TAPS).then_some(taps + 1);
        (self.taps)
            .try_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Tap {
            events: self.events.subscribe(),
            taps: self.taps.clone(),
        })
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.taps.load(Ordering::Relaxed) > 0 {
            // Fails when they have just left.
            let _ = self.events.send(event());
        }
    }

    /// Counts and tells the end of a flow that is in no shard any more.
    fn close(&self, entry: Arc<Entry>) {
        let took = nanoseconds(entry.begun.elapsed());
        entry.took.store(took.max(1), Ordering::Relaxed);
        let ended = entry.ended.get_or_init(|| Box::new(Ended::aborted()));
        entry.endpoint.ends.count(ended.cause, ended.side);
        self.tell(|| Event::Ended(entry.clone()));
        if let Some(log) = self.log.get() {
            log.write(entry);
        }
    }

    fn each(&self, mut look: impl FnMut(&Arc<Entry>, &AbortHandle)) {
        for shard in &self.shards {
            for (entry, end) in lock(&shard.0).values() {
                look(entry, end);
            }
        }
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, (Arc<Entry>, AbortHandle)>> {
        lock(&self.shards[id as usize % SHARDS].0)
    }
}

/// Enough for five centuries.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a flow in the table.
#[derive(Debug)]
pub(crate) struct OpenFlow {
    pub(crate) entry: Arc<Entry>,
    table: Arc<FlowTable>,
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let entry = &self.entry;
        // Before it leaves, so that who sees it gone finds it counted.
        entry.settle();
        entry.endpoint.durations.observe(entry.begun.elapsed());
        entry.endpoint.open.fetch_sub(1, Ordering::Relaxed);
        self.table.close(entry.clone());
        self.table.shard(entry.id).remove(&entry.id);
    }
}

/// One who is told of flows.
#[derive(Debug)]
pub(crate) struct Tap {
    events: broadcast::Receiver<Event>,
    taps: Arc<AtomicUsize>,
}

impl Tap {
    /// The next event, or how many were missed; none when the ambassador is gone.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, u64>> {
        match self.events.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.fetch_sub(1, Ordering::Relaxed);
    }
}
