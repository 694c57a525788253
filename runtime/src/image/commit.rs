//! `commit`: a container's changes as one more layer on its image.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{FindImageError, Image};
use super::compose::{About, Base, ComposeError, LayerWriter, compose};
use super::install::{InstallError, Plan};
use super::lease::Lease;
use super::pack::{PackError, pack};
use super::platform::Platform;
use super::reference::Reference;
use super::store::{Content, ImageStore};

/// Why a container could not be made an image.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Its own image is gone.
    #[error(transparent)]
    Find(#[from] FindImageError),
    /// Its changes cannot be read or stored.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The image cannot be put together.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The image cannot be made usable.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The thread that did it died.
    #[error("the commit stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

impl ImageStore {
    /// Makes an image of a container: what lies in `container_dir` after [`ImageStore::mount`], on top of the image
    /// `parent`. The container should not write meanwhile.
    ///
    /// # Errors
    ///
    /// See [`CommitError`]; then nothing stays.
    pub async fn commit(
        &self,
        parent: &str,
        container_dir: &Path,
        name: Option<Reference>,
        about: About,
    ) -> Result<Image, CommitError> {
        let lease = Arc::new(Lease::new(&self.inner));
        let prepare = {
            let (lease, parent) = (Arc::clone(&lease), parent.to_owned());
            let changes: PathBuf = container_dir.join("diff");
            move || prepare(&lease, &parent, &changes, &about)
        };
        let plan = lease.spawn_blocking(prepare).await??;
        Ok(install_quietly(&lease, plan, name).await?)
    }
}

fn prepare(
    lease: &Arc<Lease>,
    parent: &str,
    changes: &Path,
    about: &About,
) -> Result<Plan, CommitError> {
    let record = lease.store().catalog().find(parent)?.clone();
    for &blob in record.blobs.iter().chain([&record.id, &record.manifest]) {
        lease.pin(Content::Blob(blob));
    }
    for &layer in &record.layers {
        lease.pin(Content::Layer(layer));
    }
    lease.store().catalog().find(parent)?; // it was still there when it was held
    let mut writer = LayerWriter::new(lease).map_err(ComposeError::from)?;
    // A container that never ran has changed nothing.
    let changed = changes.is_dir() && pack(changes, &mut writer)?;
    let layer = if changed {
        Some(writer.finish(lease).map_err(PackError::Write)?)
    } else {
        None
    };
    let base = Base {
        id: record.id,
        manifest: record.manifest,
        layers: record.blobs,
    };
    Ok(compose(
        lease,
        Some(&base),
        layer.as_ref(),
        about,
        &Platform::host(),
    )?)
}

/// Unpacks what is new of an image and makes it one of the store's, with nobody to tell of it.
pub(super) async fn install_quietly(
    lease: &Arc<Lease>,
    plan: Plan,
    name: Option<Reference>,
) -> Result<Image, InstallError> {
    let size = plan.make_layers_quietly(lease).await?;
    let names = name.and_then(|name| name.tagged()).into_iter().collect();
    plan.record(lease, size, names, BTreeSet::new()).await
}
