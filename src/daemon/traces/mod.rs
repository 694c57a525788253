//! Traces, for a collector of OpenTelemetry (`daemon --otlp-endpoint`): spans of requests to the API, and of flows that have
//! ended. Whoever has a span only puts it into a queue, or drops and counts it where that is full. docs/TRACES.md lists them.

mod export;
mod flows;
mod span;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::Notify;

use super::container::locked;
use super::node::Identity;
use crate::cli::OtlpEndpoint;

pub(super) use self::export::{client, export};
pub(super) use self::flows::follow;
pub(crate) use self::span::{Parent, SpanDraft};

/// Spans that may wait for the collector; those beyond are dropped.
const QUEUE: usize = 2048;

/// Why spans are dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Loss {
    /// The collector takes fewer than there are.
    QueueFull,
    /// The collector does not want them.
    Refused,
    /// Flows ended faster than the ambassador could tell of them.
    Missed,
}

impl Loss {
    const ALL: [Self; 3] = [Self::QueueFull, Self::Refused, Self::Missed];

    fn word(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Missed => "missed",
        }
    }
}

/// What is traced, until the collector has it.
pub(crate) struct Traces {
    /// Where the collector is.
    url: String,
    /// What all spans are of.
    resource: Resource,
    queue: Mutex<VecDeque<Span>>,
    arrived: Notify,
    exported: AtomicU64,
    lost: [AtomicU64; 3],
}

/// How many spans were sent, and dropped, by why.
#[derive(Clone, Debug)]
pub(super) struct TraceFigures {
    pub(super) exported: u64,
    pub(super) dropped: Vec<(&'static str, u64)>,
}

impl Traces {
    pub(super) fn new(endpoint: &OtlpEndpoint, node: &Identity) -> Self {
        let attributes = vec![
            span::text("service.name", "nuncio"),
            span::text("service.version", env!("CARGO_PKG_VERSION")),
            span::text("service.instance.id", node.id.to_string()),
            span::text("host.name", node.name.clone()),
        ];
        Self {
            url: endpoint.traces().to_owned(),
            resource: Resource {
                attributes,
                ..Resource::default()
            },
            queue: Mutex::default(),
            arrived: Notify::new(),
            exported: AtomicU64::new(0),
            lost: Default::default(),
        }
    }

    /// Has it sent, soon; never waits.
    pub(crate) fn record(&self, span: Span) {
        {
            let mut queue = locked(&self.queue);
            if queue.len() < QUEUE {
                queue.push_back(span);
            } else {
                drop(queue);
                return self.lose(Loss::QueueFull, 1);
            }
        }
        self.arrived.notify_one();
    }

    fn lose(&self, why: Loss, count: u64) {
        self.lost[why as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Up to `most` of those that wait, the oldest first.
    fn take(&self, most: usize) -> Vec<Span> {
        let mut queue = locked(&self.queue);
        let count = queue.len().min(most);
        queue.drain(..count).collect()
    }

    pub(super) fn figures(&self) -> TraceFigures {
        let lost = |why: Loss| self.lost[why as usize].load(Ordering::Relaxed);
        TraceFigures {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: Loss::ALL.map(|why| (why.word(), lost(why))).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces() -> Traces {
        Traces {
            url: String::new(),
            resource: Resource::default(),
            queue: Mutex::default(),
            arrived: Notify::new(),
            exported: AtomicU64::new(0),
            lost: Default::default(),
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_dropped_is_counted() {
        let traces = traces();
        for number in 0..QUEUE + 5 {
            traces.record(Span {
                flags: u32::try_from(number).expect("few"),
                ..Span::default()
            });
        }
        assert_eq!(traces.figures().dropped[0], ("queue_full", 5));
        let first = traces.take(2);
        assert_eq!(
            first.iter().map(|span| span.flags).collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(traces.take(QUEUE).len(), QUEUE - 2);
        traces.lose(Loss::Missed, 7);
        assert_eq!(traces.figures().dropped[2], ("missed", 7));
    }
}
