//! What an ambassador counts, in OpenMetrics.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::Ambassador;
use crate::flow::Sums;

/// The figures of this moment, those of open flows included.
pub(crate) fn text(ambassador: &Arc<Ambassador>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("nuncio_ambassador");
    registry.register_collector(Box::new(Figures(Arc::downgrade(ambassador))));
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
        let sums: BTreeMap<_, _> = ambassador.sums().into_iter().collect();
        let counter = |value| ConstCounter::new(value);
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut each = |name, help, unit, value: &dyn Fn(&Sums) -> Box<dyn EncodeMetric>| {
            each_forward(&mut encoder, (name, help, unit), &sums, value)
        };
        each("flows_open", "Flows that are open", None, &|s| {
            Box::new(gauge(s.open))
        })?;
        each("flows", "Flows that were opened", None, &|s| {
            Box::new(counter(s.opened))
        })?;
        each("refused", "Newcomers that found no upstream", None, &|s| {
            Box::new(counter(s.refused))
        })?;
        each(
            "connect_failures",
            "Failed attempts to reach an upstream",
            None,
            &|s| Box::new(counter(s.connect_failures)),
        )?;
        each(
            "received",
            "Carried from clients to upstreams",
            Some(&Unit::Bytes),
            &|s| Box::new(counter(s.bytes_in)),
        )?;
        each(
            "sent",
            "Carried from upstreams to clients",
            Some(&Unit::Bytes),
            &|s| Box::new(counter(s.bytes_out)),
        )?;
        direct(&mut encoder, &ambassador)?;
        let mut datapaths = HashMap::new();
        for flow in ambassador.flows() {
            let labels = [
                ("forward", flow.forward),
                ("datapath", flow.datapath.name().into()),
            ];
            *datapaths.entry(labels).or_insert(0) += 1;
        }
        let help = "Open flows by what carries them";
        let kind = ConstGauge::new(0_i64).metric_type();
        let mut family = encoder.encode_descriptor("datapath_flows", help, None, kind)?;
        for (labels, count) in datapaths {
            gauge(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn direct(encoder: &mut DescriptorEncoder<'_>, ambassador: &Ambassador) -> Result<(), fmt::Error> {
    let help = "Connections that went straight to an endpoint, without the relay";
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("direct_connects", help, None, kind)?;
    for forward in ambassador.direct() {
        for (endpoint, connects) in forward.connects {
            let labels = [
                ("forward", forward.forward.clone()),
                ("endpoint", endpoint.to_string()),
            ];
            ConstCounter::new(connects).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn each_forward(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    sums: &BTreeMap<String, Sums>,
    value: &dyn Fn(&Sums) -> Box<dyn EncodeMetric>,
) -> Result<(), fmt::Error> {
    let kind = value(&Sums::default()).metric_type();
    let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
    for (forward, sum) in sums {
        let labels = [("forward", forward.as_str())];
        value(sum).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
