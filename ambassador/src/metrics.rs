//! What an ambassador counts, in OpenMetrics; and what it takes to write that, for whoever counts more.

mod family;
mod process;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

use crate::Ambassador;
use crate::flow::{EndpointTotals, FlowTable, Totals, Way};

pub use family::Family;
pub use process::Process;

/// The figures of this moment, those of open flows included.
pub(crate) fn text(ambassador: &Arc<Ambassador>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let own = registry.sub_registry_with_prefix("nuncio_ambassador");
    own.register_collector(Box::new(Figures(Arc::downgrade(ambassador))));
    registry.register_collector(Box::new(Process));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Figures(Weak<Ambassador>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(ambassador) = self.0.upgrade() else {
            return Ok(());
        };
        let table = ambassador.table();
        let ways = table.settle();
        let counts = Counts::take(table);
        build(&mut encoder)?;
        flows(&mut encoder, &counts)?;
        connects(&mut encoder, &counts)?;
        direct(&mut encoder, &ambassador)?;
        edges(&mut encoder, &counts)?;
        ends(&mut encoder, &counts)?;
        times(&mut encoder, &counts)?;
        datapaths(&mut encoder, &ways)?;
        access_log(&mut encoder, table)
    }
}

/// What each forward has carried to each endpoint, for who draws it: less than the figures, and quicker to read.
pub(crate) fn carried(ambassador: &Ambassador) -> Value {
    let table = ambassador.table();
    table.settle();
    let counts = Counts::take(table);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let relayed = counts.endpoints.iter().map(|(forward, endpoint, totals)| {
        let times = totals.connect_times.snapshot();
        let connects: u64 = times.buckets.iter().map(|(_, count)| count).sum();
        json!({
            "forward": &**forward,
            "endpoint": endpoint,
            "open": read(&totals.open),
            "flows": read(&totals.opened),
            "bytes_in": read(&totals.bytes_in),
            "bytes_out": read(&totals.bytes_out),
            "errors": read(&totals.connect_failures),
            "connects": connects,
            "connect_micros": (times.sum * 1e6) as u64,
        })
    });
    let refused = counts
        .forwards
        .iter()
        .map(|(forward, totals)| json!({ "forward": &**forward, "errors": read(&totals.refused) }));
    let direct = ambassador.direct();
    let direct = direct.iter().flat_map(|forward| {
        let connects = forward.connects.iter();
        connects.map(|(endpoint, connects)| {
            json!({ "forward": &*forward.forward, "endpoint": endpoint, "flows": connects })
        })
    });
    relayed.chain(refused).chain(direct).collect()
}

/// All there is to count, in the order in which it is written.
struct Counts {
    forwards: Vec<(Arc<str>, Arc<Totals>)>,
    endpoints: Vec<(Arc<str>, String, Arc<EndpointTotals>)>,
}

impl Counts {
    fn take(table: &FlowTable) -> Self {
        let (forwards, now) = (table.all_totals(), Instant::now());
        let of = |(name, totals): &(Arc<str>, Arc<Totals>)| {
            let each = totals.each(now).into_iter();
            let name = name.clone();
            each.map(move |(endpoint, totals)| (name.clone(), endpoint, totals))
        };
        Self {
            endpoints: forwards.iter().flat_map(of).collect(),
            forwards,
        }
    }

    /// One figure for each forward.
    fn each_forward(
        &self,
        mut family: Family<'_>,
        value: impl Fn(&Totals) -> &AtomicU64,
    ) -> Result<(), fmt::Error> {
        self.forwards.iter().try_for_each(|(forward, totals)| {
            let value = value(totals).load(Ordering::Relaxed);
            family.write(&[("forward", forward)], value)
        })
    }

    /// One figure for each endpoint of each forward.
    fn each_endpoint(
        &self,
        mut family: Family<'_>,
        value: impl Fn(&EndpointTotals) -> &AtomicU64,
    ) -> Result<(), fmt::Error> {
        let mut endpoints = self.endpoints.iter();
        endpoints.try_for_each(|(forward, endpoint, totals)| {
            let value = value(totals).load(Ordering::Relaxed);
            family.write(&[("forward", forward), ("endpoint", endpoint)], value)
        })
    }
}

