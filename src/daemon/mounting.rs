//! What a container mounts: decided when it is created, there when it starts, given up with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nuncio_runtime::image::Image;
use nuncio_runtime::{BindOptions, Mount, MountKind};

use super::Daemon;
use super::config::ContainerConfig;
use super::container::Container;
use super::mount::{MountPoint, MountSource, Propagation, VolumeMount};
use super::record::Record;
use super::refusal::Refusal;
use super::volumes::{ANONYMOUS, check_driver, refusal};

impl Daemon {
    /// What a container of this configuration mounts, by path. A later source takes the place of an earlier one: other
    /// containers' mounts, those asked for, then anonymous volumes where there is nothing yet.
    pub(super) fn choose_mounts(
        &self,
        config: &ContainerConfig,
    ) -> anyhow::Result<Vec<MountPoint>> {
        let host = &config.host;
        let mut chosen: BTreeMap<String, MountPoint> = BTreeMap::new();
        for from in &host.volumes_from {
            for mut point in self.container(&from.container)?.view().mounts {
                point.read_only |= from.read_only;
                point.spelled = None;
                if let Some(volume) = point.volume_mut() {
                    volume.copy = false;
                }
                chosen.insert(point.target.clone(), point);
            }
        }
        for point in &host.mounts {
            chosen.insert(point.target.clone(), point.clone());
        }
        let unseen = config
            .volumes
            .iter()
            .filter(|target| !host.tmpfs.contains_key(*target));
        for target in unseen {
            let anonymous = || MountPoint::anonymous(target, &host.volume_driver);
            chosen.entry(target.clone()).or_insert_with(anonymous);
        }
        for point in chosen.values_mut() {
            if let Some(volume) = point.volume_mut() {
                check_driver(&volume.driver)?;
                if volume.name.is_empty() {
                    volume.name = super::new_id();
                }
            }
            check_source(point)?;
        }
        Ok(chosen.into_values().collect())
    }

    /// Makes the volumes of a new container, and gives the empty ones what its image has at their place.
    pub(super) async fn prepare_mounts(
        &self,
        container: &Container,
        image: &Image,
    ) -> anyhow::Result<()> {
        let points = container.view().mounts;
        for volume in points.iter().filter_map(MountPoint::volume) {
            let mut labels = volume.labels.clone();
            if volume.anonymous {
                labels.insert(ANONYMOUS.to_owned(), String::new());
            }
            self.make_volume(&volume.name, volume.options.clone(), labels)?;
        }
        let hides = |point: &MountPoint| point.volume().is_some();
        if points.iter().any(hides) {
            let rootfs = self.images.mount(image, &container.directory).await?.merged;
            let filled = self.fill_volumes(&points, &rootfs).await;
            let unmounted = self.images.unmount(&container.directory).await;
            filled?;
            unmounted?;
        }
        container.update(|record| record.unprepared = false)
    }

    async fn fill_volumes(&self, points: &[MountPoint], rootfs: &Path) -> anyhow::Result<()> {
        for point in points {
            let Some(volume) = point.volume() else {
                continue;
            };
            let (volumes, name) = (self.volumes.clone(), volume.name.clone());
            let (rootfs, target) = (rootfs.to_owned(), PathBuf::from(&point.target));
            let copy = volume.copy;
            let fill = move || -> anyhow::Result<()> {
                refuse_file(&rootfs, &target)?;
                if copy {
                    volumes.attach(&name)?;
                    volumes.fill(&name, &rootfs, &target)?;
                }
                Ok(())
            };
            tokio::task::spawn_blocking(fill).await??;
            self.detach_unused(volume).await;
        }
        Ok(())
    }

    /// What is to be mounted into a container that starts now.
    pub(super) async fn mount_sources(&self, record: &Record) -> anyhow::Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for point in &record.mounts {
            let kind = match &point.source {
                MountSource::Bind { path, options } => {
                    let source = PathBuf::from(path);
                    if options.create && !source.exists() {
                        std::fs::create_dir_all(&source)
                            .with_context(|| format!("make {path} for a mount"))?;
                    }
                    let slave = matches!(
                        options.propagation,
                        Propagation::Slave | Propagation::Rslave
                    );
                    let options = BindOptions {
                        non_recursive: options.non_recursive,
                        writable_below: options.writable_below,
                        slave,
                    };
                    MountKind::Bind { source, options }
                }
                MountSource::Volume(volume) => MountKind::Bind {
                    source: self.attach_volume(volume).await?,
                    options: BindOptions::default(),
                },
                MountSource::Tmpfs { size, mode } => MountKind::Tmpfs {
                    size: *size,
                    mode: *mode,
                },
            };
            mounts.push(Mount {
                kind,
                target: point.target.clone(),
                read_only: point.read_only,
            });
        }
        let files = self.mount_task_files(&record.id, &record.config.files);
        mounts.extend(files.await?);
        Ok(mounts)
    }

    async fn attach_volume(&self, volume: &VolumeMount) -> anyhow::Result<PathBuf> {
        let _turn = self.volume_turn.lock().await;
        let attached = self.volumes.attach(&volume.name);
        attached.map_err(|error| refusal(&format!("mount volume {}", volume.name), error))
    }

    /// Unmounts what was mounted for a container's volumes, if no other one runs that has them.
    pub(super) async fn detach_volumes(&self, record: &Record) {
        for volume in record.mounts.iter().filter_map(MountPoint::volume) {
            self.detach_unused(volume).await;
        }
    }

    async fn detach_unused(&self, volume: &VolumeMount) {
        let has_options = self
            .volumes
            .find(&volume.name)
            .is_some_and(|volume| !volume.options.is_empty());
        if !has_options {
            return;
        }
        let _turn = self.volume_turn.lock().await;
        let users = self.volume_users(&volume.name);
        let used = self
            .containers()
            .iter()
            .any(|other| other.is_active() && users.contains(&other.id));
        if !used && let Err(error) = self.volumes.detach(&volume.name) {
            tracing::warn!(volume = volume.name, %error, "unmount a volume");
        }
    }

    /// Removes the anonymous volumes of a container that is gone, but for those that another one mounts.
    pub(super) async fn remove_anonymous(&self, points: &[MountPoint]) -> anyhow::Result<()> {
        let volumes = points.iter().filter_map(MountPoint::volume);
        for volume in volumes.filter(|volume| volume.anonymous) {
            if !self.volume_users(&volume.name).is_empty() {
                continue;
            }
            match self.volume_remove(&volume.name).await {
                Err(error) if error.downcast_ref::<Refusal>().is_none() => return Err(error),
                _ => {} // removed, or gone or taken meanwhile
            }
        }
        Ok(())
    }
}

/// Only `-v` makes what is not there.
fn check_source(point: &MountPoint) -> Result<(), Refusal> {
    match &point.source {
        MountSource::Bind { path, options } if !options.create && !Path::new(path).exists() => {
            Err(Refusal::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )))
        }
        _ => Ok(()),
    }
}

/// A volume is a directory, and cannot stand where the image has a file.
fn refuse_file(rootfs: &Path, target: &Path) -> anyhow::Result<()> {
    let root = nuncio_runtime::files::Root::open(rootfs)?;
    match root.is_directory(target)? {
        Some(false) => Err(Refusal::invalid(format!(
            "cannot mount volume over existing file, file exists {}",
            target.display()
        ))
        .into()),
        Some(true) | None => Ok(()),
    }
}
