//! `service update`, `service rollback` and `service scale`.

use anyhow::{Context as _, bail};
use bollard_stubs::models::{Service, ServiceSpec, ServiceUpdateResponse};
use clap::Args;
use std::net::IpAddr;

use super::change;
use super::flags::SharedFlags;
use super::references::ImageOf;
use super::{progress, wire};
use crate::cli::failure::complain;
use crate::cli::output::{line, warn};
use crate::cli::parse::{
    EnvVar, Granted, HostEntry, KeyValue, MountSpec, NetworkFlag, Reference, ServicePort, Spread,
    Ulimit, Words,
};
use crate::client::{Call, Client};

/// Flags of `service update`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio service update --image nginx:1.29 --update-delay 10s web
  nuncio service update --env-add LEVEL=debug --env-rm OLD web
  nuncio service update --publish-rm 80 --publish-add 8081:80 web
  nuncio service update --force web                 new tasks though nothing changed
  nuncio service update --rebalance web             move tasks to nodes that have come since")]
pub(super) struct UpdateArgs {
    /// Another image
    #[arg(long, value_name = "IMAGE")]
    image: Option<Reference>,

    /// Another command, in one argument; '' is the image's own
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(super) args: Option<Words>,

    /// Replace the tasks though nothing changed
    #[arg(long)]
    pub(super) force: bool,

    /// Move tasks until nodes have as many as they would if the service was made now
    #[arg(long)]
    rebalance: bool,

    /// Go back to the specification before
    #[arg(long)]
    rollback: bool,

    #[command(flatten)]
    pub(super) lists: ListFlags,

    #[command(flatten)]
    pub(super) shared: SharedFlags,

    #[arg(value_name = "SERVICE")]
    service: String,
}

