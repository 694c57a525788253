//! `service ls` and `stack services`.

use bollard_stubs::models::{
    EndpointPortConfig, EndpointPortConfigPublishModeEnum, Service, ServiceSpecMode,
};
use clap::Args;
use serde_json::{Map, Value};

use super::catalog::{self, CatalogFlags};
use super::wire;
use crate::cli::human;
use crate::cli::list::{List, filters, labelled, row};
use crate::cli::output::line;
use crate::cli::parse::Filter;
use crate::client::{Call, Client, ClientError};

/// Flags of `service ls`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service ls --filter label=com.docker.stack.namespace=shop
  nuncio service ls --catalog --tag blue --format '{{.Name}} {{.Endpoints}}'

Below the services that nuncio runs stands what else is found by name, if there is such; --catalog shows that alone.")]
pub(super) struct LsArgs {
    #[command(flatten)]
    listed: ListedFlags,

    #[command(flatten)]
    catalog: CatalogFlags,
}

/// What of services is listed, and how.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListedFlags {
    /// Show only ids
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,

    /// Show those for which this holds: id, label, mode, name
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(in crate::cli) filter: Vec<Filter>,

    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<String>,
}

const FIELDS: &[(&str, &str)] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Mode", "MODE"),
    ("Replicas", "REPLICAS"),
    ("Image", "IMAGE"),
    ("Ports", "PORTS"),
];

pub(super) async fn run(args: LsArgs, client: &Client) -> anyhow::Result<u8> {
    let LsArgs { listed, catalog } = args;
    if catalog.is_asked_for() {
        let list = catalog::list(&catalog, &[], client).await?;
        match listed.quiet && listed.format.is_none() {
            true => list.print_field("Name")?,
            false => list.print(listed.format.as_deref())?,
        }
        return Ok(0);
    }
    let services = match with_status(&listed.filter, client).await {
        Err(error) if is_not_built(&error) => {
            catalog::list(&catalog, &[], client)
                .await?
                .print(listed.format.as_deref())?;
            return Ok(0);
        }
        services => services?,
    };
    print(&services, &listed)?;
    // Whoever takes ids, or rows by a template, wants nothing of another kind among them.
    if !listed.quiet && listed.format.is_none() && listed.filter.is_empty() {
        let names: Vec<String> = services.iter().map(name).collect();
        let others = catalog::list(&catalog, &names, client).await?;
        if !others.rows.is_empty() {
            line("")?;
            others.print(None)?;
        }
    }
    Ok(0)
}

/// Those for which all `filter` hold.
///
/// # Errors
///
/// Filters that are none, and the daemon's words.
pub(in crate::cli) async fn services(
    filter: &[Filter],
    client: &Client,
) -> anyhow::Result<Vec<Service>> {
    ask(client.get("/services"), filter).await
}

/// The same, with how many tasks they have.
///
/// # Errors
///
/// As [`services`].
pub(in crate::cli) async fn with_status(
    filter: &[Filter],
    client: &Client,
) -> anyhow::Result<Vec<Service>> {
    ask(client.get("/services").query("status", "true"), filter).await
}

async fn ask(call: Call<'_>, filter: &[Filter]) -> anyhow::Result<Vec<Service>> {
    let call = call.optional("filters", filters(filter));
    let found: Vec<Value> = call.send().await?.json().await?;
    let mut services = found
        .into_iter()
        .map(wire::read)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ClientError::Unexpected {
            what: "GET /services".to_owned(),
            source,
        })?;
    services.sort_by_key(name);
    Ok(services)
}

/// Whether a daemon is of a version that runs no services.
fn is_not_built(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<ClientError>();
    refused.is_some_and(ClientError::is_not_built)
}

/// Prints them as the flags say.
///
/// # Errors
///
/// Templates that are none.
pub(in crate::cli) fn print(services: &[Service], flags: &ListedFlags) -> anyhow::Result<()> {
    let list = List {
        fields: FIELDS,
        columns: FIELDS.iter().map(|(field, _)| *field).collect(),
        rows: services.iter().map(fields).collect(),
    };
    match flags.quiet && flags.format.is_none() {
        true => list.print_field("ID"),
        false => list.print(flags.format.as_deref()),
    }
}

fn name(service: &Service) -> String {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.name.clone()).unwrap_or_default()
}

fn fields(service: &Service) -> Map<String, Value> {
    let spec = service.spec.as_ref();
    let task = spec.and_then(|spec| spec.task_template.as_ref());
    let image = task.and_then(|task| task.container_spec.as_ref()?.image.as_deref());
    let labels = spec
        .and_then(|spec| spec.labels.clone())
        .unwrap_or_default();
    let endpoint = service.endpoint.as_ref();
    let ports = endpoint.and_then(|endpoint| endpoint.ports.as_deref());
    let mode = spec.and_then(|spec| spec.mode.as_ref());
    let of_row = row([
        (
            "ID",
            human::short_id(service.id.as_deref().unwrap_or_default()).to_owned(),
        ),
        ("Name", name(service)),
        ("Mode", mode.map_or("", in_words).to_owned()),
        ("Replicas", replicas(service)),
        (
            "Image",
            without_digest(image.unwrap_or_default()).to_owned(),
        ),
        ("Ports", published(ports.unwrap_or_default())),
    ]);
    labelled(of_row, labels)
}

