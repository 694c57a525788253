//! Making a container's record, and finding it again.

use std::sync::{Arc, PoisonError};

use nuncio_runtime::image::{FindImageError, Image};
use oci_spec::image::{Config, ConfigBuilder};

use super::config::{ContainerConfig, NetworkMode, Port};
use super::container::{Container, RECORD};
use super::record::{Phase, Record};
use super::refusal::Refusal;
use super::{Daemon, health, limits, names, offers, services, state_file};

/// Names of the image that is this binary.
const BUILT_IN: [&str; 2] = ["nuncio/ambassador", "svendowideit/ambassador"];
/// What a process finds programs with unless the image says otherwise; Docker's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container that was made.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) id: String,
    pub(crate) warnings: Vec<String>,
}

impl Daemon {
    /// Writes down a new container; nothing of it runs yet.
    pub(crate) async fn create(
        &self,
        name: Option<&str>,
        config: ContainerConfig,
        platform: Option<&str>,
    ) -> anyhow::Result<Created> {
        let image = self.find_image(&config.image).await?;
        let mut warnings = Vec::new();
        let own = format!("{}/{}", image.config.os(), image.config.architecture());
        if platform.is_some_and(|platform| !platform.is_empty() && !own.starts_with(platform)) {
            warnings.push(format!(
                "The requested image's platform ({own}) does not match {}",
                platform.unwrap_or_default()
            ));
        }
        let mut config = merge(config, &image)?;
        if !nuncio_runtime::weighs_disks() {
            warnings.extend(limits::without_weights(&mut config.host.disks));
        }
        if !config.stop_signal.is_empty() {
            super::signal::number(&config.stop_signal)?;
        }
        services::check_label(&config.labels)?;
        offers::check_labels(&config.labels)?;
        warnings.extend(services::warnings(&config));
        self.check_networks(&config).await?;
        self.check_links(&config).await?;
        let mounts = self.choose_mounts(&config)?;
        let id = super::new_id();
        let directory = self.options.data_root.join("containers").join(&id);
        let record = Record {
            v: 1,
            name: String::new(),
            created: jiff::Timestamp::now(),
            image_id: image.id.clone(),
            phase: Phase::Created,
            endpoints: std::collections::BTreeMap::new(),
            published: Vec::new(),
            links: Vec::new(),
            unprepared: !mounts.is_empty(),
            mounts,
            restarts: 0,
            stopped: false,
            removing: false,
            failure: None,
            health: None,
            id: id.clone(),
            config,
        };
        let turn = self.volume_turn.lock().await;
        let container = self.enter(name, record, &directory)?;
        drop(turn);
        if let Err(error) = self.establish(&container, &image).await {
            let mounts = container.view().mounts;
            self.forget_container(&id);
            state_file::remove_with(&directory, &directory.join(RECORD))?;
            self.remove_anonymous(&mounts).await?;
            return Err(error);
        }
        self.tell(&container, "create");
        Ok(Created { id, warnings })
    }

    /// Writes a container down, and makes what it needs before it can be started.
    async fn establish(&self, container: &Container, image: &Image) -> anyhow::Result<()> {
        std::fs::create_dir(&container.directory)?;
        container.update(|_| ())?;
        match container.view().unprepared {
            true => self.prepare_mounts(container, image).await,
            false => Ok(()),
        }
    }

    /// Takes the name and enters the container under its id.
    fn enter(
        &self,
        name: Option<&str>,
        mut record: Record,
        directory: &std::path::Path,
    ) -> anyhow::Result<Arc<Container>> {
        let mut containers = self
            .containers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let holder = |name: &str| {
            containers
                .values()
                .find(|other| other.name() == name)
                .map(|other| other.id.clone())
        };
        record.name = match name {
            Some(name) => {
                if let Some(holder) = holder(name) {
                    return Err(name_taken(name, &holder).into());
                }
                name.to_owned()
            }
            None => (0..)
                .map(names::random)
                .find(|name| holder(name).is_none())
                .unwrap_or_default(),
        };
        let container = Container::new(record, directory.to_owned(), &self.options.exec_root);
        containers.insert(container.id.clone(), Arc::clone(&container));
        Ok(container)
    }

    async fn check_networks(&self, config: &ContainerConfig) -> anyhow::Result<()> {
        let host = &config.host;
        let networked = matches!(host.network, NetworkMode::Default | NetworkMode::Named(_));
        if !networked && !host.links.is_empty() {
            let message = format!(
                "conflicting options: --network {} and links (--link) are incompatible",
                host.network
            );
            return Err(Refusal::invalid(message).into());
        }
        if let NetworkMode::Container(other) = &host.network {
            self.container(other)?;
        }
        if let NetworkMode::Named(name) = &host.network {
            self.find_network(name).await?;
        }
        for name in config
            .endpoints
            .keys()
            .filter(|name| *name != "default" && networked)
        {
            self.find_network(name).await?;
        }
        Ok(())
    }

