//! Layers that are unpacked while the archive still comes in, before it says which of its files are layers, and of what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::image::digest::Digest;
use crate::image::layer::MakeLayerError;
use crate::image::lease::Lease;
use crate::image::progress::{LayerProgress, Progress};
use crate::image::staging::{Staged, stage};
use crate::image::store::hold;
use crate::image::unpack::UnpackError;

type Unpacking = AbortOnDropHandle<Result<Staged, MakeLayerError>>;

/// What is being unpacked, by the digest of its blob.
pub(super) struct Ahead {
    progress: mpsc::Sender<Progress>,
    begun: Mutex<HashMap<Digest, Unpacking>>,
}

impl Ahead {
    pub(super) fn new(progress: &mpsc::Sender<Progress>) -> Self {
        Self {
            progress: progress.clone(),
            begun: Mutex::default(),
        }
    }

    /// Begins with a blob that is a plain tar, unless an image has it: then it is unpacked already. A compressed one waits
    /// until it is known for a layer, as it may be more than the archive that brought it.
    pub(super) fn begin(&self, blob: Digest, lease: &Arc<Lease>) {
        let (known, _) = lease.store().catalog().live();
        if known.contains(&blob) {
            return;
        }
        let progress = LayerProgress::new(blob.short(), self.progress.clone());
        let (tasks, lease) = (lease.tasks.clone(), Arc::clone(lease));
        let unpack = async move { stage(&lease, blob, None, progress).await };
        hold(&self.begun).insert(blob, AbortOnDropHandle::new(tasks.spawn(unpack)));
    }

    /// The files of a blob, if it was begun with. To be had once: an image may have it twice, but on other layers.
    pub(super) async fn take(&self, blob: Digest) -> Result<Option<Staged>, MakeLayerError> {
        let Some(unpacking) = hold(&self.begun).remove(&blob) else {
            return Ok(None);
        };
        match unpacking.await? {
            Ok(staged) => Ok(Some(staged)),
            Err(MakeLayerError::Unpack(UnpackError::Beneath { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
