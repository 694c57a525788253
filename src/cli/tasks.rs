//! Tasks as `service ps`, `stack ps`, `node ps` and `task ls` show them.

use std::collections::HashMap;

use anyhow::bail;
use bollard_stubs::models::{EndpointPortConfig, Node, Task};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::human;
use super::list::{List, filters, row};
use super::output::warn;
use super::parse::Filter;
use super::service::{services, wire};
use crate::client::Client;

/// What of tasks is listed, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct TaskFlags {
    /// Show those for which this holds: desired-state, id, label, name, node
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(super) filter: Vec<Filter>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<String>,

    /// Show ids of services and nodes rather than names
    #[arg(long)]
    pub(super) no_resolve: bool,

    /// Show ids, images and errors in full
    #[arg(long)]
    pub(super) no_trunc: bool,

    /// Show only ids
    #[arg(short, long)]
    pub(super) quiet: bool,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Image", "IMAGE"),
    ("Node", "NODE"),
    ("DesiredState", "DESIRED STATE"),
    ("CurrentState", "CURRENT STATE"),
    ("Error", "ERROR"),
    ("Ports", "PORTS"),
];

/// The most that is shown of an error, and of an image, unless all of it is wanted.
const ERROR: usize = 30;

/// Lists the tasks of services by name or id.
///
/// # Errors
///
/// None of the services is there.
pub(super) async fn of_services(
    names: &[String],
    flags: &TaskFlags,
    client: &Client,
) -> anyhow::Result<u8> {
    let (mut wanted, mut code) = (flags.filter.clone(), 0);
    let mut found = false;
    for name in names {
        match wire::service(client, name).await {
            Ok(service) => {
                found = true;
                wanted.push(Filter::new("service", service.id.unwrap_or_default()));
            }
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                warn(&format!("{error:#}"));
                code = 1;
            }
        }
    }
    if !found {
        bail!("no such service: {}", names.join(", "));
    }
    print(&wanted, flags, client).await?;
    Ok(code)
}

/// Lists the tasks for which all of `filter` hold. How many there are.
///
/// # Errors
///
/// Filters or templates that are none, and the daemon's words.
pub(super) async fn print(
    filter: &[Filter],
    flags: &TaskFlags,
    client: &Client,
) -> anyhow::Result<usize> {
    let tasks = tasks(filter, client).await?;
    let names = match flags.no_resolve {
        true => Names::default(),
        false => Names::ask(client).await?,
    };
    let count = tasks.len();
    let list = List {
        fields: FIELDS,
        columns: FIELDS.iter().map(|(field, _)| *field).collect(),
        rows: rows(tasks, &names, flags.no_trunc),
    };
    match flags.quiet && flags.format.is_none() {
        true => list.print_field("ID")?,
        false => list.print(flags.format.as_deref())?,
    }
    Ok(count)
}

/// The tasks for which all of `filter` hold.
///
/// # Errors
///
/// Filters that are none, and the daemon's words.
pub(super) async fn tasks(filter: &[Filter], client: &Client) -> anyhow::Result<Vec<Task>> {
    let call = client.get("/tasks").optional("filters", filters(filter));
    Ok(call.send().await?.json().await?)
}

/// What services and nodes are called, by id.
#[derive(Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// Asks for all of them at once, rather than for each.
    ///
    /// # Errors
    ///
    /// The daemon's words.
    pub(super) async fn ask(client: &Client) -> anyhow::Result<Self> {
        let nodes: Vec<Node> = client.get("/nodes").send().await?.json().await?;
        let nodes = nodes.into_iter().filter_map(|node| {
            let of_spec = node.spec.and_then(|spec| spec.name);
            let of_host = node
                .description
                .and_then(|description| description.hostname);
            Some((
                node.id?,
                of_spec.filter(|name| !name.is_empty()).or(of_host)?,
            ))
        });
        let services = services(&[], client).await?.into_iter();
        let services = services.filter_map(|service| Some((service.id?, service.spec?.name?)));
        Ok(Self(nodes.chain(services).collect()))
    }

    /// What has this id; the id, if that is not known.
    pub(super) fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }

    /// As `web.1`; of a task that has no slot, `web.NODE`.
    pub(super) fn task(&self, task: &Task) -> String {
        let service = self.of(task.service_id.as_deref().unwrap_or_default());
        match task.slot.filter(|slot| *slot > 0) {
            Some(slot) => format!("{service}.{slot}"),
            None => format!("{service}.{}", task.node_id.as_deref().unwrap_or_default()),
        }
    }
}

