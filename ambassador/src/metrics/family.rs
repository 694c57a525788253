//! One family of metrics, written figure by figure.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

type Labels<'a> = [(&'a str, &'a str)];

/// A family whose description is written.
#[derive(Debug)]
pub struct Family<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
}

impl<'a> Family<'a> {
    /// Writes the description.
    ///
    /// # Errors
    ///
    /// As all of these: only if the text cannot take more.
    pub fn new(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        unit: Option<&'a Unit>,
        kind: MetricType,
    ) -> Result<Self, fmt::Error> {
        let encoder = encoder.encode_descriptor(name, help, unit, kind)?;
        Ok(Self { encoder, kind })
    }

    /// The same of a counter, to whose name the text adds `_total`.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn counter(
        encoder: &'a mut DescriptorEncoder<'_>,
        name: &'a str,
        help: &str,
        unit: Option<&'a Unit>,
    ) -> Result<Self, fmt::Error> {
        Self::new(encoder, name, help, unit, MetricType::Counter)
    }

    /// A figure of a counter or a gauge.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn write(&mut self, labels: &Labels<'_>, value: u64) -> Result<(), fmt::Error> {
        if labels.is_empty() {
            return encode(&mut self.encoder, self.kind, value);
        }
        encode(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }

    /// A figure of a counter or a gauge that has a fraction.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn write_fraction(&mut self, labels: &Labels<'_>, value: f64) -> Result<(), fmt::Error> {
        if labels.is_empty() {
            return encode_fraction(&mut self.encoder, self.kind, value);
        }
        encode_fraction(&mut self.encoder.encode_family(&labels)?, self.kind, value)
    }

    /// What is so for as long as it stands here.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn write_info(&mut self, labels: &Labels<'_>) -> Result<(), fmt::Error> {
        self.encoder.encode_info(&labels)
    }

    /// How many there were below each bound, each counted once, and the sum of all.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn write_histogram(
        &mut self,
        labels: &Labels<'_>,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> Result<(), fmt::Error> {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut encoder = self.encoder.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

fn encode_fraction(
    encoder: &mut MetricEncoder<'_>,
    kind: MetricType,
    value: f64,
) -> Result<(), fmt::Error> {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, kind: MetricType, value: u64) -> Result<(), fmt::Error> {
    match kind {
        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        _ => encoder.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}
