//! `compose up`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bollard_stubs::models::{
    ContainerCreateResponse, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    HealthStatusEnum, Ipam, IpamConfig, Mount, MountTypeEnum, NetworkCreateRequest,
    VolumeCreateOptions,
};
use clap::Args;
use serde_json::{Value, json};

use super::command::{HASH, IMAGE, NUMBER, PROJECT, SERVICE, of};
use super::container::{self, Wanted, network_name, volume_name};
use super::file::Project;
use super::logs;
use super::service::{Condition, Dependency, Service};
use crate::cli::list::filters;
use crate::cli::output::warn;
use crate::cli::parse::Filter;
use crate::cli::pull::{self, Progress};
use crate::client::Client;

/// Flags of `compose up`.
#[derive(Args, Debug)]
pub(super) struct UpArgs {
    /// Return when the containers run, rather than stay and show what they print
    #[arg(short, long)]
    detach: bool,

    /// Make containers anew though nothing changed
    #[arg(long)]
    force_recreate: bool,

    /// Leave containers as they are though something changed
    #[arg(long, conflicts_with = "force_recreate")]
    no_recreate: bool,

    /// Remove containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,

    /// How many containers a service is to have (may be repeated)
    #[arg(long, value_name = "SERVICE=NUMBER")]
    scale: Vec<String>,

    /// Return when all are well, or run if nothing looks whether they are
    #[arg(long)]
    wait: bool,

    /// Seconds between the stop signal and SIGKILL
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<i64>,

    /// These, and what they depend on (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Between two looks at a container that is waited for.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(
    args: UpArgs,
    project: &Project,
    profiles: &[String],
    client: &Client,
) -> anyhow::Result<u8> {
    let order = order(project, &args.services, profiles)?;
    let scales = scales(&args.scale, project)?;
    let up = Up {
        args: &args,
        project,
        client,
        name: project.name.clone().unwrap_or_default(),
    };
    up.orphans().await?;
    let chosen: Vec<&Service> = order.iter().map(|name| &project.services[name]).collect();
    up.networks(&chosen).await?;
    up.volumes(&chosen).await?;
    for service in &chosen {
        let scale = scales.get(&service.name).copied();
        up.service(service, scale)
            .await
            .with_context(|| format!("service {}", service.name))?;
    }
    if args.wait {
        for service in &chosen {
            up.well(service).await?;
        }
    }
    if args.detach || args.wait {
        return Ok(0);
    }
    let ids: Vec<(String, String)> = up.all(&order).await?;
    logs::stay(&ids, args.timeout, client).await
}

/// The chosen services and what they depend on, those first on which others depend.
fn order(project: &Project, chosen: &[String], profiles: &[String]) -> anyhow::Result<Vec<String>> {
    let is_on = |service: &Service| {
        service.profiles.is_empty() || service.profiles.iter().any(|one| profiles.contains(one))
    };
    let roots: Vec<&str> = match chosen.is_empty() {
        true => project
            .services
            .values()
            .filter(|service| is_on(service))
            .map(|service| service.name.as_str())
            .collect(),
        false => chosen.iter().map(String::as_str).collect(),
    };
    if roots.is_empty() {
        bail!("no service selected");
    }
    let mut done = Vec::new();
    for root in roots {
        visit(project, root, &mut Vec::new(), &mut done)?;
    }
    Ok(done)
}

fn visit<'a>(
    project: &'a Project,
    name: &'a str,
    under_way: &mut Vec<&'a str>,
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    if done.iter().any(|other| other == name) {
        return Ok(());
    }
    if under_way.contains(&name) {
        bail!(
            "dependency cycle detected: {} -> {name}",
            under_way.join(" -> ")
        );
    }
    let Some(service) = project.services.get(name) else {
        bail!("no such service: {name}");
    };
    under_way.push(name);
    for (other, dependency) in &service.depends_on {
        if project.services.contains_key(other) {
            visit(project, other, under_way, done)?;
        } else if dependency.required {
            bail!("service \"{name}\" depends on undefined service \"{other}\"");
        }
    }
    if let Some(other) = service
        .network_mode
        .as_deref()
        .and_then(|mode| mode.strip_prefix("service:"))
    {
        visit(project, other, under_way, done)?;
    }
    under_way.pop();
    done.push(name.to_owned());
    Ok(())
}

fn scales(given: &[String], project: &Project) -> anyhow::Result<BTreeMap<String, i64>> {
    let parse = |text: &String| match text
        .split_once('=')
        .map(|(name, number)| (name, number.parse::<u16>()))
    {
        Some((name, Ok(number))) if project.services.contains_key(name) => {
            Ok((name.to_owned(), number.into()))
        }
        Some((name, Ok(_))) => bail!("no such service: {name}"),
        _ => bail!("invalid --scale {text:?}: expected SERVICE=NUMBER, as web=3"),
    };
    given.iter().map(parse).collect()
}

