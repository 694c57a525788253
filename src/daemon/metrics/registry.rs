//! How far this host is with the registry.

use std::fmt;
use std::time::Duration;

use nuncio_ambassador::metrics::Family;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use tokio::time::timeout;

use super::gauge;
use crate::daemon::Daemon;

/// How long the registry may take to say where it is; without that there is no lag to tell.
const QUESTION: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct RegistryFigures {
    revision: i64,
    latest: Option<i64>,
    stale: Duration,
    losses: u64,
    quarantined: usize,
    lease: bool,
}

impl Daemon {
    pub(super) async fn registry_figures(&self) -> RegistryFigures {
        let latest = timeout(QUESTION, self.registry.latest_revision()).await;
        let catalog = self.catalog(); // later than the answer, so that the lag is not what came meanwhile
        RegistryFigures {
            revision: catalog.revision,
            latest: latest.ok().and_then(Result::ok),
            stale: catalog
                .stale
                .map_or(Duration::ZERO, |since| since.elapsed().unwrap_or_default()),
            losses: self.mirror.losses(),
            quarantined: catalog.quarantined.len(),
            lease: self.presence.state().borrow().lease.is_some(),
        }
    }
}

impl RegistryFigures {
    pub(super) fn answers(&self) -> bool {
        self.latest.is_some()
    }

    pub(super) fn write(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let help = "The registry's revision that this host knows";
        gauge(encoder, "registry_revision", help)?.write(&[], number(self.revision))?;
        let help = "Revisions that this host is behind; absent while the registry does not answer";
        let mut lag = gauge(encoder, "registry_revision_lag", help)?;
        if let Some(latest) = self.latest {
            lag.write(&[], number(latest.saturating_sub(self.revision)))?;
        }
        let (help, unit) = (
            "For how long what is known may be out of date",
            &Unit::Seconds,
        );
        let name = "registry_stale";
        let mut stale = Family::new(encoder, name, help, Some(unit), MetricType::Gauge)?;
        stale.write_fraction(&[], self.stale.as_secs_f64())?;
        let help = "Times the registry was lost and had to be connected to anew";
        Family::counter(encoder, "registry_reconnects", help, None)?.write(&[], self.losses)?;
        let help = "Records of the registry that cannot be read";
        let quarantined = self.quarantined as u64;
        gauge(encoder, "registry_quarantined_records", help)?.write(&[], quarantined)?;
        let help = "Whether the registry knows that this host lives";
        gauge(encoder, "registry_lease_held", help)?.write(&[], u64::from(self.lease))
    }
}
