//! What is known of the forwards that want to be spared, for those who look.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Rewriter, Scope, ServiceKey};

/// How a forward with cgroups of its own fares.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectForward {
    /// The forward.
    pub forward: String,
    /// The address that is rewritten.
    pub service: String,
    /// Why all its connections are relayed; none if it is only a matter of the cgroups.
    pub unavailable: Option<String>,
    /// Whose connections are rewritten.
    pub cgroups: Vec<DirectCgroup>,
    /// How often each endpoint was chosen without the relay, by address.
    pub connects: Vec<(SocketAddr, u64)>,
}

/// A cgroup whose processes go straight to the endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectCgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Why its connections are relayed all the same; none if they are not.
    pub unavailable: Option<String>,
}

impl DirectForward {
    /// Why a flow of this forward is relayed.
    #[must_use]
    pub fn reason(&self) -> &str {
        let cgroups = || (self.cgroups.iter()).find_map(|cgroup| cgroup.unavailable.as_deref());
        (self.unavailable.as_deref())
            .or_else(cgroups)
            .unwrap_or("the client was not in a cgroup of the forward when it made its socket")
    }
}

/// What is known of all forwards, but for the counts, which the kernel has.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub(super) rewriter: Option<Arc<Rewriter>>,
    pub(super) reports: Vec<Report>,
}

#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) forward: DirectForward,
    pub(super) service: ServiceKey,
    pub(super) scopes: BTreeSet<Scope>,
}

impl Standing {
    /// With the counts of this moment.
    pub(super) fn reports(self) -> Vec<DirectForward> {
        let counters = self.rewriter.map(|rewriter| rewriter.counters());
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for counter in counters.unwrap_or_default() {
            let known = by_service.entry((counter.scope, counter.service));
            (known.or_default()).push((counter.endpoint, counter.connects));
        }
        let with_counts = |mut report: Report| {
            let mut sums: BTreeMap<_, u64> = BTreeMap::new();
            for scope in report.scopes {
                let counts = by_service.get(&(scope, report.service));
                for (endpoint, connects) in counts.into_iter().flatten() {
                    *sums.entry(*endpoint).or_default() += connects;
                }
            }
            report.forward.connects = sums.into_iter().collect();
            report.forward
        };
        self.reports.into_iter().map(with_counts).collect()
    }
}