/// A container of a service, as it is found.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) number: i64,
    hash: String,
    image: String,
    runs: bool,
}

/// The containers of a project, by service and number.
///
/// # Errors
///
/// The daemon's words.
pub(super) async fn containers(project: &str, client: &Client) -> anyhow::Result<Vec<Found>> {
    let call = client.get("/containers/json").query("all", "1").optional(
        "filters",
        filters(&[of(project), Filter::new("label", SERVICE)]),
    );
    let listed: Vec<ContainerSummary> = call.send().await?.json().await?;
    let mut found: Vec<Found> = listed
        .into_iter()
        .map(|container| {
            let labels = container.labels.unwrap_or_default();
            let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
            let names = container.names.unwrap_or_default();
            let name = names
                .into_iter()
                .find(|name| name.matches('/').count() == 1);
            Found {
                id: container.id.unwrap_or_default(),
                name: name.unwrap_or_default().trim_start_matches('/').to_owned(),
                service: label(SERVICE),
                number: label(NUMBER).parse().unwrap_or(1),
                hash: label(HASH),
                image: label(IMAGE),
                runs: container
                    .state
                    .is_some_and(|state| state.to_string() == "running"),
            }
        })
        .collect();
    found.sort_by(|one, other| (&one.service, one.number).cmp(&(&other.service, other.number)));
    Ok(found)
}

/// Says what became of something.
pub(super) fn tell(kind: &str, name: &str, what: &str) {
    warn(&format!(" {kind} {name}  {what}"));
}

struct Up<'a> {
    args: &'a UpArgs,
    project: &'a Project,
    client: &'a Client,
    name: String,
}

