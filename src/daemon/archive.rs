//! A container's files, for those outside: looked at, read, written, compared with its image.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use nuncio_runtime::files::{
    ContainerPath, ExtractError, Extraction, PathStat, View, with_own_mounts,
};
use nuncio_runtime::image::Change;
use tokio::sync::oneshot;

use super::Daemon;
use super::container::Container;
use super::mount::MountSource;
use super::record::{Phase, Record};
use super::refusal::Refusal;
use crate::pipe::{self, Chunks, PipeReader};

/// Something to mount in a view: where on the host, where in the container, and whether read-only.
type Placed = (PathBuf, PathBuf, bool);

impl Daemon {
    /// Shows `work` the container's files: as its processes see them while it runs, else as they would, but for what is
    /// mounted for the view alone. With `mounts` off it is the root file system by itself.
    async fn with_files<T: Send + 'static>(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mounts: bool,
        work: impl FnOnce(&View) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (daemon, container) = (Arc::clone(self), Arc::clone(container));
        // In a task of its own, which holds the container's turn until the thread is done, whoever waits for it.
        let done = tokio::spawn(async move {
            let merged = container.directory.join("merged");
            if let Phase::Running { pid, .. } = container.view().phase
                && container.is_running()
            {
                let see = move || {
                    let view = match mounts {
                        true => View::of_process(pid, &merged),
                        false => View::of_directory(&merged),
                    };
                    anyhow::Ok(work(&view.context("look into the container")?))
                };
                return tokio::task::spawn_blocking(see).await?;
            }
            let _turn = container.turn.lock().await;
            let record = container.view();
            if container.is_running() {
                let why = format!("container {} was started meanwhile", record.name);
                return Err(Refusal::conflict(why).into());
            }
            if container.status().borrow().removed {
                let gone = format!("No such container: {}", record.id);
                return Err(Refusal::not_found(gone).into());
            }
            let image = daemon.find_image(&record.image_id).await?;
            let placed = match mounts {
                true => daemon.placed(&record)?,
                false => Vec::new(),
            };
            let (images, directory) = (daemon.images.clone(), container.directory.clone());
            let see = move || {
                let seen = with_own_mounts(|| {
                    let rootfs = images.mount_here(&image, &directory)?;
                    let view = View::of_directory(&rootfs.merged)?;
                    for (source, target, read_only) in &placed {
                        view.bind(source, target, *read_only)
                            .with_context(|| format!("mount {}", target.display()))?;
                    }
                    anyhow::Ok(work(&view))
                });
                seen.context("mount the container's files")?
            };
            tokio::task::spawn_blocking(see).await?
        });
        done.await?
    }

    /// What a stopped container would mount of directories that are there; those in memory are not.
    fn placed(&self, record: &Record) -> anyhow::Result<Vec<Placed>> {
        let mut placed = Vec::new();
        for point in &record.mounts {
            let source = match &point.source {
                MountSource::Bind { path, .. } => PathBuf::from(path),
                MountSource::Volume(volume) => self.volumes.attach(&volume.name)?,
                MountSource::Tmpfs { .. } => continue,
            };
            if source.exists() {
                placed.push((source, PathBuf::from(&point.target), point.read_only));
            }
        }
        placed.sort_by_key(|(_, target, _)| target.components().count());
        Ok(placed)
    }

    /// What is at a path of a container.
    pub(crate) async fn archive_stat(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: ContainerPath,
    ) -> anyhow::Result<PathStat> {
        let (text, name) = (path.clone(), container.name());
        let looked = self
            .with_files(container, true, move |view| view.look(&path))
            .await?;
        Ok(looked.map_err(|error| unfound(error, &text, &name))?.stat)
    }

    /// What is at a path of a container, as a tar stream that begins to come.
    pub(crate) async fn archive_read(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: ContainerPath,
    ) -> anyhow::Result<(PathStat, Chunks)> {
        let (mut writer, stream) = pipe::outgoing();
        let (tell, told) = oneshot::channel();
        let (text, name) = (path.clone(), container.name());
        let pack = move |view: &View| match view.look(&path) {
            Ok(found) => {
                if tell.send(Ok(found.stat.clone())).is_err() {
                    return;
                }
                if let Err(error) = found.pack(&mut writer) {
                    writer.fail(error);
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let (daemon, seen) = (Arc::clone(self), Arc::clone(container));
        let packing = tokio::spawn(async move { daemon.with_files(&seen, true, pack).await });
        match told.await {
            Ok(Ok(stat)) => Ok((stat, stream)),
            Ok(Err(error)) => Err(unfound(error, &text, &name)),
            // It never came to look: why, the task says.
            Err(_) => {
                packing.await??;
                anyhow::bail!("the container's files were not looked at")
            }
        }
    }

    /// Unpacks a tar stream into a directory of a container.
    pub(crate) async fn archive_write(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: ContainerPath,
        content: PipeReader,
        keep_kinds: bool,
        as_user: bool,
    ) -> anyhow::Result<()> {
        let record = container.view();
        let (user, name) = (record.config.user.clone(), record.name.clone());
        let (text, read_only) = (path.clone(), record.config.host.read_only);
        let targets: Vec<String> = record
            .mounts
            .iter()
            .map(|point| point.target.clone())
            .collect();
        let unpack = move |view: &View| -> anyhow::Result<Result<(), ExtractError>> {
            let in_root = |at: &str| {
                !targets.iter().any(|target| {
                    at.strip_prefix(target.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            if read_only && in_root(path.as_str().trim_end_matches(['/', '.'])) {
                return Ok(Err(ExtractError::ReadOnlyRoot));
            }
            let owner = match as_user && !user.is_empty() {
                true => Some(nuncio_runtime::owner_of(view.path(), &user)?),
                false => None,
            };
            let how = Extraction {
                keep_kinds,
                owner,
                ..Extraction::default()
            };
            Ok(view.extract(path.as_path(), content, &how))
        };
        let unpacked = self.with_files(container, true, unpack).await??;
        unpacked.map_err(|error| match error {
            ExtractError::Io { ref source, .. } if is_missing(source) => unfound_path(&text, &name),
            ExtractError::Io { .. } => error.into(),
            other => Refusal::invalid(format!("{:#}", anyhow::Error::from(other))).into(),
        })
    }

    /// The root file system of a container as a tar stream.
    pub(crate) async fn export(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> anyhow::Result<Chunks> {
        let (mut writer, stream) = pipe::outgoing();
        let root = ContainerPath::parse("/").context("the root is a path")?;
        let (begin, begun) = oneshot::channel();
        let pack = move |view: &View| {
            let _ = begin.send(());
            let packed = view
                .look(&root)
                .and_then(|root| root.pack_content(&mut writer));
            if let Err(error) = packed {
                writer.fail(error);
            }
        };
        let (daemon, seen) = (Arc::clone(self), Arc::clone(container));
        let packing = tokio::spawn(async move { daemon.with_files(&seen, false, pack).await });
        if begun.await.is_err() {
            packing.await??;
        }
        Ok(stream)
    }

    /// What a container has changed in its image's files.
    pub(crate) async fn changes(&self, container: &Container) -> anyhow::Result<Vec<Change>> {
        let image = self.find_image(&container.view().image_id).await?;
        let changes = self.images.changes(&image, &container.directory).await;
        changes.context("compare the container with its image")
    }

    /// Bytes of what a container has written besides its volumes.
    pub(crate) async fn written(&self, container: &Container) -> anyhow::Result<u64> {
        let upper = container.directory.join("diff");
        let measure = move || nuncio_runtime::files::usage(&upper);
        Ok(tokio::task::spawn_blocking(measure).await??.bytes)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound)
}

fn unfound(error: io::Error, path: &ContainerPath, container: &str) -> anyhow::Error {
    match is_missing(&error) {
        true => unfound_path(path, container),
        false => anyhow::Error::from(error).context(path.as_str().to_owned()),
    }
}

fn unfound_path(path: &ContainerPath, container: &str) -> anyhow::Error {
    let path = Path::new(path.as_str()).display();
    Refusal::not_found(format!(
        "Could not find the file {path} in container {container}"
    ))
    .into()
}