/// What is added to lists and taken from them.
#[derive(Args, Debug)]
pub(super) struct ListFlags {
    /// Set a variable
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) env_add: Vec<EnvVar>,

    /// Take a variable, by its name
    #[arg(long, value_name = "NAME")]
    pub(super) env_rm: Vec<String>,

    /// Set metadata of the service
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(super) label_add: Vec<KeyValue>,

    /// Take metadata, by its key
    #[arg(long, value_name = "KEY")]
    pub(super) label_rm: Vec<String>,

    /// Set metadata of its containers
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(super) container_label_add: Vec<KeyValue>,

    /// Take metadata of its containers, by its key
    #[arg(long, value_name = "KEY")]
    pub(super) container_label_rm: Vec<String>,

    /// Mount, or mount otherwise what is at the same target
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub(super) mount_add: Vec<MountSpec>,

    /// Take a mount, by its target
    #[arg(long, value_name = "TARGET")]
    pub(super) mount_rm: Vec<String>,

    /// Join a network
    #[arg(long, value_name = "NETWORK")]
    pub(super) network_add: Vec<NetworkFlag>,

    /// Leave a network
    #[arg(long, value_name = "NETWORK")]
    pub(super) network_rm: Vec<String>,

    /// Publish a port
    #[arg(long, value_name = "PORT")]
    pub(super) publish_add: Vec<ServicePort>,

    /// Publish a port no more, by that of the containers
    #[arg(long, value_name = "PORT")]
    pub(super) publish_rm: Vec<ServicePort>,

    /// Add a constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) constraint_add: Vec<String>,

    /// Take a constraint
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) constraint_rm: Vec<String>,

    /// Add what tasks are spread over
    #[arg(long, value_name = "PREFERENCE")]
    pub(super) placement_pref_add: Vec<Spread>,

    /// Take it
    #[arg(long, value_name = "PREFERENCE")]
    pub(super) placement_pref_rm: Vec<Spread>,

    /// Add a secret
    #[arg(long, value_name = "SECRET")]
    pub(super) secret_add: Vec<Granted>,

    /// Take a secret, by its name
    #[arg(long, value_name = "SECRET")]
    pub(super) secret_rm: Vec<String>,

    /// Add a config
    #[arg(long, value_name = "CONFIG")]
    pub(super) config_add: Vec<Granted>,

    /// Take a config, by its name
    #[arg(long, value_name = "CONFIG")]
    pub(super) config_rm: Vec<String>,

    /// Add a supplementary group
    #[arg(long, value_name = "GROUP")]
    pub(super) group_add: Vec<String>,

    /// Take a supplementary group
    #[arg(long, value_name = "GROUP")]
    pub(super) group_rm: Vec<String>,

    /// Give a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_add: Vec<String>,

    /// Take a Linux capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(super) cap_drop: Vec<String>,

    /// Set a kernel parameter
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) sysctl_add: Vec<KeyValue>,

    /// Leave a kernel parameter as it is
    #[arg(long, value_name = "KEY")]
    pub(super) sysctl_rm: Vec<String>,

    /// Set a limit of each process
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(super) ulimit_add: Vec<Ulimit>,

    /// Leave a limit as it is, by its name
    #[arg(long, value_name = "NAME")]
    pub(super) ulimit_rm: Vec<String>,

    /// Add a line for /etc/hosts
    #[arg(long, value_name = "NAME:IP")]
    pub(super) host_add: Vec<HostEntry>,

    /// Take a line for /etc/hosts, by its name
    #[arg(long, value_name = "NAME[:IP]")]
    pub(super) host_rm: Vec<String>,

    /// Add a name server
    #[arg(long, value_name = "IP")]
    pub(super) dns_add: Vec<IpAddr>,

    /// Take a name server
    #[arg(long, value_name = "IP")]
    pub(super) dns_rm: Vec<String>,

    /// Add a domain to complete names with
    #[arg(long, value_name = "DOMAIN")]
    pub(super) dns_search_add: Vec<String>,

    /// Take such a domain
    #[arg(long, value_name = "DOMAIN")]
    pub(super) dns_search_rm: Vec<String>,

    /// Add an option for /etc/resolv.conf
    #[arg(long, value_name = "OPTION")]
    pub(super) dns_option_add: Vec<String>,

    /// Take such an option
    #[arg(long, value_name = "OPTION")]
    pub(super) dns_option_rm: Vec<String>,

    /// Add what else a node must have, as gpu=2
    #[arg(long, value_name = "KIND=NUMBER")]
    pub(super) generic_resource_add: Vec<KeyValue>,

    /// Take it, by its kind
    #[arg(long, value_name = "KIND")]
    pub(super) generic_resource_rm: Vec<String>,
}

pub(super) async fn update(args: UpdateArgs, client: &Client) -> anyhow::Result<u8> {
    let service = wire::service(client, &args.service).await?;
    let mut spec = service.spec.clone().unwrap_or_default();
    change::apply(&args, client, &mut spec).await?;
    if args.rollback && (args.image.is_some() || Some(&spec) != service.spec.as_ref()) {
        bail!("other flags may not be combined with --rollback");
    }
    let named = || {
        let task = spec.task_template.as_ref();
        let image = task.and_then(|task| task.container_spec.as_ref()?.image.clone());
        image
            .unwrap_or_default()
            .parse()
            .context("read the service's image")
    };
    let image = ImageOf {
        image: match &args.image {
            Some(image) => image.clone(),
            None => named()?,
        },
        with_account: args.shared.with_registry_auth,
        resolve: !args.shared.no_resolve_image,
    };
    if args.image.is_some() {
        image.write(client, &mut spec).await?;
    }
    let call = call(client, &service)?
        .optional("rollback", args.rollback.then_some("previous"))
        .flag("rebalance", args.rebalance);
    let call = match args.shared.with_registry_auth {
        true => image.authorize(call)?,
        false => call.query("registryAuthFrom", "spec"),
    };
    send(call, &spec).await?;
    line(&args.service)?;
    match args.shared.detach {
        true => Ok(0),
        false => progress::wait(client, &args.service, args.shared.quiet).await,
    }
}

