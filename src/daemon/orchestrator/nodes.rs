//! Hosts as services are spread over them: how operators want them used, and what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use nuncio_registry::{DesiredKind, DesiredRecord, MachineRecord, NodeRecord};

use super::check_sequence;
use super::cluster::NodeWish;
use super::services::no_such;
use crate::daemon::Daemon;
use crate::daemon::refusal::Refusal;

impl Daemon {
    /// What this host is, for who decides what runs on it.
    pub(in crate::daemon) fn machine(&self) -> MachineRecord {
        let info = self.info().ok();
        let cpus = info.as_ref().map_or(0, |info| info.cpus);
        MachineRecord {
            nano_cpus: u64::try_from(cpus).unwrap_or_default() * 1_000_000_000,
            memory: info.map_or(0, |info| info.memory),
            os: "linux".to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.options.labels.clone(),
            seal_key: self.seal_key.public(),
        }
    }

    /// The host of that id, name or beginning of an id; `self` is this one.
    pub(crate) fn node_of_mesh(&self, wanted: &str) -> anyhow::Result<Arc<NodeRecord>> {
        let catalog = self.catalog();
        let wanted = if wanted == "self" {
            &self.node.id
        } else {
            wanted
        };
        let mut nodes = catalog.nodes.values();
        let exact = nodes.find(|node| node.id == *wanted || node.name == *wanted);
        if let Some(found) = exact {
            return Ok(Arc::clone(found));
        }
        let mut begin = catalog
            .nodes
            .values()
            .filter(|node| !wanted.is_empty() && node.id.starts_with(wanted));
        match (begin.next(), begin.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Refusal::invalid(format!(
                "node {wanted} is ambiguous: several ids begin so, give more digits"
            ))
            .into()),
            (None, _) => Err(no_such("node", wanted).into()),
        }
    }

    /// Wants a host to be used in another way. `version` is the one that the asker saw.
    pub(crate) async fn node_update(
        &self,
        wanted: &str,
        version: u64,
        wish: NodeWish,
    ) -> anyhow::Result<()> {
        let node = self.node_of_mesh(wanted)?;
        let changed = self
            .registry
            .redesire(DesiredKind::Node, &node.id, |before| {
                let now = Timestamp::now().to_string();
                let mut record = before.unwrap_or_else(|| DesiredRecord {
                    id: node.id.clone(),
                    version: 1,
                    created: now.clone(),
                    ..DesiredRecord::default()
                });
                check_sequence(&record, version)?;
                record.version += 1;
                record.updated = now;
                record.spec = serde_json::to_value(&wish).unwrap_or_default();
                Ok(record)
            })
            .await;
        self.settle_desire(changed).await
    }

    /// The version of what is wanted of a host, and that.
    pub(crate) fn node_wish(&self, node: &str) -> (u64, NodeWish) {
        let catalog = self.catalog();
        let record = catalog.desired.get(DesiredKind::Node, node);
        (
            record.map_or(1, |record| record.version),
            NodeWish::of(&catalog, node),
        )
    }

    /// When the wish for a host was last changed, in RFC 3339; of one that nobody changed there is no time.
    pub(crate) fn wished_at(&self, node: &str) -> String {
        let catalog = self.catalog();
        let record = catalog.desired.get(DesiredKind::Node, node);
        record.map_or_else(
            || Timestamp::UNIX_EPOCH.to_string(),
            |record| record.updated.clone(),
        )
    }

    /// Identifies the mesh: the default network, which there is one of in each registry.
    pub(crate) fn mesh_id(&self) -> String {
        let default = self.mesh_default();
        default.map_or_else(
            || self.node.id.clone(),
            |network| network.id.chars().take(25).collect(),
        )
    }

    /// The host that leads, as far as is known.
    pub(crate) fn leader(&self) -> Option<String> {
        let catalog = self.catalog();
        catalog
            .desired
            .leader
            .as_ref()
            .map(|leader| leader.node.clone())
    }
}

/// Labels between `node.labels.` and their values are free, but for what no constraint could name.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let wrong = |label: &&String| label.is_empty() || label.contains(['=', '!', ' ']);
    match labels.keys().find(wrong) {
        Some(label) => Err(Refusal::invalid(format!(
            "invalid label {label:?}: expected a name without blanks, '=' and '!'"
        ))),
        None => Ok(()),
    }
}
