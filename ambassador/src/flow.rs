//! One flow: who it joins, what it has carried, and how it ended.

mod end;
mod filter;
mod histogram;
mod joined;
mod record;
mod table;
mod totals;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Protocol;
pub(crate) use end::{EndCause, EndSide, Ended};
pub use filter::{Address, FlowFilter, NotAnAddress};
pub(crate) use joined::Joined;
use joined::Kept;
pub(crate) use record::{Record, rfc3339};
pub(crate) use table::{Event, FlowTable, OpenFlow, Tap};
pub(crate) use totals::{EndpointTotals, Totals};

/// A snapshot of one open flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Unique within the process.
    pub id: u64,
    /// The forward that accepted it.
    pub forward: String,
    /// The transport.
    pub protocol: Protocol,
    /// Who came.
    pub client: SocketAddr,
    /// The address of this host that the client reached.
    pub local: Option<SocketAddr>,
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
    /// How long ago that is.
    pub duration: Duration,
    /// How long the upstream took to accept; none if that is not known, as for datagrams.
    pub connect_time: Option<Duration>,
}

/// What carries the bytes of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Datapath {
    /// Through a pipe, within the kernel.
    Splice,
    /// Through a buffer in user space.
    Copy,
    /// Through user space, where it is encrypted or decrypted.
    Tls,
    /// Datagram by datagram.
    Udp,
}

impl Datapath {
    const ALL: [Self; 4] = [Self::Splice, Self::Copy, Self::Tls, Self::Udp];

    /// Its name in metrics and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Splice => "splice",
            Self::Copy => "copy",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A datapath together with its reason, small enough for an atomic.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub(crate) enum Way {
    Small,
    CopyMode,
    NoPipe,
    Bulk,
    SpliceMode,
    Udp,
    Tls,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::Small,
        Self::CopyMode,
        Self::NoPipe,
        Self::Bulk,
        Self::SpliceMode,
        Self::Udp,
        Self::Tls,
    ];

    pub(crate) fn describe(self) -> (Datapath, &'static str) {
        match self {
            Self::Small => (Datapath::Copy, "not bulk"),
            Self::CopyMode => (Datapath::Copy, "mode is copy"),
            Self::NoPipe => (Datapath::Copy, "no pipe is free"),
            Self::Bulk => (Datapath::Splice, "bulk"),
            Self::SpliceMode => (Datapath::Splice, "mode is splice"),
            Self::Udp => (Datapath::Udp, "datagrams"),
            Self::Tls => (Datapath::Tls, "encrypted"),
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }
}

/// One direction's live figures.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) bytes: AtomicU64,
    /// Those of `bytes` that the endpoint's totals hold already.
    settled: AtomicU64,
    way: AtomicU8,
    /// The datapaths so far, a bit each.
    seen: AtomicU8,
}

impl Meter {
    fn new(way: Way) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            way: AtomicU8::new(way as u8),
            seen: AtomicU8::new(way.describe().0.bit()),
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn take_way(&self, way: Way) {
        if self.way.load(Ordering::Relaxed) == way as u8 {
            return;
        }
        self.way.store(way as u8, Ordering::Relaxed);
        let bit = way.describe().0.bit();
        self.seen.fetch_or(bit, Ordering::Relaxed);
    }

    fn way(&self) -> Way {
        Way::ALL[usize::from(self.way.load(Ordering::Relaxed)) % Way::ALL.len()]
    }

    /// Moves what was carried since the last call into `total`, which therefore never falls, no
    /// matter how many settle at once.
    fn settle(&self, total: &AtomicU64) {
        let now = self.bytes.load(Ordering::Relaxed);
        let before = self.settled.fetch_max(now, Ordering::Relaxed);
        total.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
    }
}

/// A flow, as long as anybody speaks of it: the table while it is open, and the log of its end.
#[derive(Debug)]
pub(crate) struct Entry {
    id: u64,
    forward: Arc<str>,
    protocol: Protocol,
    joined: Kept,
    /// Nanoseconds since 1970.
    since: u64,
    begun: Instant,
    /// Nanoseconds from the beginning to the end; 0 while it is open.
    took: AtomicU64,
    ended: OnceLock<Box<Ended>>,
    pub(crate) inward: Meter,
    pub(crate) outward: Meter,
    endpoint: Arc<EndpointTotals>,
    /// Keeps the forward in the metrics until its last flow is over.
    totals: Arc<Totals>,
}

impl Entry {
    /// Tells how the flow ends; the first to tell is believed. Who tells nothing has aborted it.
    pub(crate) fn end(&self, cause: EndCause, side: EndSide, error: Option<io::Error>) {
        let _ = self.ended.set(Box::new(Ended { cause, side, error }));
    }

    /// The datapaths that it took, in either direction.
    fn datapaths(&self) -> impl Iterator<Item = Datapath> {
        let seen =
            self.inward.seen.load(Ordering::Relaxed) | self.outward.seen.load(Ordering::Relaxed);
        let taken = move |datapath: &Datapath| seen & datapath.bit() != 0;
        Datapath::ALL.into_iter().filter(taken)
    }

    pub(crate) fn forward(&self) -> &str {
        &self.forward
    }

    pub(crate) fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.since)
    }

    pub(crate) fn joined(&self) -> Joined {
        self.joined.joined()
    }

    fn settle(&self) {
        self.inward.settle(&self.endpoint.bytes_in);
        self.outward.settle(&self.endpoint.bytes_out);
    }

    /// None of a flow that never had an upstream.
    fn snapshot(&self) -> Option<Flow> {
        let (datapath, reason) = self.way().describe();
        let joined = self.joined();
        Some(Flow {
            id: self.id,
            forward: self.forward.to_string(),
            protocol: self.protocol,
            client: joined.client,
            local: joined.local,
            upstream: joined.upstream?,
            datapath,
            reason,
            bytes_in: self.inward.bytes.load(Ordering::Relaxed),
            bytes_out: self.outward.bytes.load(Ordering::Relaxed),
            since: self.since(),
            duration: self.duration(),
            connect_time: joined.connect_time,
        })
    }

    /// The way of the direction that is carried better.
    fn way(&self) -> Way {
        let (inward, outward) = (self.inward.way(), self.outward.way());
        if outward.describe().0 == Datapath::Splice {
            outward
        } else {
            inward
        }
    }

    fn duration(&self) -> Duration {
        match self.took.load(Ordering::Relaxed) {
            0 => self.begun.elapsed(),
            nanoseconds => Duration::from_nanos(nanoseconds),
        }
    }
}
