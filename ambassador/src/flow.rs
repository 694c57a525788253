//! The flows that are open, and what they have carried.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use futures_util::future::AbortHandle;

/// A snapshot of one open flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Unique within the process.
    pub id: u64,
    /// The forward that accepted it.
    pub forward: String,
    /// Who came.
    pub client: SocketAddr,
    /// Where the bytes go.
    pub upstream: SocketAddr,
    /// What carries the bytes now.
    pub datapath: Datapath,
    /// Why it is that one.
    pub reason: &'static str,
    /// Bytes carried from the client to the upstream.
    pub bytes_in: u64,
    /// Bytes carried from the upstream to the client.
    pub bytes_out: u64,
    /// When it began.
    pub since: SystemTime,
}

/// What carries the bytes of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Datapath {
    /// Through a pipe, within the kernel.
    Splice,
    /// Through a buffer in user space.
    Copy,
    /// Datagram by datagram.
    Udp,
}

impl Datapath {
    /// Its name in metrics and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Splice => "splice",
            Self::Copy => "copy",
            Self::Udp => "udp",
        }
    }
}

/// A datapath together with its reason, small enough for an atomic.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Way {
    Small,
    CopyMode,
    NoPipe,
    Bulk,
    SpliceMode,
    Udp,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Small,
        Self::CopyMode,
        Self::NoPipe,
        Self::Bulk,
        Self::SpliceMode,
        Self::Udp,
    ];

    fn describe(self) -> (Datapath, &'static str) {
        match self {
            Self::Small => (Datapath::Copy, "not bulk"),
            Self::CopyMode => (Datapath::Copy, "mode is copy"),
            Self::NoPipe => (Datapath::Copy, "no pipe is free"),
            Self::Bulk => (Datapath::Splice, "bulk"),
            Self::SpliceMode => (Datapath::Splice, "mode is splice"),
            Self::Udp => (Datapath::Udp, "datagrams"),
        }
    }
}

/// What one forward has seen since it was made.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) opened: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Bytes of flows that have ended; open flows count for themselves.
    ended_in: AtomicU64,
    ended_out: AtomicU64,
}

/// One direction's live figures.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) bytes: AtomicU64,
    way: AtomicU8,
}

impl Meter {
    fn new(way: Way) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            way: AtomicU8::new(way as u8),
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn take_way(&self, way: Way) {
        self.way.store(way as u8, Ordering::Relaxed);
    }

    fn way(&self) -> Way {
        Way::ALL[usize::from(self.way.load(Ordering::Relaxed)) % Way::ALL.len()]
    }
}

/// An open flow's entry in the table.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    forward: Arc<str>,
    client: SocketAddr,
    upstream: SocketAddr,
    since: SystemTime,
    pub(crate) inward: Meter,
    pub(crate) outward: Meter,
    totals: Arc<Totals>,
}

impl Entry {
    fn snapshot(&self) -> Flow {
        let (inward, outward) = (self.inward.way().describe(), self.outward.way().describe());
        let (datapath, reason) = if outward.0 == Datapath::Splice {
            outward
        } else {
            inward
        };
        Flow {
            id: self.id,
            forward: self.forward.to_string(),
            client: self.client,
            upstream: self.upstream,
            datapath,
            reason,
            bytes_in: self.inward.bytes.load(Ordering::Relaxed),
            bytes_out: self.outward.bytes.load(Ordering::Relaxed),
            since: self.since,
        }
    }
}

/// What one forward has seen, its open flows included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) open: u64,
    pub(crate) opened: u64,
    pub(crate) refused: u64,
    pub(crate) connect_failures: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Every open flow of an ambassador. A shard is locked when a flow begins or ends, never per byte.
#[derive(Debug)]
pub(crate) struct FlowTable {
    next: AtomicU64,
    /// Threads seldom meet at one of these: each enters its flows into its own.
    shards: [Mutex<Shard>; SHARDS],
    /// Set, under the lock of every shard, when no flow may go on.
    over: AtomicBool,
}

const SHARDS: usize = 16;