impl Up<'_> {
    /// Containers of services that the file does not have are told, or removed.
    async fn orphans(&self) -> anyhow::Result<()> {
        let found = containers(&self.name, self.client).await?;
        let orphans: Vec<_> = found
            .iter()
            .filter(|one| !self.project.services.contains_key(&one.service))
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        if !self.args.remove_orphans {
            let names: Vec<_> = orphans.iter().map(|one| one.name.as_str()).collect();
            warn(&format!(
                "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose file, you can run this command with the --remove-orphans flag to clean it up.",
                names.join(" ")
            ));
            return Ok(());
        }
        for orphan in orphans {
            self.remove(orphan).await?;
            tell("Container", &orphan.name, "Removed");
        }
        Ok(())
    }

    async fn remove(&self, container: &Found) -> anyhow::Result<()> {
        let path = format!("/containers/{}", container.id);
        if container.runs {
            let call = self.client.post(&format!("{path}/stop"));
            let timeout = self.args.timeout.map(|seconds| seconds.to_string());
            call.optional("t", timeout).send().await?;
        }
        self.client.delete(&path).flag("force", true).send().await?;
        Ok(())
    }

    async fn networks(&self, services: &[&Service]) -> anyhow::Result<()> {
        let mut names = BTreeSet::new();
        for service in services
            .iter()
            .filter(|service| service.network_mode.is_none())
        {
            match service.networks.is_empty() {
                true => drop(names.insert("default")),
                false => names.extend(service.networks.keys().map(String::as_str)),
            }
        }
        for name in names {
            let network = self.project.networks.get(name).cloned().unwrap_or_default();
            let called = network_name(name, self.project);
            match self.client.get(&format!("/networks/{called}")).send().await {
                Ok(_) => continue,
                Err(error) if error.is_not_found() && network.external => {
                    bail!("network {called} declared as external, but could not be found")
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            let mut labels = network.labels.clone();
            labels.insert(PROJECT.to_owned(), self.name.clone());
            labels.insert("com.docker.compose.network".to_owned(), name.to_owned());
            let subnets = network
                .subnets
                .iter()
                .map(|(subnet, gateway, range)| IpamConfig {
                    subnet: Some(subnet.clone()),
                    gateway: gateway.clone(),
                    ip_range: range.clone(),
                    auxiliary_addresses: None,
                });
            let subnets: Vec<_> = subnets.collect();
            let wanted = NetworkCreateRequest {
                name: called.clone(),
                driver: network.driver.clone(),
                internal: Some(network.internal),
                attachable: Some(network.attachable),
                enable_ipv6: network.enable_ipv6.then_some(true),
                options: Some(network.driver_opts.clone().into_iter().collect()),
                labels: Some(labels.into_iter().collect()),
                ipam: (!subnets.is_empty()).then(|| Ipam {
                    driver: network.ipam_driver.clone(),
                    config: Some(subnets),
                    options: None,
                }),
                ..NetworkCreateRequest::default()
            };
            let call = self.client.post("/networks/create").json(&wanted);
            call.send()
                .await
                .with_context(|| format!("make network {called}"))?;
            tell("Network", &called, "Created");
        }
        Ok(())
    }

    async fn volumes(&self, services: &[&Service]) -> anyhow::Result<()> {
        let all = services.iter().flat_map(|service| &service.volumes);
        let names: BTreeSet<&str> = all
            .filter(|volume| volume.kind == "volume")
            .filter_map(|volume| volume.source.as_deref())
            .collect();
        for name in names {
            let volume = self.project.volumes.get(name).cloned().unwrap_or_default();
            let called = volume_name(name, self.project);
            match self.client.get(&format!("/volumes/{called}")).send().await {
                Ok(_) => continue,
                Err(error) if error.is_not_found() && volume.external => {
                    bail!("external volume {called:?} not found")
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            let mut labels = volume.labels.clone();
            labels.insert(PROJECT.to_owned(), self.name.clone());
            labels.insert("com.docker.compose.volume".to_owned(), name.to_owned());
            let wanted = VolumeCreateOptions {
                name: Some(called.clone()),
                driver: Some(volume.driver.unwrap_or_else(|| "local".to_owned())),
                driver_opts: Some(volume.driver_opts.into_iter().collect()),
                labels: Some(labels.into_iter().collect()),
                cluster_volume_spec: None,
            };
            let call = self.client.post("/volumes/create").json(&wanted);
            call.send()
                .await
                .with_context(|| format!("make volume {called}"))?;
            tell("Volume", &called, "Created");
        }
        Ok(())
    }

    /// The id of a service's image, which is pulled if it is missing or to be fresh.
    async fn image(&self, service: &Service) -> anyhow::Result<String> {
        let Some(image) = &service.image else {
            match service.build {
                true => bail!(
                    "not built: build: make the image with buildah, load it, and name it by `image`"
                ),
                false => bail!("neither an image nor a build context is specified"),
            }
        };
        let policy = service.pull_policy.as_deref().unwrap_or("missing");
        if policy == "always" {
            pull::pull(
                self.client,
                image,
                service.platform.as_deref(),
                Progress::Stderr,
            )
            .await?;
        }
        let look = || self.client.get(&format!("/images/{image}/json")).send();
        let answer = match look().await {
            Err(error) if error.is_not_found() && policy != "never" => {
                pull::pull(
                    self.client,
                    image,
                    service.platform.as_deref(),
                    Progress::Stderr,
                )
                .await?;
                look().await?
            }
            answer => answer?,
        };
        let found: Value = answer.json().await?;
        Ok(found["Id"].as_str().unwrap_or_default().to_owned())
    }

    /// Makes a service's containers what they are to be, when what it depends on is.
    async fn service(&self, service: &Service, scale: Option<i64>) -> anyhow::Result<()> {
        for (name, dependency) in &service.depends_on {
            if let Some(other) = self.project.services.get(name) {
                self.wait_for(other, *dependency).await?;
            }
        }
        let scale = scale
            .or(service.scale)
            .or(service.deploy.replicas)
            .unwrap_or(1);
        if scale > 1 && service.container_name.is_some() {
            bail!("container_name is set, and there cannot be {scale} containers of one name");
        }
        let image = self.image(service).await?;
        let found = self.of_service(&service.name).await?;
        for extra in found.iter().filter(|one| one.number > scale) {
            self.remove(extra).await?;
            tell("Container", &extra.name, "Removed");
        }
        for number in 1..=scale {
            let mut wanted = container::wanted(service, number, self.project, &image)?;
            let before = found.iter().find(|one| one.number == number);
            let id = match before {
                Some(one) if self.is_as_wanted(one, &wanted, &image) => {
                    if one.runs {
                        tell("Container", &one.name, "Running");
                        continue;
                    }
                    one.id.clone()
                }
                Some(one) => {
                    self.keep_volumes(one, &mut wanted).await?;
                    self.remove(one).await?;
                    let id = self.create(&wanted).await?;
                    tell("Container", &wanted.name, "Recreated");
                    id
                }
                None => {
                    let id = self.create(&wanted).await?;
                    tell("Container", &wanted.name, "Created");
                    id
                }
            };
            self.client
                .post(&format!("/containers/{id}/start"))
                .send()
                .await?;
            tell("Container", &wanted.name, "Started");
        }
        Ok(())
    }

    fn is_as_wanted(&self, found: &Found, wanted: &Wanted, image: &str) -> bool {
        let is_same = found.hash == wanted.hash && found.image == image;
        !self.args.force_recreate && (is_same || self.args.no_recreate)
    }

    async fn create(&self, wanted: &Wanted) -> anyhow::Result<String> {
        let call = self
            .client
            .post("/containers/create")
            .query("name", &wanted.name);
        let made: ContainerCreateResponse = call.json(&wanted.body).send().await?.json().await?;
        made.warnings.iter().for_each(|text| warn(text));
        Ok(made.id)
    }

    /// What lies in anonymous volumes of a container goes over to the one in its place.
    async fn keep_volumes(&self, before: &Found, wanted: &mut Wanted) -> anyhow::Result<()> {
        let call = self.client.get(&format!("/containers/{}/json", before.id));
        let before: ContainerInspectResponse = call.send().await?.json().await?;
        let host = wanted.body.host_config.get_or_insert_default();
        let mounts = host.mounts.get_or_insert_default();
        for old in before.mounts.into_iter().flatten() {
            let is_volume = old.typ.is_some_and(|kind| kind.to_string() == "volume");
            let (Some(name), Some(target), true) = (old.name, old.destination, is_volume) else {
                continue;
            };
            match mounts
                .iter_mut()
                .find(|mount| mount.target.as_ref() == Some(&target))
            {
                Some(mount)
                    if mount.typ == Some(MountTypeEnum::VOLUME) && mount.source.is_none() =>
                {
                    mount.source = Some(name);
                }
                Some(_) => {}
                None => mounts.push(Mount {
                    typ: Some(MountTypeEnum::VOLUME),
                    source: Some(name),
                    target: Some(target),
                    ..Mount::default()
                }),
            }
        }
        Ok(())
    }

    async fn of_service(&self, service: &str) -> anyhow::Result<Vec<Found>> {
        let found = containers(&self.name, self.client).await?.into_iter();
        Ok(found.filter(|one| one.service == service).collect())
    }

    /// The containers of services: ids, and what their output is headed by.
    async fn all(&self, services: &[String]) -> anyhow::Result<Vec<(String, String)>> {
        let found = containers(&self.name, self.client).await?.into_iter();
        let chosen = found.filter(|one| services.contains(&one.service));
        Ok(chosen
            .map(|one| (one.id, format!("{}-{}", one.service, one.number)))
            .collect())
    }

    /// Waits until all containers of a service are what another one wants them to be.
    async fn wait_for(&self, service: &Service, dependency: Dependency) -> anyhow::Result<()> {
        if dependency.condition == Condition::Started {
            return Ok(());
        }
        for container in self.of_service(&service.name).await? {
            let met = self.becomes(&container, dependency.condition).await;
            if let Err(error) = met {
                match dependency.required {
                    true => return Err(error.context("dependency failed to start")),
                    false => warn(&format!("{error:#}")),
                }
            }
        }
        Ok(())
    }

    /// Waits until a service is well; until it runs, if nothing looks.
    async fn well(&self, service: &Service) -> anyhow::Result<()> {
        for container in self.of_service(&service.name).await? {
            let state = self.state(&container.id).await?;
            if state.pointer("/Health/Status").is_some() {
                self.becomes(&container, Condition::Healthy).await?;
            } else if state["Status"] != "running" {
                bail!(
                    "container {} exited ({})",
                    container.name,
                    state["ExitCode"]
                );
            }
            tell("Container", &container.name, "Healthy");
        }
        Ok(())
    }

    async fn state(&self, id: &str) -> anyhow::Result<Value> {
        let call = self.client.get(&format!("/containers/{id}/json"));
        let container: Value = call.send().await?.json().await?;
        Ok(container["State"].clone())
    }

    async fn becomes(&self, container: &Found, condition: Condition) -> anyhow::Result<()> {
        let name = &container.name;
        loop {
            let state = self.state(&container.id).await?;
            let exited = state["Status"] == json!(ContainerStateStatusEnum::EXITED);
            let code = state["ExitCode"].as_i64().unwrap_or_default();
            let health = state.pointer("/Health/Status");
            match condition {
                Condition::Started => return Ok(()),
                Condition::Completed if exited && code == 0 => return Ok(()),
                Condition::Completed if exited => {
                    bail!(
                        "service \"{}\" didn't complete successfully: exit {code}",
                        container.service
                    )
                }
                Condition::Healthy if exited => bail!("container {name} exited ({code})"),
                Condition::Healthy => match health {
                    None => bail!("container {name} has no healthcheck configured"),
                    Some(health) if *health == json!(HealthStatusEnum::HEALTHY) => return Ok(()),
                    Some(health) if *health == json!(HealthStatusEnum::UNHEALTHY) => {
                        bail!("container {name} is unhealthy")
                    }
                    Some(_) => {}
                },
                Condition::Completed => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
