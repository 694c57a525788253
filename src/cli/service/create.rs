//! `service create`.

use std::path::PathBuf;

use anyhow::bail;
use bollard_stubs::models::{
    EndpointSpec, EndpointSpecModeEnum, GenericResourcesInner,
    GenericResourcesInnerDiscreteResourceSpec, ResourcesUlimits, ServiceCreateResponse,
    ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated, ServiceSpecModeReplicatedJob,
    TaskSpecContainerSpec, TaskSpecContainerSpecDnsConfig, TaskSpecPlacement,
    TaskSpecPlacementPreferences, TaskSpecPlacementSpread,
};
use clap::{Args, ValueEnum};

use super::flags::SharedFlags;
use super::references::{self, ImageOf};
use super::{progress, spec, wire};
use crate::cli::output::{line, warn};
use crate::cli::parse::{
    EnvVar, Granted, HostEntry, KeyValue, MountSpec, NetworkFlag, Reference, ServicePort, Spread,
    Ulimit, read_env_file,
};
use crate::client::Client;

/// Flags of `service create`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service create --name web --replicas 3 -p 8080:80 nginx
  nuncio service create --name agent --mode global --mount type=bind,src=/proc,dst=/host/proc,ro agent
  nuncio service create --name db --secret db-password --constraint node.labels.disk==ssd postgres
  nuncio service create --name job --mode replicated-job --replicas 10 --max-concurrent 2 busybox true")]
pub(super) struct CreateArgs {
    /// Its name (default: by chance)
    #[arg(long)]
    name: Option<String>,

    /// As many tasks as --replicas says, or one on each node; jobs end (replicated)
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Mode::Replicated, hide_default_value = true)]
    mode: Mode,

    /// Set a variable, or pass one on by its name
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvVar>,

    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Metadata of the service
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<KeyValue>,

    /// Metadata of its containers
    #[arg(long, value_name = "KEY[=VALUE]")]
    container_label: Vec<KeyValue>,

    /// Mount, in words: type=volume,source=data,target=/data
    #[arg(long, value_name = "KEY=VALUE,..")]
    mount: Vec<MountSpec>,

    /// Join a network
    #[arg(long, value_name = "NETWORK")]
    network: Vec<NetworkFlag>,

    /// Publish a port: 8080:80, or published=8080,target=80,mode=host
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<ServicePort>,

    /// Nodes that tasks may run on, as node.labels.disk==ssd
    #[arg(long, value_name = "EXPRESSION")]
    constraint: Vec<String>,

    /// What tasks are spread over, as spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref: Vec<Spread>,

    /// A secret that its containers have as a file: NAME, or source=NAME,target=PATH,uid=ID,gid=ID,mode=0400
    #[arg(long, value_name = "SECRET")]
    secret: Vec<Granted>,

    /// A config that its containers have as a file, in the same way
    #[arg(long, value_name = "CONFIG")]
    config: Vec<Granted>,

    /// Supplementary groups
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,

    /// Give a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,

    /// Take a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,

    /// A kernel parameter, as net.core.somaxconn=1024
    #[arg(long, value_name = "KEY=VALUE")]
    sysctl: Vec<KeyValue>,

    /// A limit of each process, as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,

    /// A line for /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    host: Vec<HostEntry>,

    /// Name servers
    #[arg(long, value_name = "IP")]
    dns: Vec<std::net::IpAddr>,

    /// Domains to complete names with
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,

    /// Options for /etc/resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,

    /// What else a node must have so many of, as gpu=2
    #[arg(long, value_name = "KIND=NUMBER")]
    generic_resource: Vec<KeyValue>,

    #[command(flatten)]
    shared: SharedFlags,

    /// The image
    #[arg(value_name = "IMAGE", required = true)]
    image: Reference,

    /// The command, instead of the image's own
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Mode {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

pub(super) async fn run(args: CreateArgs, client: &Client) -> anyhow::Result<u8> {
    let mut spec = specification(&args)?;
    let task = spec.task_template.get_or_insert_default();
    task.networks = some_list(references::networks(client, &args.network).await?);
    let container = task.container_spec.get_or_insert_default();
    container.secrets = some_list(references::secrets(client, &args.secret).await?);
    container.configs = some_list(references::configs(client, &args.config).await?);
    let image = ImageOf {
        image: args.image,
        with_account: args.shared.with_registry_auth,
        resolve: !args.shared.no_resolve_image,
    };
    image.write(client, &mut spec).await?;
    let call = client.post("/services/create").json(&wire::body(&spec)?);
    let answer = image.authorize(call)?.send().await?;
    let made: ServiceCreateResponse = answer.json().await?;
    made.warnings.iter().flatten().for_each(|text| warn(text));
    let id = made.id.unwrap_or_default();
    line(&id)?;
    match args.shared.detach {
        true => Ok(0),
        false => progress::wait(client, &id, args.shared.quiet).await,
    }
}

/// All that the flags say, but for what a daemon must be asked for.
fn specification(args: &CreateArgs) -> anyhow::Result<ServiceSpec> {
    let mut spec = ServiceSpec {
        name: args.name.clone(),
        labels: some_map(&args.label),
        mode: Some(mode(args)?),
        endpoint_spec: Some(EndpointSpec {
            mode: Some(EndpointSpecModeEnum::VIP),
            ports: some_list(
                args.publish
                    .iter()
                    .flat_map(ServicePort::ports)
                    .cloned()
                    .collect(),
            ),
        }),
        ..ServiceSpec::default()
    };
    let task = spec.task_template.get_or_insert_default();
    task.container_spec = Some(container(args)?);
    let preferences = args.placement_pref.iter().map(preference).collect();
    if !args.constraint.is_empty() || !args.placement_pref.is_empty() {
        task.placement = Some(TaskSpecPlacement {
            constraints: some_list(args.constraint.clone()),
            preferences: some_list(preferences),
            ..TaskSpecPlacement::default()
        });
    }
    if !args.generic_resource.is_empty() {
        let wanted: anyhow::Result<Vec<_>> = args.generic_resource.iter().map(generic).collect();
        let resources = task.resources.get_or_insert_default();
        resources
            .reservations
            .get_or_insert_default()
            .generic_resources = Some(wanted?);
    }
    spec::apply(&args.shared, &mut spec)?;
    Ok(spec)
}

fn mode(args: &CreateArgs) -> anyhow::Result<ServiceSpecMode> {
    let SharedFlags {
        replicas,
        max_concurrent,
        ..
    } = args.shared;
    if replicas.is_some() && matches!(args.mode, Mode::Global | Mode::GlobalJob) {
        bail!("replicas can only be used with replicated or replicated-job mode");
    }
    if args
        .shared
        .replicas_max_per_node
        .is_some_and(|most| most > 0)
        && matches!(args.mode, Mode::Global | Mode::GlobalJob)
    {
        bail!("replicas-max-per-node can only be used with replicated or replicated-job mode");
    }
    if max_concurrent.is_some() && args.mode != Mode::ReplicatedJob {
        bail!("max-concurrent can only be used with replicated-job mode");
    }
    let mode = ServiceSpecMode::default();
    Ok(match args.mode {
        Mode::Replicated => ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas }),
            ..mode
        },
        Mode::Global => ServiceSpecMode {
            global: Some(Default::default()),
            ..mode
        },
        Mode::ReplicatedJob => ServiceSpecMode {
            replicated_job: Some(ServiceSpecModeReplicatedJob {
                max_concurrent: max_concurrent.or(replicas),
                total_completions: replicas,
            }),
            ..mode
        },
        Mode::GlobalJob => ServiceSpecMode {
            global_job: Some(Default::default()),
            ..mode
        },
    })
}

