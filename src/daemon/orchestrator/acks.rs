//! What this host says it sees of tasks that come and go, once its forwarders and names act by it.

use std::collections::{BTreeMap, BTreeSet};

use nuncio_registry::{AckRecord, Catalog, EndpointHealth, EndpointRecord};

use super::outfit::TASK_ID;
use super::{cluster, spec};
use crate::daemon::Daemon;

impl Daemon {
    /// Says so, if it has changed. `catalog` is what this host has been brought in step with.
    pub(in crate::daemon) async fn acknowledge(&self, catalog: &Catalog) {
        let ack = seen(catalog, &self.node.id);
        let known = catalog.desired.acks.get(&self.node.id);
        let nothing = AckRecord {
            node: self.node.id.clone(),
            ..AckRecord::default()
        };
        if *known.map_or(&nothing, |known| known.as_ref()) == ack || catalog.stale.is_some() {
            return;
        }
        let lease = self.presence.state().borrow().lease;
        let Some(lease) = lease else {
            return; // whoever is not heard of is not waited for
        };
        if let Err(error) = self.registry.put_ack(&ack, lease).await {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "acknowledge tasks"
            );
        }
    }
}

/// Which of the tasks that somebody waits for are found, and which that end are found no more.
fn seen(catalog: &Catalog, node: &str) -> AckRecord {
    let awaited = cluster::awaited(catalog);
    let tasks: BTreeSet<&str> = awaited.iter().map(|(task, _)| task.as_str()).collect();
    let mut found = BTreeMap::<&str, bool>::new();
    for endpoint in catalog.endpoints.values() {
        if let Some(task) = endpoint.labels.get(TASK_ID)
            && tasks.contains(task.as_str())
        {
            *found.entry(task).or_default() |= is_found(catalog, task, endpoint);
        }
    }
    let mut ack = AckRecord {
        node: node.to_owned(),
        ..AckRecord::default()
    };
    for (task, comes) in &awaited {
        let is_found = found.get(task.as_str()).copied().unwrap_or_default();
        match (comes, is_found) {
            (true, true) => ack.present.insert(task.clone()),
            (false, false) => ack.gone.insert(task.clone()),
            _ => false,
        };
    }
    ack
}

/// Whether newcomers are led to a task: one whose name is not an address of its own is found as long as it is there.
fn is_found(catalog: &Catalog, task: &str, endpoint: &EndpointRecord) -> bool {
    let record = catalog.desired.tasks.get(task);
    let parsed = record.and_then(|record| spec::parse(&record.spec).ok());
    let round_robin = parsed.is_some_and(|spec| spec::is_round_robin(&spec));
    let is_well = matches!(
        endpoint.health,
        EndpointHealth::Unchecked | EndpointHealth::Healthy
    );
    round_robin || is_well && !endpoint.services.is_empty()
}
