//! One family of metrics, written figure by figure.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::flow::Snapshot;

type Labels<'a> = [(&'a str, &'a str)];

/// A family whose description is written.
pub(super) struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
}

impl<'a> Family<'a> {
    pub(super) fn new(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        unit: Option<&'a Unit>,
        kind: MetricType,
    ) -> Result<Self, fmt::Error> {
        let encoder = encoder.encode_descriptor(name, help, unit, kind)?;
        Ok(Self { encoder, kind })
    }

    pub(super) fn counter(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        unit: Option<&'a Unit>,
    ) -> Result<Self, fmt::Error> {
        Self::new(encoder, name, help, unit, MetricType::Counter)
    }

    /// A figure of a counter or a gauge.
    pub(super) fn write(&mut self, labels: &Labels<'_>, value: u64) -> Result<(), fmt::Error> {
        if labels.is_empty() {
            return encode(&mut self.encoder, self.kind, value);
        }
        encode(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }

    /// A figure of a gauge that has a fraction.
    pub(super) fn write_fraction(&mut self, value: f64) -> Result<(), fmt::Error> {
        self.encoder.encode_gauge(&value)
    }

    /// A figure of a counter that has a fraction.
    pub(super) fn write_sum(&mut self, value: f64) -> Result<(), fmt::Error> {
        self.encoder
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn write_info(&mut self, labels: &Labels<'_>) -> Result<(), fmt::Error> {
        self.encoder.encode_info(&labels)
    }

    pub(super) fn write_histogram(
        &mut self,
        labels: &Labels<'_>,
        snapshot: &Snapshot,
    ) -> Result<(), fmt::Error> {
        let (sum, count, buckets) = (snapshot.sum, snapshot.count(), &snapshot.buckets);
        let mut encoder = self.encoder.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> Result<(), fmt::Error> {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}