fn build(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "What runs here";
    let mut family = Family::new(encoder, "build", help, None, MetricType::Info)?;
    family.write_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn flows(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let help = "Flows that are open";
    let open = Family::new(encoder, "flows_open", help, None, MetricType::Gauge)?;
    counts.each_endpoint(open, |totals| &totals.open)?;
    let help = "Flows that were opened";
    let opened = Family::counter(encoder, "flows", help, None)?;
    counts.each_endpoint(opened, |totals| &totals.opened)?;
    let bytes = Some(&Unit::Bytes);
    let help = "Carried from clients to upstreams";
    let received = Family::counter(encoder, "received", help, bytes)?;
    counts.each_endpoint(received, |totals| &totals.bytes_in)?;
    let help = "Carried from upstreams to clients";
    let sent = Family::counter(encoder, "sent", help, bytes)?;
    counts.each_endpoint(sent, |totals| &totals.bytes_out)
}

fn connects(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let help = "Newcomers that found no upstream";
    let refused = Family::counter(encoder, "refused", help, None)?;
    counts.each_forward(refused, |totals| &totals.refused)?;
    let help = "Attempts on another upstream, after one had failed";
    let retries = Family::counter(encoder, "retries", help, None)?;
    counts.each_forward(retries, |totals| &totals.retries)?;
    let help = "Failed attempts to reach an upstream";
    let failures = Family::counter(encoder, "connect_failures", help, None)?;
    counts.each_endpoint(failures, |totals| &totals.connect_failures)?;
    let help = "Times an upstream was ejected";
    let ejections = Family::counter(encoder, "ejections", help, None)?;
    counts.each_endpoint(ejections, |totals| &totals.ejections)
}

fn direct(encoder: &mut DescriptorEncoder<'_>, ambassador: &Ambassador) -> Result<(), fmt::Error> {
    let help = "Connections that went straight to an endpoint, without the relay";
    let mut family = Family::counter(encoder, "direct_connects", help, None)?;
    for forward in ambassador.direct() {
        for (endpoint, connects) in forward.connects {
            let endpoint = endpoint.to_string();
            let labels: [(&str, &str); 2] =
                [("forward", &forward.forward), ("endpoint", &endpoint)];
            family.write(&labels, connects)?;
        }
    }
    Ok(())
}

fn edges(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let help = "Newcomers turned away and flows ended by what peers say and show, by cause";
    let mut family = Family::counter(encoder, "edge_refused", help, None)?;
    for (forward, totals) in &counts.forwards {
        for (cause, count) in totals.edge.counts() {
            family.write(&[("forward", forward), ("cause", cause)], count)?;
        }
    }
    Ok(())
}

fn ends(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let help = "Flows that have ended, by why and by whose doing";
    let mut family = Family::counter(encoder, "ends", help, None)?;
    for (forward, endpoint, totals) in &counts.endpoints {
        for (cause, side, count) in totals.ends.counts() {
            let labels: [(&str, &str); 4] = [
                ("forward", forward),
                ("endpoint", endpoint),
                ("cause", cause.name()),
                ("side", side.name()),
            ];
            family.write(&labels, count)?;
        }
    }
    Ok(())
}

fn times(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let seconds = Some(&Unit::Seconds);
    let help = "How long upstreams took to accept";
    let mut connects = Family::new(encoder, "connect", help, seconds, MetricType::Histogram)?;
    for (forward, endpoint, totals) in &counts.endpoints {
        let labels: [(&str, &str); 2] = [("forward", forward), ("endpoint", endpoint)];
        let taken = totals.connect_times.snapshot();
        connects.write_histogram(&labels, taken.sum, &taken.buckets)?;
    }
    let help = "How long flows lasted that have ended";
    let mut lasted = Family::new(encoder, "flow", help, seconds, MetricType::Histogram)?;
    for (forward, endpoint, totals) in &counts.endpoints {
        let labels: [(&str, &str); 2] = [("forward", forward), ("endpoint", endpoint)];
        let taken = totals.durations.snapshot();
        lasted.write_histogram(&labels, taken.sum, &taken.buckets)?;
    }
    Ok(())
}

fn datapaths(
    encoder: &mut DescriptorEncoder<'_>,
    ways: &HashMap<(Arc<str>, Way), u64>,
) -> Result<(), fmt::Error> {
    let help = "Open flows by what carries them, and why it is that";
    let mut family = Family::new(encoder, "datapath_flows", help, None, MetricType::Gauge)?;
    let mut ways: Vec<_> = ways.iter().collect();
    ways.sort_unstable_by_key(|((forward, way), _)| (forward, *way as u8));
    for ((forward, way), count) in ways {
        let (datapath, reason) = way.describe();
        let labels: [(&str, &str); 3] = [
            ("forward", forward),
            ("datapath", datapath.name()),
            ("reason", reason),
        ];
        family.write(&labels, *count)?;
    }
    Ok(())
}

fn access_log(encoder: &mut DescriptorEncoder<'_>, table: &FlowTable) -> Result<(), fmt::Error> {
    let Some(log) = table.access_log() else {
        return Ok(());
    };
    let help = "Records that were written to the access log";
    let mut written = Family::counter(encoder, "access_log_written", help, None)?;
    written.write(&[], log.written())?;
    let help = "Records that the access log did not take in time, and that are lost";
    let mut dropped = Family::counter(encoder, "access_log_dropped", help, None)?;
    dropped.write(&[], log.dropped())
}