type Shard = HashMap<u64, (Arc<Entry>, AbortHandle)>;

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl FlowTable {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            shards: Default::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Enters a flow that `end` ends; it leaves when the guard is dropped.
    pub(crate) fn open(
        self: &Arc<Self>,
        forward: &Arc<str>,
        totals: &Arc<Totals>,
        (client, upstream): (SocketAddr, SocketAddr),
        way: Way,
        end: AbortHandle,
    ) -> OpenFlow {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry {
            id,
            forward: forward.clone(),
            client,
            upstream,
            since: SystemTime::now(),
            inward: Meter::new(way),
            outward: Meter::new(way),
            totals: totals.clone(),
        });
        totals.opened.fetch_add(1, Ordering::Relaxed);
        let shard = SHARD.with(|shard| *shard);
        let mut open = lock(&self.shards[shard]);
        if self.over.load(Ordering::Relaxed) {
            end.abort();
        }
        open.insert(id, (entry.clone(), end));
        OpenFlow {
            entry,
            table: self.clone(),
            shard,
        }
    }

    pub(crate) fn flows(&self) -> Vec<Flow> {
        let mut flows = Vec::new();
        for shard in &self.shards {
            flows.extend(lock(shard).values().map(|(entry, _)| entry.snapshot()));
        }
        flows.sort_unstable_by_key(|flow| flow.id);
        flows
    }

    /// Sums per forward. Holding all locks makes a flow count once, whether it is ending or not.
    pub(crate) fn sums<'a>(
        &self,
        forwards: impl Iterator<Item = (&'a str, &'a Totals)>,
    ) -> HashMap<String, Sums> {
        let shards: Vec<_> = self.shards.iter().map(lock).collect();
        let mut sums: HashMap<String, Sums> = forwards
            .map(|(name, totals)| (name.to_owned(), totals.sums()))
            .collect();
        for (entry, _) in shards.iter().flat_map(|shard| shard.values()) {
            let sum = sums
                .entry(entry.forward.to_string())
                .or_insert_with(|| entry.totals.sums());
            sum.open += 1;
            sum.bytes_in += entry.inward.bytes.load(Ordering::Relaxed);
            sum.bytes_out += entry.outward.bytes.load(Ordering::Relaxed);
        }
        sums
    }

    /// Ends the flows of one forward that go to `upstreams`; peers see a reset. Returns how many.
    pub(crate) fn end(&self, forward: &Arc<Totals>, upstreams: &[SocketAddr]) -> usize {
        let shards: Vec<_> = self.shards.iter().map(lock).collect();
        let of_forward = |entry: &Entry| Arc::ptr_eq(&entry.totals, forward);
        let goes = |entry: &Entry| of_forward(entry) && upstreams.contains(&entry.upstream);
        let open = shards.iter().flat_map(|shard| shard.values());
        let ended = open.filter(|(entry, _)| goes(entry));
        ended.map(|(_, end)| end.abort()).count()
    }

    /// Ends every flow at once, also those to come; peers see a reset.
    pub(crate) fn abort_all(&self) {
        let shards: Vec<_> = self.shards.iter().map(lock).collect();
        self.over.store(true, Ordering::Relaxed);
        for (_, end) in shards.iter().flat_map(|shard| shard.values()) {
            end.abort();
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Totals {
    fn sums(&self) -> Sums {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums {
            open: 0,
            opened: load(&self.opened),
            refused: load(&self.refused),
            connect_failures: load(&self.connect_failures),
            bytes_in: load(&self.ended_in),
            bytes_out: load(&self.ended_out),
        }
    }
}

/// Keeps a flow in the table.
#[derive(Debug)]
pub(crate) struct OpenFlow {
    pub(crate) entry: Arc<Entry>,
    table: Arc<FlowTable>,
    shard: usize,
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let entry = &self.entry;
        let mut open = lock(&self.table.shards[self.shard]);
        open.remove(&entry.id);
        let add = |total: &AtomicU64, meter: &Meter| {
            total.fetch_add(meter.bytes.load(Ordering::Relaxed), Ordering::Relaxed)
        };
        add(&entry.totals.ended_in, &entry.inward);
        add(&entry.totals.ended_out, &entry.outward);
    }
}