    /// The image of that name or id; the built-in one is made of this binary when it is asked for.
    pub(crate) async fn find_image(&self, wanted: &str) -> anyhow::Result<Arc<Image>> {
        let bare = wanted.strip_prefix("docker.io/").unwrap_or(wanted);
        let bare = bare.strip_suffix(":latest").unwrap_or(bare);
        if BUILT_IN.contains(&bare) {
            let entrypoint = ["/nuncio", "ambassador"].map(str::to_owned);
            let config = ConfigBuilder::default().entrypoint(entrypoint).build()?;
            return Ok(Arc::new(
                self.images
                    .install_builtin(&BUILT_IN, &self.binary, config)
                    .await?,
            ));
        }
        match self.images.find(wanted) {
            Ok(image) => Ok(Arc::new(image)),
            Err(FindImageError::NoSuchImage(_)) => {
                Err(Refusal::not_found(format!("No such image: {}", tagged(wanted))).into())
            }
            Err(error) => Err(Refusal::invalid(format!("{:#}", anyhow::Error::from(error))).into()),
        }
    }

    /// The container of exactly that name or id.
    pub(super) fn container_exactly(&self, wanted: &str) -> Option<Arc<Container>> {
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        let mut all = containers.values();
        let by_id = containers.get(wanted);
        let found = by_id.or_else(|| all.find(|container| container.name() == name));
        found.cloned()
    }

    /// The container of that name or id, or the only one whose id begins so.
    pub(crate) fn container(&self, wanted: &str) -> anyhow::Result<Arc<Container>> {
        if let Some(found) = self.container_exactly(wanted) {
            return Ok(found);
        }
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut begin = containers
            .values()
            .filter(|container| !wanted.is_empty() && container.id.starts_with(wanted));
        match (begin.next(), begin.next()) {
            (Some(found), None) => Ok(Arc::clone(found)),
            (Some(_), Some(_)) => Err(Refusal::invalid(format!(
                "multiple containers begin with {wanted}: give more digits"
            ))
            .into()),
            (None, _) => Err(Refusal::not_found(format!("No such container: {wanted}")).into()),
        }
    }

    /// All containers, the newest first.
    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        let containers = self
            .containers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = containers.values().cloned().collect();
        drop(containers);
        all.sort_by_key(|container| std::cmp::Reverse(container.created));
        all
    }

    pub(super) fn forget_container(&self, id: &str) {
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    /// Gives a container another name; other hosts hear of it too.
    pub(crate) async fn rename(
        &self,
        container: &Arc<Container>,
        name: &str,
    ) -> anyhow::Result<()> {
        let _turn = container.turn.lock().await;
        if self
            .containers()
            .iter()
            .any(|other| other.name() == name && other.id == container.id)
        {
            return Err(Refusal::invalid(
                "Renaming a container with the same name as its current name",
            )
            .into());
        }
        {
            let containers = self
                .containers
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(holder) = containers.values().find(|other| other.name() == name) {
                return Err(name_taken(name, &holder.id).into());
            }
            let old = container.name();
            container.update(|record| name.clone_into(&mut record.name))?;
            self.tell_more(container, "rename", [("oldName", format!("/{old}"))]);
        }
        if container.is_running() {
            self.publish(&container.view());
        }
        self.sync().await
    }
}

fn name_taken(name: &str, holder: &str) -> Refusal {
    Refusal::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

fn tagged(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains([':', '@']) {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Fills in what the image says where the user said nothing.
fn merge(mut config: ContainerConfig, image: &Image) -> anyhow::Result<ContainerConfig> {
    let empty = Config::default();
    let defaults = image.config.config().as_ref().unwrap_or(&empty);
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(defaults.entrypoint());
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(defaults.cmd());
        }
    }
    let given = config.entrypoint.iter().chain(&config.cmd).flatten().next();
    if given.is_none_or(String::is_empty) {
        return Err(Refusal::invalid("no command specified").into());
    }
    let mut env: Vec<String> = Vec::new();
    let inherited = defaults.env().iter().flatten().cloned();
    for variable in [PATH.to_owned()]
        .into_iter()
        .chain(inherited)
        .chain(std::mem::take(&mut config.env))
    {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|other| other.split('=').next() != Some(name));
        if variable.contains('=') {
            env.push(variable); // a name alone takes the variable away
        }
    }
    config.env = env;
    if config.user.is_empty() {
        config.user = defaults.user().clone().unwrap_or_default();
    }
    if config.working_dir.is_empty() {
        config.working_dir = defaults.working_dir().clone().unwrap_or_default();
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = defaults.stop_signal().clone().unwrap_or_default();
    }
    config.healthcheck = health::merged(config.healthcheck, image.docker.healthcheck.as_ref());
    let exposed = defaults
        .exposed_ports()
        .iter()
        .flatten()
        .filter_map(|port| port.parse::<Port>().ok());
    config.exposed.extend(exposed);
    config
        .exposed
        .extend(config.host.publish.iter().map(|binding| binding.port));
    config.exposed.sort_unstable();
    config.exposed.dedup();
    for (name, value) in defaults.labels().iter().flatten() {
        config
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    config.volumes.extend(image_volumes(defaults));
    Ok(config)
}

/// Where the image wants volumes; it may say so in ways that no path of a container has.
fn image_volumes(defaults: &Config) -> impl Iterator<Item = String> {
    let all = defaults.volumes().iter().flatten();
    all.map(|target| target.trim_end_matches('/').to_owned())
        .filter(|target| target.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_its_latest() {
        assert_eq!(tagged("redis"), "redis:latest");
        assert_eq!(
            tagged("127.0.0.1:5000/redis"),
            "127.0.0.1:5000/redis:latest"
        );
        assert_eq!(tagged("redis:7"), "redis:7");
    }
}
