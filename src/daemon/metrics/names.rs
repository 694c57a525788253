//! What the name server of the containers has answered. It is in the ambassador's process.

use std::fmt;

use nuncio_ambassador::metrics::Family;
use nuncio_overlay::{AnswerStats, NameStats};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::daemon::Daemon;

#[derive(Debug)]
pub(super) struct NameFigures(NameStats);

impl Daemon {
    pub(super) async fn name_figures(&self) -> Option<NameFigures> {
        match self.ambassador.name_stats().await {
            Ok(stats) => Some(NameFigures(stats)),
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "ask for figures of names");
                None
            }
        }
    }
}

impl NameFigures {
    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kinds = [("own", &self.0.own), ("upstream", &self.0.upstream)];
        let help = "Queries of containers that got an answer, or that there is none";
        let mut queries = Family::counter(encoder, "dns_queries", help, None)?;
        for (by, stats) in kinds {
            queries.write(&[("answered_by", by)], all(stats))?;
        }
        let help = "Queries of names that are not";
        let mut unknown = Family::counter(encoder, "dns_unknown_names", help, None)?;
        for (by, stats) in kinds {
            unknown.write(&[("answered_by", by)], stats.unknown)?;
        }
        let help = "Queries that nobody answered, or that were refused";
        let mut failures = Family::counter(encoder, "dns_failures", help, None)?;
        for (by, stats) in kinds {
            failures.write(&[("answered_by", by)], stats.failed)?;
        }
        let (help, unit) = ("How long answers took", Some(&Unit::Seconds));
        let mut took = Family::new(encoder, "dns_answer", help, unit, MetricType::Histogram)?;
        for (by, stats) in kinds {
            let micros = |micros: u64| micros as f64 / 1e6;
            let buckets = stats.buckets.iter();
            let buckets: Vec<(f64, u64)> = buckets
                .map(|(bound, count)| (bound.map_or(f64::INFINITY, micros), *count))
                .collect();
            took.write_histogram(&[("answered_by", by)], micros(stats.micros), &buckets)?;
        }
        Ok(())
    }
}

fn all(stats: &AnswerStats) -> u64 {
    stats.buckets.iter().map(|(_, count)| count).sum()
}
