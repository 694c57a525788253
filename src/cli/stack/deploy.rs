//! `stack deploy`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard_stubs::models::{
    Ipam, IpamConfig, NetworkCreateRequest, Service as Running, ServiceSpec,
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::compose::{self, Project, Service, Stored, StoredMap};
use super::convert::Namespace;
use super::remove::belongings;
use super::{IMAGE, of, service, warn};
use crate::cli::output::line;
use crate::cli::service::references::{self, ImageOf};
use crate::cli::service::wire;
use crate::cli::stored::{self, Kind};
use crate::client::Client;

/// Flags of `stack deploy`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  nuncio stack deploy -c compose.yml shop
  nuncio stack deploy -c compose.yml -c production.yml --prune --detach=false shop
  envsubst < template.yml | nuncio stack deploy -c - shop")]
pub(super) struct DeployArgs {
    /// A compose file, or - for standard input (may be repeated: the later goes before)
    #[arg(short, long, value_name = "FILE", required = true)]
    compose_file: Vec<String>,

    /// A file of variables (default: .env beside the first compose file)
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Return at once, rather than when the tasks run (true)
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    detach: Option<bool>,

    /// Remove services that the files do not have any more
    #[arg(long)]
    prune: bool,

    /// Do not show how it goes
    #[arg(short, long)]
    quiet: bool,

    /// When to ask registries for digests of images
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Resolve::Always)]
    resolve_image: Resolve,

    /// Give the nodes the accounts at the images' registries
    #[arg(long)]
    with_registry_auth: bool,

    #[arg(value_name = "STACK")]
    stack: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Resolve {
    Always,
    Changed,
    Never,
}

/// Keys of a service that are none of a stack's, beyond those that a service's has another word for.
const DEPRECATED: [(&str, &str); 2] = [
    (
        "container_name",
        "Setting the container name is not supported.",
    ),
    (
        "expose",
        "Exposing ports is unnecessary - services on the same network can access each other's containers on any port.",
    ),
];

pub(super) async fn run(args: DeployArgs, client: &Client) -> anyhow::Result<u8> {
    check_name(&args.stack)?;
    let project = compose::load(&args.compose_file, args.env_file.as_deref())?;
    tell_ignored(&project);
    for service in project.services.values() {
        if service.image.is_none() {
            bail!(
                "invalid image reference for service {}: no image specified",
                service.name
            );
        }
    }
    let info: Value = client.get("/info").send().await?.json().await?;
    if info["Swarm"]["ControlAvailable"].as_bool() == Some(false) {
        bail!(
            "this node cannot change services: point -H at a node that is ready, or make a mesh by `nuncio init`"
        );
    }
    if args.detach.is_none() {
        warn(
            "Since --detach=false was not specified, tasks will be created in the background.
In a future release, --detach=false will become the default.",
        );
    }
    let stack = Stack {
        namespace: Namespace(&args.stack),
        project: &project,
        client,
    };
    if args.prune {
        stack.prune().await?;
    }
    stack.check_external_networks().await?;
    stack.store(Kind::Secret, &project.secrets).await?;
    stack.store(Kind::Config, &project.configs).await?;
    stack.make_networks().await?;
    let ids = stack.make_services(&args).await?;
    if args.detach == Some(false) {
        for id in ids {
            service::wait(client, &id, args.quiet).await?;
        }
    }
    Ok(0)
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_of_name) {
        bail!(
            "invalid stack name: {name:?}: expected letters, digits, - and _, a letter or digit first"
        );
    }
    Ok(())
}

/// Says which keys nothing comes of.
fn tell_ignored(project: &Project) {
    let given: BTreeSet<&str> = project
        .services
        .values()
        .flat_map(|service| service.given.iter().map(String::as_str))
        .collect();
    let deprecated: Vec<_> = DEPRECATED
        .iter()
        .filter(|(key, _)| given.contains(key))
        .collect();
    let others: Vec<&str> = given
        .iter()
        .copied()
        .filter(|key| !DEPRECATED.iter().any(|(other, _)| other == key))
        .collect();
    if !others.is_empty() {
        warn(&format!(
            "Ignoring unsupported options: {}\n",
            others.join(", ")
        ));
    }
    if !deprecated.is_empty() {
        warn("Ignoring deprecated options:\n");
        for (key, why) in deprecated {
            warn(&format!("{key}: {why}\n"));
        }
    }
}

struct Stack<'a> {
    namespace: Namespace<'a>,
    project: &'a Project,
    client: &'a Client,
}

