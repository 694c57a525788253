//! Services and tasks as they are shown.

use std::sync::Arc;

use nuncio_orchestration::{Desired, Task, TaskState, UpdateState, explain_pending};
use nuncio_registry::{Catalog, DesiredRecord, TaskRecord, TaskStatusRecord};
use serde_json::{Value, json};

use super::cluster::{self, timestamp};
use super::parsed::Parsed;
use super::services::ServiceState;
use super::time::Seen;
use super::{ingress, outfit, spec};
use crate::daemon::Daemon;

/// A task with all that is known of it.
pub(crate) struct TaskView {
    pub(crate) record: Arc<TaskRecord>,
    pub(crate) task: Task,
    pub(crate) status: Option<TaskStatusRecord>,
    /// `SERVICE.SLOT`.
    pub(crate) name: String,
}

impl TaskView {
    fn of(catalog: &Catalog, record: &Arc<TaskRecord>, parsed: &Parsed) -> Option<Self> {
        let task = cluster::task(catalog, record, parsed)?;
        let service = record.spec["Name"].as_str().unwrap_or_default();
        let name = match &task.slot {
            nuncio_orchestration::Slot::Replica(slot) => format!("{service}.{slot}"),
            nuncio_orchestration::Slot::Node(node) => format!("{service}.{node}"),
        };
        Some(Self {
            name,
            status: catalog
                .desired
                .status(record)
                .map(|status| (**status).clone()),
            record: Arc::clone(record),
            task,
        })
    }

    /// Docker's word for what is wanted of it.
    pub(crate) fn desired(&self) -> &'static str {
        match self.task.desired {
            // What has ended of itself is not to run again; another task is in its place.
            Desired::Running if self.task.ended() => "shutdown",
            Desired::Running => "running",
            Desired::Shutdown => "shutdown",
            Desired::Remove => "remove",
        }
    }

    /// Docker's word for what it has come to.
    pub(crate) fn state(&self) -> String {
        word(self.task.state)
    }

    /// As the Engine API tells it.
    pub(crate) fn shown(&self) -> Value {
        let status = self.status.clone().unwrap_or_default();
        let mut body = json!({
            "ID": self.record.id,
            "Version": { "Index": version(&self.record, &status) },
            "CreatedAt": timestamp(self.task.created),
            "UpdatedAt": timestamp(self.task.changed.max(self.task.created)),
            "Labels": {},
            "Name": format!("{}.{}", self.name, self.record.id),
            "Spec": self.record.spec["TaskTemplate"],
            "ServiceID": self.record.service,
            "Status": {
                "Timestamp": timestamp(self.task.changed.max(self.task.created)),
                "State": self.state(),
                "Message": self.message(),
                "PortStatus": {},
            },
            "DesiredState": self.desired(),
            "NetworksAttachments": self.networks(),
        });
        if let nuncio_orchestration::Slot::Replica(slot) = self.task.slot {
            body["Slot"] = slot.into();
        }
        if let Some(node) = &self.record.node {
            body["NodeID"] = node.clone().into();
        }
        let error = self.task.err.clone().or_else(|| self.task.reason.clone());
        if let Some(error) = error {
            body["Status"]["Err"] = error.into();
        }
        if !status.container.is_empty() {
            body["Status"]["ContainerStatus"] = json!({
                "ContainerID": status.container,
                "PID": status.pid.unwrap_or_default(),
                "ExitCode": self.task.exit_code.unwrap_or_default(),
            });
        }
        if status
            .ports
            .as_array()
            .is_some_and(|ports| !ports.is_empty())
        {
            body["Status"]["PortStatus"] = json!({ "Ports": status.ports });
        }
        body
    }

    fn message(&self) -> String {
        match (&self.task.message, self.task.state) {
            (Some(message), _) => message.clone(),
            (None, TaskState::Pending | TaskState::New) => "pending task scheduling".to_owned(),
            (None, TaskState::Assigned) => "scheduler assigned task to node".to_owned(),
            (None, state) => word(state),
        }
    }

    fn networks(&self) -> Value {
        let parsed = spec::parse(&self.record.spec).unwrap_or_default();
        let networks = spec::networks(&parsed);
        networks
            .iter()
            .map(|network| json!({ "Network": { "ID": network.target } }))
            .collect()
    }
}

/// Grows whenever the task is told of anew.
fn version(record: &TaskRecord, status: &TaskStatusRecord) -> u64 {
    let (written, told) = (
        cluster::millis(&record.updated),
        cluster::millis(&status.since),
    );
    written.unwrap_or_default().max(told.unwrap_or_default())
}

fn word(state: TaskState) -> String {
    let word = serde_json::to_value(state).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}

