//! The host's figures for Prometheus, taken when they are asked for: `daemon --metrics-addr`. docs/METRICS.md lists them.

mod ambassador;
mod containers;
mod names;
mod overlay;
mod plain;
mod registry;
mod serve;

use std::fmt;
use std::sync::Arc;

use nuncio_ambassador::metrics::{Family, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use self::ambassador::AmbassadorFigures;
use self::containers::ContainerFigures;
use self::names::NameFigures;
use self::overlay::OverlayFigures;
use self::registry::RegistryFigures;
use super::Daemon;
use super::events::Kind;
use super::traces::{TraceFigures, Traces};

pub(super) use self::serve::{bind, serve};

/// Containers, peers and networks of which there are figures; what is beyond is counted in `nuncio_metrics_omitted`.
const MOST: usize = 1000;

/// Everything there is to tell but what the ambassador tells itself.
#[derive(Debug)]
struct Figures {
    parts: Vec<(&'static str, bool)>,
    omitted: Vec<(&'static str, usize)>,
    events: Vec<(Kind, u64)>,
    repairs: Vec<(String, u64)>,
    containers: ContainerFigures,
    overlay: OverlayFigures,
    registry: RegistryFigures,
    names: Option<NameFigures>,
    traces: Option<TraceFigures>,
}

impl Daemon {
    /// The figures of this moment, as OpenMetrics.
    async fn figures(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let (containers, overlay, registry, names, ambassador) = tokio::join!(
            self.container_figures(),
            self.overlay_figures(),
            self.registry_figures(),
            self.name_figures(),
            self.ambassador_figures(),
        );
        let parts = [
            ("ambassador", ambassador.is_some()),
            ("names", names.is_some()),
            ("peers", overlay.are_peers_counted()),
            ("registry", registry.answers()),
            ("tunnel", overlay.tunnel_answers()),
        ];
        let figures = Figures {
            parts: parts.to_vec(),
            omitted: vec![
                ("container", containers.omitted),
                ("peer", overlay.omitted_peers),
                ("network", overlay.omitted_networks),
                (
                    "forward",
                    ambassador.as_ref().map_or(0, |figures| figures.omitted),
                ),
            ],
            events: Kind::ALL
                .map(|kind| (kind, self.events.told(kind)))
                .to_vec(),
            repairs: self.tally.of("repair").into_iter().collect(),
            containers,
            overlay,
            registry,
            names,
            traces: self.traces.as_ref().map(Traces::figures),
        };
        let mut registry = Registry::default();
        registry
            .sub_registry_with_prefix("nuncio")
            .register_collector(Box::new(figures));
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(match ambassador {
            Some(AmbassadorFigures { text: more, .. }) => ambassador::joined(&text, &more),
            None => text,
        })
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let mut build = Family::new(encoder, "build", "What runs here", None, MetricType::Info)?;
        build.write_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let help = "Whether a part of the host could be asked for its figures";
        let mut up = gauge(encoder, "part_up", help)?;
        for (part, is_up) in &self.parts {
            up.write(&[("part", part)], u64::from(*is_up))?;
        }
        let help = "Things of which there are no figures here, as there are too many";
        let mut omitted = gauge(encoder, "metrics_omitted", help)?;
        for (kind, count) in &self.omitted {
            omitted.write(&[("kind", kind)], *count as u64)?;
        }
        let mut events = Family::counter(encoder, "events", "What was told by events", None)?;
        for (kind, count) in &self.events {
            events.write(&[("type", kind.word())], *count)?;
        }
        let help = "Things in the kernel that others had changed, and that were mended";
        let mut repairs = Family::counter(encoder, "drift_repairs", help, None)?;
        for kind in [
            "address",
            "fdb",
            "link",
            "neighbour",
            "route",
            "setting",
            "table",
        ] {
            let count = self.repairs.iter().find(|(repaired, _)| repaired == kind);
            repairs.write(&[("kind", kind)], count.map_or(0, |(_, count)| *count))?;
        }
        self.containers.write(encoder)?;
        self.overlay.write(encoder)?;
        self.registry.write(encoder)?;
        if let Some(traces) = &self.traces {
            write_traces(traces, encoder)?;
        }
        self.names
            .as_ref()
            .map_or(Ok(()), |names| names.write(encoder))
    }
}

fn write_traces(traces: &TraceFigures, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Spans that the collector of traces took";
    Family::counter(encoder, "spans_exported", help, None)?.write(&[], traces.exported)?;
    let help = "Spans that the collector of traces did not get";
    let mut dropped = Family::counter(encoder, "spans_dropped", help, None)?;
    for (reason, count) in &traces.dropped {
        dropped.write(&[("reason", reason)], *count)?;
    }
    Ok(())
}

fn gauge<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<Family<'a>, fmt::Error> {
    Family::new(encoder, name, help, None, MetricType::Gauge)
}

/// Nanoseconds as seconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}