impl Stack<'_> {
    /// Removes the services that the file does not have.
    async fn prune(&self) -> anyhow::Result<()> {
        let names: Vec<String> = self
            .project
            .services
            .keys()
            .map(|name| self.namespace.scope(name))
            .collect();
        for (id, name) in belongings("service", self.namespace.0, self.client).await? {
            if !names.contains(&name) {
                line(&format!("Removing service {name}"))?;
                self.client
                    .delete(&format!("/services/{id}"))
                    .send()
                    .await?;
            }
        }
        Ok(())
    }

    /// The networks that services are on, as the file calls them.
    fn joined(&self) -> BTreeSet<&str> {
        let services = self.project.services.values();
        services
            .flat_map(|service| match service.networks.is_empty() {
                true => vec!["default"],
                false => service.networks.keys().map(String::as_str).collect(),
            })
            .collect()
    }

    async fn check_external_networks(&self) -> anyhow::Result<()> {
        for name in self.joined() {
            if !self
                .project
                .networks
                .get(name)
                .is_some_and(|network| network.external)
            {
                continue;
            }
            let name = self.namespace.network(name, self.project);
            // These are on every node by themselves.
            if ["host", "none", "bridge"].contains(&name.as_str()) {
                continue;
            }
            let found = self.client.get(&format!("/networks/{name}")).send().await;
            let network: Value = match found {
                Err(error) if error.is_not_found() => bail!(
                    "network \"{name}\" is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed: nuncio network create -d overlay {name}"
                ),
                answer => answer?.json().await?,
            };
            if network["Scope"] == "local" {
                bail!(
                    "network \"{name}\" is declared as external, but it is not in the right scope: \"local\" instead of \"swarm\""
                );
            }
        }
        Ok(())
    }

    /// Makes the stack's secrets or configs, or changes their labels.
    async fn store(&self, kind: Kind, all: &StoredMap) -> anyhow::Result<()> {
        let (what, path) = match kind {
            Kind::Secret => ("secret", "/secrets"),
            Kind::Config => ("config", "/configs"),
        };
        for (name, wanted) in all.iter().filter(|(_, wanted)| !wanted.external) {
            let called = wanted
                .name
                .clone()
                .unwrap_or_else(|| self.namespace.scope(name));
            let data = content(kind, wanted).with_context(|| format!("{what} {name}"))?;
            let mut body = json!({
                "Name": called,
                "Labels": self.namespace.labelled(&wanted.labels),
                "Data": STANDARD.encode(data),
            });
            if let Some(driver) = &wanted.template_driver {
                body["Templating"] = json!({"Name": driver});
            }
            match self.client.get(&format!("{path}/{called}")).send().await {
                Ok(answer) => {
                    let found: Value = answer.json().await?;
                    let id = found["ID"].as_str().unwrap_or(&called);
                    let call = self.client.post(&format!("{path}/{id}/update"));
                    let call = call.query("version", found["Version"]["Index"].to_string());
                    call.json(&body)
                        .send()
                        .await
                        .with_context(|| format!("failed to update {what} {called}"))?;
                }
                Err(error) if error.is_not_found() => {
                    line(&format!("Creating {what} {called}"))?;
                    let call = self.client.post(&format!("{path}/create")).json(&body);
                    call.send()
                        .await
                        .with_context(|| format!("failed to create {what} {called}"))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn make_networks(&self) -> anyhow::Result<()> {
        let there = belongings("network", self.namespace.0, self.client).await?;
        for name in self.joined() {
            let network = self.project.networks.get(name).cloned().unwrap_or_default();
            let called = self.namespace.network(name, self.project);
            if network.external || there.iter().any(|(_, other)| *other == called) {
                continue;
            }
            let ipam =
                (network.ipam_driver.is_some() || !network.subnets.is_empty()).then(|| Ipam {
                    driver: network.ipam_driver.clone(),
                    config: Some(network.subnets.iter().map(subnet).collect()),
                    options: None,
                });
            let options: HashMap<_, _> = network.driver_opts.clone().into_iter().collect();
            let wanted = NetworkCreateRequest {
                name: called.clone(),
                driver: Some(
                    network
                        .driver
                        .clone()
                        .unwrap_or_else(|| "overlay".to_owned()),
                ),
                options: (!options.is_empty()).then_some(options),
                labels: Some(self.namespace.labelled(&network.labels)),
                internal: network.internal.then_some(true),
                attachable: network.attachable.then_some(true),
                enable_ipv6: network.enable_ipv6.then_some(true),
                ipam,
                ..NetworkCreateRequest::default()
            };
            line(&format!("Creating network {called}"))?;
            let call = self.client.post("/networks/create").json(&wanted);
            call.send()
                .await
                .with_context(|| format!("failed to create network {called}"))?;
        }
        Ok(())
    }

    /// Makes and changes services; their ids.
    async fn make_services(&self, args: &DeployArgs) -> anyhow::Result<Vec<String>> {
        let running = service::services(&[of(self.namespace.0)], self.client).await?;
        let running: BTreeMap<String, Running> = running
            .into_iter()
            .filter_map(|service| Some((service.spec.as_ref()?.name.clone()?, service)))
            .collect();
        let mut ids = Vec::new();
        for wanted in self.project.services.values() {
            let mut spec = self.namespace.service(wanted, self.project);
            self.grant(wanted, &mut spec)
                .await
                .with_context(|| format!("service {}", wanted.name))?;
            let name = self.namespace.scope(&wanted.name);
            let image = ImageOf {
                image: wanted.image.clone().context("no image specified")?,
                with_account: args.with_registry_auth,
                resolve: args.resolve_image != Resolve::Never,
            };
            ids.push(match running.get(&name) {
                Some(running) => {
                    self.update(running, spec, image, args.resolve_image)
                        .await?
                }
                None => self.create(&name, spec, &image).await?,
            });
        }
        Ok(ids)
    }

    async fn grant(&self, wanted: &Service, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let called = |all: &StoredMap, name: &str| {
            let stored = all.get(name)?;
            Some((stored.name.clone(), stored.external))
        };
        let Project {
            secrets, configs, ..
        } = self.project;
        let of_file = self
            .namespace
            .files(&wanted.secrets, |name| called(secrets, name));
        let secrets = references::secrets(self.client, &of_file).await?;
        let of_file = self
            .namespace
            .files(&wanted.configs, |name| called(configs, name));
        let configs = references::configs(self.client, &of_file).await?;
        let task = spec.task_template.get_or_insert_default();
        let container = task.container_spec.get_or_insert_default();
        container.secrets = service::some_list(secrets);
        container.configs = service::some_list(configs);
        Ok(())
    }

    async fn create(
        &self,
        name: &str,
        mut spec: ServiceSpec,
        image: &ImageOf,
    ) -> anyhow::Result<String> {
        line(&format!("Creating service {name}"))?;
        image.write(self.client, &mut spec).await?;
        let call = self
            .client
            .post("/services/create")
            .json(&wire::body(&spec)?);
        let answer = image.authorize(call)?.send().await;
        let made: Value = answer
            .with_context(|| format!("failed to create service {name}"))?
            .json()
            .await?;
        Ok(made["ID"].as_str().unwrap_or(name).to_owned())
    }

    async fn update(
        &self,
        running: &Running,
        mut spec: ServiceSpec,
        image: ImageOf,
        resolve: Resolve,
    ) -> anyhow::Result<String> {
        let id = running.id.clone().unwrap_or_default();
        let name = spec.name.clone().unwrap_or_default();
        line(&format!("Updating service {name} (id: {id})"))?;
        let before = running.spec.as_ref();
        let labels = before.and_then(|spec| spec.labels.as_ref());
        let is_same = labels.and_then(|labels| labels.get(IMAGE)) == Some(&image.image.given());
        if is_same && resolve != Resolve::Always {
            // The digest of before goes on to be right.
            let task = before.and_then(|spec| spec.task_template.as_ref());
            let image = task.and_then(|task| task.container_spec.as_ref()?.image.clone());
            let task = spec.task_template.get_or_insert_default();
            task.container_spec.get_or_insert_default().image = image;
        } else {
            image.write(self.client, &mut spec).await?;
        }
        let force = before.and_then(|spec| spec.task_template.as_ref()?.force_update);
        spec.task_template.get_or_insert_default().force_update = force;
        let version = running.version.as_ref().and_then(|version| version.index);
        let call = self.client.post(&format!("/services/{id}/update"));
        let call = call.query("version", version.unwrap_or_default().to_string());
        let call = image.authorize(call.json(&wire::body(&spec)?))?;
        let answer = call
            .send()
            .await
            .with_context(|| format!("failed to update service {name}"))?;
        let done: Value = answer.json().await?;
        let warnings = done["Warnings"].as_array().into_iter().flatten();
        warnings.filter_map(Value::as_str).for_each(warn);
        Ok(id)
    }
}

fn subnet((subnet, gateway, range): &(String, Option<String>, Option<String>)) -> IpamConfig {
    IpamConfig {
        subnet: Some(subnet.clone()),
        gateway: gateway.clone(),
        ip_range: range.clone(),
        auxiliary_addresses: None,
    }
}

/// What a secret or a config is: of a file, the environment, or the compose file itself.
fn content(kind: Kind, wanted: &Stored) -> anyhow::Result<Vec<u8>> {
    match wanted {
        Stored {
            file: Some(file), ..
        } => stored::read(file, kind),
        Stored {
            environment: Some(name),
            ..
        } => match std::env::var(name) {
            Ok(value) => Ok(value.into_bytes()),
            Err(_) => bail!("environment: {name} is not set"),
        },
        Stored {
            content: Some(content),
            ..
        } => Ok(content.clone().into_bytes()),
        _ => bail!("expected one of file, environment and content"),
    }
}