/// What a mode is called.
pub(super) fn in_words(mode: &ServiceSpecMode) -> &'static str {
    match mode {
        mode if mode.global.is_some() => "global",
        mode if mode.replicated_job.is_some() => "replicated job",
        mode if mode.global_job.is_some() => "global job",
        _ => "replicated",
    }
}

/// An image's name as people write it: the digest that a registry told is left out.
pub(in crate::cli) fn without_digest(image: &str) -> &str {
    match image.split_once('@') {
        Some((name, _))
            if name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':')) =>
        {
            name
        }
        _ => image,
    }
}

/// As `2/3`, with what a node may have of it, and what of a job is done.
fn replicas(service: &Service) -> String {
    let status = service.service_status.as_ref();
    let number = |of: Option<u64>| of.unwrap_or_default();
    let running = number(status.and_then(|status| status.running_tasks));
    let desired = number(status.and_then(|status| status.desired_tasks));
    let completed = number(status.and_then(|status| status.completed_tasks));
    let spec = service.spec.as_ref();
    let mode = spec.and_then(|spec| spec.mode.as_ref());
    if let Some(job) = mode.and_then(|mode| mode.replicated_job.as_ref()) {
        let total = job.total_completions.unwrap_or(1);
        return format!("{running}/{desired} ({completed}/{total} completed)");
    }
    if mode.is_some_and(|mode| mode.global_job.is_some()) {
        let all = desired + completed;
        return format!("{running}/{desired} ({completed}/{all} completed)");
    }
    let placement = spec.and_then(|spec| spec.task_template.as_ref()?.placement.as_ref());
    match placement.and_then(|placement| placement.max_replicas) {
        Some(most) if most > 0 => format!("{running}/{desired} (max {most} per node)"),
        _ => format!("{running}/{desired}"),
    }
}

/// Ports that every node answers on, ports in a row as a range.
fn published(ports: &[EndpointPortConfig]) -> String {
    let protocol = |port: &EndpointPortConfig| {
        let protocol = port.protocol.map(|protocol| protocol.to_string());
        protocol.unwrap_or_else(|| "tcp".to_owned())
    };
    let mut ports: Vec<(String, i64, i64)> = ports
        .iter()
        .filter(|port| port.publish_mode != Some(EndpointPortConfigPublishModeEnum::HOST))
        .map(|port| {
            let number = |port: Option<i64>| port.unwrap_or_default();
            (
                protocol(port),
                number(port.published_port),
                number(port.target_port),
            )
        })
        .collect();
    ports.sort();
    let rows =
        ports.chunk_by(|one, next| one.0 == next.0 && one.1 + 1 == next.1 && one.2 + 1 == next.2);
    let range = |first: i64, last: i64| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let texts = rows.filter_map(|row| {
        let (first, last) = (row.first()?, row.last()?);
        Some(format!(
            "*:{}->{}/{}",
            range(first.1, last.1),
            range(first.2, last.2),
            first.0
        ))
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(service: Value) -> String {
        let service = wire::read(service).expect("a service");
        let row = fields(&service);
        let cell = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        ["Mode", "Replicas", "Image", "Ports"].map(cell).join(" | ")
    }

    #[test]
    fn rows() {
        let image = |image: &str| json!({"ContainerSpec": {"Image": image}});
        let port = |published: u16, target: u16, mode: &str| json!({"Protocol": "tcp", "PublishedPort": published, "TargetPort": target, "PublishMode": mode});
        let service = json!({
            "Spec": {
                "Mode": {"Replicated": {"Replicas": 3}},
                "TaskTemplate": image("nginx:1@sha256:00"),
            },
            "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3},
            "Endpoint": {"Ports": [
                port(8001, 81, "ingress"), port(8000, 80, "ingress"), port(53, 53, "host"), port(9000, 80, "ingress"),
            ]},
        });
        assert_eq!(
            shown(service),
            "replicated | 2/3 | nginx:1 | *:8000-8001->80-81/tcp, *:9000->80/tcp"
        );
        let job = json!({
            "Spec": {
                "Mode": {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 9}},
                "TaskTemplate": image("nginx@sha256:00"),
            },
            "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 4},
        });
        assert_eq!(
            shown(job),
            "replicated job | 1/1 (4/9 completed) | nginx@sha256:00 | "
        );
    }
}