/// Rows by slot, of each the newest first and those before it below.
fn rows(mut tasks: Vec<Task>, names: &Names, whole: bool) -> Vec<Map<String, Value>> {
    tasks.sort_by_cached_key(|task| {
        let at = task.created_at.clone().unwrap_or_default();
        (
            names
                .of(task.service_id.as_deref().unwrap_or_default())
                .to_owned(),
            task.slot,
            task.node_id
                .clone()
                .filter(|_| task.slot.unwrap_or_default() == 0),
            std::cmp::Reverse(at),
        )
    });
    let mut before = None;
    let rows = tasks.iter().map(|task| {
        let name = names.task(task);
        let is_older = before.replace(name.clone()) == Some(name.clone());
        fields(task, &name, is_older, names, whole)
    });
    rows.collect()
}

fn fields(
    task: &Task,
    name: &str,
    is_older: bool,
    names: &Names,
    whole: bool,
) -> Map<String, Value> {
    let id = task.id.as_deref().unwrap_or_default();
    let status = task.status.as_ref();
    let error = status
        .and_then(|status| status.err.as_deref())
        .unwrap_or_default();
    let ports = status.and_then(|status| status.port_status.as_ref()?.ports.as_deref());
    let spec = task
        .spec
        .as_ref()
        .and_then(|spec| spec.container_spec.as_ref());
    let image = spec
        .and_then(|spec| spec.image.as_deref())
        .unwrap_or_default();
    let short = |text: &str| match whole {
        true => text.to_owned(),
        false => human::ellipsis(text, ERROR),
    };
    let name = match whole {
        true => format!("{name}.{id}"),
        false => name.to_owned(),
    };
    let image = match whole {
        true => image,
        false => super::service::without_digest(image),
    };
    row([
        (
            "ID",
            if whole { id } else { human::short_id(id) }.to_owned(),
        ),
        (
            "Name",
            format!("{}{name}", if is_older { " \\_ " } else { "" }),
        ),
        ("Image", image.to_owned()),
        (
            "Node",
            names
                .of(task.node_id.as_deref().unwrap_or_default())
                .to_owned(),
        ),
        (
            "DesiredState",
            title(
                &task
                    .desired_state
                    .map(|state| state.to_string())
                    .unwrap_or_default(),
            ),
        ),
        ("CurrentState", current(task)),
        (
            "Error",
            match error {
                "" => String::new(),
                error => format!("{:?}", short(error)),
            },
        ),
        ("Ports", published(ports.unwrap_or_default())),
    ])
}

/// As `Running 5 minutes ago`.
fn current(task: &Task) -> String {
    let status = task.status.as_ref();
    let state = status
        .and_then(|status| status.state)
        .map(|state| state.to_string());
    let at = status.and_then(|status| status.timestamp.as_deref()?.parse::<Timestamp>().ok());
    let state = title(&state.unwrap_or_default());
    match at {
        Some(at) => format!("{state} {}", human::ago(at.as_second()).to_lowercase()),
        None => state,
    }
}

/// With a capital.
fn title(word: &str) -> String {
    let mut letters = word.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Ports of the node itself, as `*:8080->80/tcp`.
fn published(ports: &[EndpointPortConfig]) -> String {
    let text = |port: &EndpointPortConfig| {
        let protocol = port.protocol.map(|protocol| protocol.to_string());
        format!(
            "*:{}->{}/{}",
            port.published_port.unwrap_or_default(),
            port.target_port.unwrap_or_default(),
            protocol.unwrap_or_else(|| "tcp".to_owned())
        )
    };
    ports.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_task_took_the_place_of_stands_below_it() {
        let task = |id: &str, slot: i64, at: &str, state: &str, error: &str| {
            json!({
                "ID": id, "ServiceID": "s", "NodeID": "n", "Slot": slot, "CreatedAt": at, "DesiredState": "running",
                "Spec": {"ContainerSpec": {"Image": "nginx:1@sha256:00"}}, "Status": {"State": state, "Err": error},
            })
        };
        let tasks: Vec<Task> = serde_json::from_value(json!([
            task(
                "old",
                1,
                "2026-01-01T00:00:00Z",
                "failed",
                "task: non-zero exit (1) and what else there is"
            ),
            task("two", 2, "2026-01-01T00:00:00Z", "running", ""),
            task("new", 1, "2026-01-02T00:00:00Z", "running", ""),
        ]))
        .expect("tasks");
        let names = Names(
            [("s", "web"), ("n", "host-1")]
                .map(|(id, name)| (id.to_owned(), name.to_owned()))
                .into(),
        );
        let rows = rows(tasks, &names, false);
        let shown = rows.iter().map(|row| {
            let cell = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            ["ID", "Name", "Image", "Node", "CurrentState", "Error"]
                .map(cell)
                .join("|")
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "new|web.1|nginx:1|host-1|Running|",
                "old| \\_ web.1|nginx:1|host-1|Failed|\"task: non-zero exit (1) and w…\"",
                "two|web.2|nginx:1|host-1|Running|",
            ]
        );
    }
}