/// A service as the Engine API tells it; with `status` how many of its tasks run.
pub(crate) fn service(
    daemon: &Daemon,
    catalog: &Catalog,
    record: &DesiredRecord,
    status: bool,
) -> Value {
    let parsed = spec::parse(&record.spec).unwrap_or_default();
    let ports = ingress::published(record);
    let mut endpoint =
        json!({ "Spec": record.spec.get("EndpointSpec").cloned().unwrap_or_else(|| json!({})) });
    if endpoint["Spec"]["Mode"].is_null() {
        endpoint["Spec"]["Mode"] = "vip".into();
    }
    if !ports.is_empty() {
        let shown = ports.iter().map(|port| {
            json!({
                "Protocol": spec::protocol(port),
                "TargetPort": port.target_port,
                "PublishedPort": port.published_port,
                "PublishMode": if spec::is_ingress(port) { "ingress" } else { "host" },
            })
        });
        endpoint["Ports"] = shown.collect();
    }
    if !spec::is_round_robin(&parsed) {
        let virtual_ips = daemon.virtual_addresses(record.name.as_str());
        endpoint["VirtualIPs"] = virtual_ips
            .into_iter()
            .map(|(network, address)| json!({ "NetworkID": network, "Addr": address }))
            .collect();
    }
    let mut body = json!({
        "ID": record.id,
        "Version": { "Index": record.version },
        "CreatedAt": record.created,
        "UpdatedAt": record.updated,
        "Spec": record.spec,
        "Endpoint": endpoint,
    });
    if let Some(previous) = ServiceState::of(record).previous {
        body["PreviousSpec"] = previous.spec;
    }
    if let Some(update) = cluster::update(catalog, record) {
        body["UpdateStatus"] = json!({
            "State": update_word(update.state),
            "StartedAt": timestamp(update.started),
            "Message": update.message,
        });
        if let Some(completed) = update.completed {
            body["UpdateStatus"]["CompletedAt"] = timestamp(completed).into();
        }
    }
    if status {
        let (running, desired, completed) = counted(daemon, catalog, record);
        body["ServiceStatus"] = json!({
            "RunningTasks": running,
            "DesiredTasks": desired,
            "CompletedTasks": completed,
        });
    }
    body
}

fn update_word(state: UpdateState) -> Value {
    serde_json::to_value(state).unwrap_or_default()
}

/// How many tasks run, are wanted and are done.
fn counted(daemon: &Daemon, catalog: &Catalog, record: &DesiredRecord) -> (u64, u64, u64) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let tasks = catalog.desired.tasks.values();
    let tasks: Vec<Task> = tasks
        .filter(|task| task.service == record.id)
        .filter_map(|task| cluster::task(catalog, task, &daemon.parsed))
        .collect();
    let running = tasks.iter().filter(|task| {
        let alive = task
            .node
            .as_ref()
            .is_some_and(|node| catalog.alive.contains(node));
        task.state == TaskState::Running && task.desired == Desired::Running && alive
    });
    let completed = tasks
        .iter()
        .filter(|task| task.state == TaskState::Complete)
        .count();
    let mode = &record.spec["Mode"];
    let desired = match (
        &mode["Replicated"]["Replicas"],
        &mode["ReplicatedJob"]["TotalCompletions"],
    ) {
        _ if mode.get("Global").is_some() || mode.get("GlobalJob").is_some() => count(
            tasks
                .iter()
                .filter(|task| task.desired == Desired::Running && !task.ended())
                .count(),
        ),
        (replicas, _) if replicas.is_u64() => replicas.as_u64().unwrap_or_default(),
        (_, total) if total.is_u64() => total.as_u64().unwrap_or_default(),
        _ => 1,
    };
    (count(running.count()), desired, count(completed))
}

impl Daemon {
    /// All tasks that are known.
    pub(crate) fn tasks(&self, catalog: &Catalog) -> Vec<TaskView> {
        let tasks = catalog.desired.tasks.values();
        tasks
            .filter_map(|record| TaskView::of(catalog, record, &self.parsed))
            .collect()
    }

    /// The task of that id, name or beginning of an id.
    pub(crate) fn task(&self, wanted: &str) -> anyhow::Result<TaskView> {
        let catalog = self.catalog();
        let mut all = self.tasks(&catalog);
        let exact = all.iter().position(|task| {
            task.record.id == wanted || format!("{}.{}", task.name, task.record.id) == wanted
        });
        if let Some(at) = exact {
            return Ok(all.swap_remove(at));
        }
        all.retain(|task| !wanted.is_empty() && task.record.id.starts_with(wanted));
        match all.len() {
            1 => Ok(all.remove(0)),
            0 => Err(super::no_such("task", wanted).into()),
            _ => Err(super::Refusal::invalid(format!(
                "task {wanted} is ambiguous: several ids begin so, give more digits"
            ))
            .into()),
        }
    }

    /// Why a task has no host: host by host.
    pub(crate) fn why_pending(&self, wanted: &str) -> anyhow::Result<Value> {
        let view = self.task(wanted)?;
        let catalog = self.catalog();
        let now = self.mesh_time.now();
        let mesh = cluster::cluster(&catalog, &self.parsed, &Seen::default(), now);
        let nodes = explain_pending(&mesh, &view.record.id);
        let nodes: Vec<Value> = nodes
            .into_iter()
            .map(|(node, why)| {
                let name = catalog
                    .nodes
                    .get(&node)
                    .map_or(node.as_str(), |node| &node.name);
                json!({ "Node": name, "Why": why.to_string() })
            })
            .collect();
        Ok(json!({
            "Task": view.record.id,
            "Name": view.name,
            "State": view.state(),
            "Reason": view.task.reason.clone().unwrap_or_default(),
            "Nodes": nodes,
        }))
    }

    /// Where this host's containers find a service, by network, with the prefix of the network.
    fn virtual_addresses(&self, service: &str) -> Vec<(String, String)> {
        let name = service.to_ascii_lowercase();
        let networks = self.all_networks();
        let held = networks
            .iter()
            .filter(|network| network.name() != outfit::INGRESS);
        held.filter_map(|network| {
            let address = self.held_address(network.id(), &name)?;
            Some((
                network.id().to_owned(),
                format!("{address}/{}", network.subnet().prefix()),
            ))
        })
        .collect()
    }
}
