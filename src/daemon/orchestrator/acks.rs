//! What this host says it sees of tasks that come and go, once its forwarders and names act by it.

use std::collections::{BTreeMap, BTreeSet};

use nuncio_registry::{AckRecord, Catalog, EndpointHealth, EndpointRecord};

use super::cluster;
use super::outfit::TASK_ID;
use super::parsed::Parsed;
use crate::daemon::Daemon;

impl Daemon {
    /// Says so, if it has changed. `catalog` is what this host has been brought in step with.
    pub(in crate::daemon) async fn acknowledge(&self, catalog: &Catalog) {
        self.parsed.tidy(catalog);
        let ack = seen(catalog, &self.node.id, &self.parsed);
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
fn seen(catalog: &Catalog, node: &str, parsed: &Parsed) -> AckRecord {
    let awaited = cluster::awaited(catalog, parsed);
    let tasks: BTreeSet<&str> = awaited.iter().map(|(task, _)| task.as_str()).collect();
    let mut found = BTreeMap::<&str, bool>::new();
    for endpoint in catalog.endpoints.values() {
        if let Some(task) = endpoint.labels.get(TASK_ID)
            && tasks.contains(task.as_str())
        {
            *found.entry(task).or_default() |= is_found(catalog, task, endpoint, parsed);
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
fn is_found(catalog: &Catalog, task: &str, endpoint: &EndpointRecord, parsed: &Parsed) -> bool {
    let record = catalog.desired.tasks.get(task);
    let round_robin = record.is_some_and(|record| parsed.task(record).is_round_robin);
    let is_well = matches!(
        endpoint.health,
        EndpointHealth::Unchecked | EndpointHealth::Healthy
    );
    round_robin || is_well && !endpoint.services.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use nuncio_orchestration::{Task, TaskState};
    use nuncio_registry::{TaskRecord, TaskStatusRecord};
    use serde_json::json;

    use super::super::time::{MeshTime, Seen};

    use super::*;

    /// A mesh of so many tasks, of which each tenth is waited for.
    fn catalog(number: usize) -> Catalog {
        let mut catalog = Catalog::default();
        for at in 0..number {
            let id = format!("t{at}");
            let task = Task {
                id: id.clone(),
                service: format!("s{}", at % 100),
                node: Some("n".to_owned()),
                state: TaskState::Assigned,
                announced: at % 10 != 0,
                ..Task::default()
            };
            let env: Vec<String> = (0..20)
                .map(|number| format!("NAME{number}=value"))
                .collect();
            let record = TaskRecord {
                id: id.clone(),
                service: task.service.clone(),
                node: task.node.clone(),
                task: serde_json::to_value(&task).expect("JSON"),
                spec: json!({
                    "Name": task.service,
                    "TaskTemplate": {
                        "ContainerSpec": { "Image": "busybox", "Env": env },
                        "Networks": [{ "Target": "front" }],
                    },
                }),
                updated: String::new(),
            };
            let status = TaskStatusRecord {
                task: id.clone(),
                node: "n".to_owned(),
                state: "running".to_owned(),
                ..TaskStatusRecord::default()
            };
            let desired = &mut catalog.desired;
            desired.tasks.insert(id.clone(), Arc::new(record));
            desired
                .statuses
                .insert((id, "n".to_owned()), Arc::new(status));
        }
        catalog
    }

    #[test]
    fn who_waits_for_nothing_is_told_nothing() {
        let mut catalog = catalog(20);
        let parsed = Parsed::default();
        let awaited = |catalog: &Catalog| cluster::awaited(catalog, &parsed);
        let expected = ["t0", "t10"].map(|id| (id.to_owned(), true));
        assert_eq!(awaited(&catalog), expected.into());
        let mut record = (*catalog.desired.tasks["t0"]).clone();
        record.task["announced"] = true.into();
        catalog
            .desired
            .tasks
            .insert("t0".to_owned(), Arc::new(record));
        assert_eq!(awaited(&catalog).len(), 1);
    }

    /// What docs/PERFORMANCE.md says of it: `cargo test --lib cost_of_ten_thousand -- --ignored --nocapture`
    #[test]
    #[ignore = "it measures"]
    fn cost_of_ten_thousand_tasks() {
        let (catalog, parsed) = (catalog(10_000), Parsed::default());
        for round in ["first", "second"] {
            let begun = Instant::now();
            let ack = seen(&catalog, "n", &parsed);
            let seen = begun.elapsed();
            let mesh =
                cluster::cluster(&catalog, &parsed, &Seen::default(), MeshTime::begin().now());
            println!(
                "{round}: seen {seen:?}, the mesh {:?}",
                begun.elapsed() - seen
            );
            assert!(ack.present.is_empty() && mesh.tasks.len() == 10_000);
        }
    }
}
