//! Tasks that are what is wanted now though their service has changed: by where they may run alone, and where they are they may.

use std::collections::BTreeMap;

use super::Action;
use crate::{Cluster, Service, Task};

/// Has tasks count as of the version that is wanted, if that differs from theirs by their placement alone and their host suits.
pub(super) fn adopt(cluster: &Cluster) -> Vec<Action> {
    let changed: BTreeMap<&str, &Service> = cluster
        .services
        .values()
        .filter(|service| !service.spec.akin.is_empty() && !service.spec.is_job())
        .map(|service| (service.id.as_str(), service))
        .collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let tasks = cluster.tasks.values().filter(|task| task.current());
    tasks
        .filter_map(|task| {
            let service = changed.get(task.service.as_str())?;
            suits(cluster, service, task).then(|| Action::Adopt {
                task: task.id.clone(),
                spec_version: service.spec.version,
                placement: service.spec.placement.clone(),
            })
        })
        .collect()
}

fn suits(cluster: &Cluster, service: &Service, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| cluster.nodes.get(id));
    service.spec.akin.contains(&task.spec_version)
        && node.is_some_and(|node| {
            let mut constraints = service.spec.placement.constraints.iter();
            constraints.all(|constraint| constraint.met_by(node))
        })
}
