//! The images of this host, and how registries are reached for more.

use std::sync::Arc;

use nuncio_runtime::image::{ImageStore, RegistrySettings};

use super::Daemon;

impl Daemon {
    pub(crate) fn images(&self) -> &ImageStore {
        &self.images
    }

    pub(crate) fn registries(&self) -> &Arc<RegistrySettings> {
        &self.options.registries
    }
}