fn container(args: &CreateArgs) -> anyhow::Result<TaskSpecContainerSpec> {
    let here = std::env::current_dir()?;
    let mounts = args
        .mount
        .iter()
        .map(|mount| mount.clone().into_mount(&here));
    let ulimits = args.ulimit.iter().map(ulimit);
    let dns = TaskSpecContainerSpecDnsConfig {
        nameservers: some_list(args.dns.iter().map(ToString::to_string).collect()),
        search: some_list(args.dns_search.clone()),
        options: some_list(args.dns_option.clone()),
    };
    Ok(TaskSpecContainerSpec {
        args: some_list(args.command.clone()),
        env: some_list(environment(&args.env_file, &args.env)?),
        labels: some_map(&args.container_label),
        groups: some_list(args.group.clone()),
        mounts: some_list(mounts.collect()),
        hosts: some_list(args.host.iter().map(host_line).collect()),
        dns_config: (dns != TaskSpecContainerSpecDnsConfig::default()).then_some(dns),
        sysctls: some_map(&args.sysctl),
        capability_add: some_list(capabilities(&args.cap_add)),
        capability_drop: some_list(capabilities(&args.cap_drop)),
        ulimits: some_list(ulimits.collect()),
        init: Some(false),
        ..TaskSpecContainerSpec::default()
    })
}

/// Those of files first; of those of the same name the last.
fn environment(files: &[PathBuf], given: &[EnvVar]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for path in files {
        all.extend(read_env_file(path)?);
    }
    all.extend(given.iter().cloned());
    let mut variables: Vec<String> = Vec::new();
    for variable in all
        .iter()
        .filter_map(|one| one.resolve(|name| std::env::var(name).ok()))
    {
        let name = name_of(&variable).to_owned();
        variables.retain(|other| name_of(other) != name);
        variables.push(variable);
    }
    Ok(variables)
}

/// What stands before `=`.
pub(super) fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// A line as swarm has them: the address first.
pub(super) fn host_line(entry: &HostEntry) -> String {
    let text = entry.to_string();
    match text.split_once(':') {
        Some((name, address)) => format!("{address} {name}"),
        None => text,
    }
}

pub(super) fn ulimit(limit: &Ulimit) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(limit.name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    }
}

pub(super) fn preference(spread: &Spread) -> TaskSpecPlacementPreferences {
    TaskSpecPlacementPreferences {
        spread: Some(TaskSpecPlacementSpread {
            spread_descriptor: Some(spread.0.clone()),
        }),
    }
}

/// In full and in capitals, as `CAP_NET_ADMIN`, sorted.
pub(in crate::cli) fn capabilities(given: &[String]) -> Vec<String> {
    let full = given.iter().map(|name| {
        let name = name.trim().to_ascii_uppercase();
        match name.as_str() {
            "ALL" => name,
            _ if name.starts_with("CAP_") => name,
            _ => format!("CAP_{name}"),
        }
    });
    let mut full: Vec<String> = full.collect();
    full.sort();
    full.dedup();
    full
}

pub(super) fn generic(pair: &KeyValue) -> anyhow::Result<GenericResourcesInner> {
    let Ok(value) = pair.value.parse() else {
        bail!(
            "invalid generic-resource request `{}={}`: expected KIND=NUMBER, as gpu=2",
            pair.key,
            pair.value
        );
    };
    Ok(GenericResourcesInner {
        named_resource_spec: None,
        discrete_resource_spec: Some(GenericResourcesInnerDiscreteResourceSpec {
            kind: Some(pair.key.clone()),
            value: Some(value),
        }),
    })
}

/// Absent rather than empty.
pub(in crate::cli) fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map<M: FromIterator<(String, String)>>(given: &[KeyValue]) -> Option<M> {
    (!given.is_empty()).then(|| spec::pairs(given))
}