/// A request to change a service that is as it was found.
fn call<'a>(client: &'a Client, service: &Service) -> anyhow::Result<Call<'a>> {
    let id = service.id.as_deref().context("the service has no id")?;
    let version = service.version.as_ref().and_then(|version| version.index);
    let call = client.post(&format!("/services/{id}/update"));
    Ok(call.query("version", version.unwrap_or_default().to_string()))
}

async fn send(call: Call<'_>, spec: &ServiceSpec) -> anyhow::Result<()> {
    let answer = call.json(&wire::body(spec)?).send().await?;
    let done: ServiceUpdateResponse = answer.json().await?;
    done.warnings.iter().flatten().for_each(|text| warn(text));
    Ok(())
}

/// Flags of `service rollback`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio service rollback web                       to the specification before the last update")]
pub(super) struct RollbackArgs {
    /// Return at once, rather than when the tasks run
    #[arg(short, long)]
    detach: bool,

    /// Do not show how it goes
    #[arg(short, long)]
    quiet: bool,

    #[arg(value_name = "SERVICE")]
    service: String,
}

pub(super) async fn rollback(args: RollbackArgs, client: &Client) -> anyhow::Result<u8> {
    let service = wire::service(client, &args.service).await?;
    let spec = service.spec.clone().unwrap_or_default();
    send(call(client, &service)?.query("rollback", "previous"), &spec).await?;
    line(&args.service)?;
    match args.detach {
        true => Ok(0),
        false => progress::wait(client, &args.service, args.quiet).await,
    }
}

/// Flags of `service scale`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  nuncio service scale web=5 worker=0")]
pub(super) struct ScaleArgs {
    /// Return at once, rather than when the tasks run
    #[arg(short, long)]
    detach: bool,

    /// Services, and how many tasks each is to have
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    scales: Vec<Scale>,
}

#[derive(Clone, Debug)]
struct Scale {
    service: String,
    replicas: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("invalid scale specifier {0:?}: expected SERVICE=REPLICAS, as web=3")]
struct InvalidScale(String);

impl std::str::FromStr for Scale {
    type Err = InvalidScale;

    fn from_str(text: &str) -> Result<Self, InvalidScale> {
        let parts = text
            .split_once('=')
            .filter(|(service, _)| !service.is_empty());
        match parts.map(|(service, replicas)| (service, replicas.parse::<u32>())) {
            Some((service, Ok(replicas))) => Ok(Self {
                service: service.to_owned(),
                replicas: replicas.into(),
            }),
            _ => Err(InvalidScale(text.to_owned())),
        }
    }
}

pub(super) async fn scale(args: ScaleArgs, client: &Client) -> anyhow::Result<u8> {
    let mut code = 0;
    let mut scaled = Vec::new();
    for scale in &args.scales {
        match scale_one(scale, client).await {
            Ok(()) => {
                line(&format!("{} scaled to {}", scale.service, scale.replicas))?;
                scaled.push(&scale.service);
            }
            Err(error) => {
                complain(&error.context(scale.service.clone()));
                code = 1;
            }
        }
    }
    if !args.detach {
        for service in scaled {
            progress::wait(client, service, false).await?;
        }
    }
    Ok(code)
}

async fn scale_one(scale: &Scale, client: &Client) -> anyhow::Result<()> {
    let service = wire::service(client, &scale.service).await?;
    let mut spec = service.spec.clone().unwrap_or_default();
    let mode = spec.mode.get_or_insert_default();
    match (&mut mode.replicated, &mut mode.replicated_job) {
        (Some(mode), _) => mode.replicas = Some(scale.replicas),
        (None, Some(job)) => job.total_completions = Some(scale.replicas),
        (None, None) => bail!("scale can only be used with replicated or replicated-job mode"),
    }
    send(call(client, &service)?, &spec).await
}
