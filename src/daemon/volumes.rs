//! Volumes of this host: made, shown, and removed when nothing mounts them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nuncio_runtime::volume::{Volume, VolumeError};

use super::Daemon;
use super::refusal::Refusal;

/// The driver of all volumes.
pub(crate) const LOCAL: &str = "local";
/// The label by which Docker tells volumes to which nobody gave a name.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// What `volume create` asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeRequest {
    /// Empty: an anonymous one.
    pub(crate) name: String,
    /// Empty: `local`.
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A volume as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct VolumeView {
    pub(crate) volume: Volume,
    pub(crate) mountpoint: PathBuf,
    /// How many containers mount it, also such as do not run.
    pub(crate) users: usize,
}

impl Daemon {
    /// Where volumes lie.
    pub(crate) fn volumes_root(&self) -> PathBuf {
        self.options.data_root.join("volumes")
    }

    /// Makes a volume; one of that name that is there already is given back as it is.
    pub(crate) fn volume_create(&self, request: VolumeRequest) -> anyhow::Result<VolumeView> {
        check_driver(&request.driver)?;
        let (name, mut labels) = (request.name, request.labels);
        let name = if name.is_empty() {
            labels.insert(ANONYMOUS.to_owned(), String::new());
            super::new_id()
        } else {
            name
        };
        let volume = self.make_volume(&name, request.options, labels)?;
        Ok(self.volume_view(volume))
    }

    /// Makes a volume unless there is one of that name, and tells of it if it was made.
    pub(super) fn make_volume(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> anyhow::Result<Volume> {
        let is_new = self.volumes.find(name).is_none();
        let created = self.volumes.create(name, options, labels);
        let volume = created.map_err(|error| refusal(&format!("create {name}"), error))?;
        if is_new {
            self.tell_volume("create", name, []);
        }
        Ok(volume)
    }

    /// All volumes, by name.
    pub(crate) fn volume_list(&self) -> Vec<VolumeView> {
        let volumes = self.volumes.list().into_iter();
        volumes.map(|volume| self.volume_view(volume)).collect()
    }

    pub(crate) fn volume(&self, name: &str) -> anyhow::Result<VolumeView> {
        let found = self.volumes.find(name);
        let volume = found.ok_or_else(|| no_such(name))?;
        Ok(self.volume_view(volume))
    }

    fn volume_view(&self, volume: Volume) -> VolumeView {
        VolumeView {
            mountpoint: self.volumes.mountpoint(&volume.name),
            users: self.volume_users(&volume.name).len(),
            volume,
        }
    }

    /// Bytes of the files in a volume.
    pub(crate) async fn volume_size(&self, name: &str) -> anyhow::Result<u64> {
        let (volumes, name) = (self.volumes.clone(), name.to_owned());
        let measured = tokio::task::spawn_blocking(move || volumes.usage(&name)).await?;
        Ok(measured?.bytes)
    }

    /// Ids of the containers that mount a volume.
    pub(super) fn volume_users(&self, name: &str) -> Vec<String> {
        let containers = self.containers().into_iter();
        let uses = containers.filter(|container| {
            let record = container.view();
            let mut volumes = record.mounts.iter().filter_map(|point| point.volume());
            !record.removing && volumes.any(|volume| volume.name == name)
        });
        uses.map(|container| container.id.clone()).collect()
    }

    /// Removes a volume that no container mounts.
    pub(crate) async fn volume_remove(&self, name: &str) -> anyhow::Result<()> {
        let turn = self.volume_turn.lock().await;
        if self.volumes.find(name).is_none() {
            return Err(no_such(name).into());
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            let users = users.join(", ");
            return Err(
                Refusal::conflict(format!("remove {name}: volume is in use - [{users}]")).into(),
            );
        }
        let removed = self.volumes.remove(name);
        drop(turn);
        let trash = removed.map_err(|error| refusal(&format!("remove {name}"), error))?;
        self.tell_volume("destroy", name, []);
        Ok(tokio::task::spawn_blocking(move || trash.delete()).await??)
    }
}

/// Refuses drivers that are not there.
pub(super) fn check_driver(driver: &str) -> Result<(), Refusal> {
    match driver {
        "" | LOCAL => Ok(()),
        other => Err(Refusal::not_found(format!(
            "error looking up volume plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

fn no_such(name: &str) -> Refusal {
    Refusal::not_found(format!("get {name}: no such volume"))
}

/// What is the caller's to mend is told as such.
pub(super) fn refusal(what: &str, error: VolumeError) -> anyhow::Error {
    use nuncio_runtime::volume::InvalidVolumeOptions::Type;
    let message = format!("{what}: {error}");
    match error {
        VolumeError::Options(Type(_)) => Refusal::unsupported(message).into(),
        VolumeError::Name(_) | VolumeError::Options(_) => Refusal::invalid(message).into(),
        VolumeError::NotFound => Refusal::not_found(message).into(),
        other => anyhow::Error::from(other).context(what.to_owned()),
    }
}
