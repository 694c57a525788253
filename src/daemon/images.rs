//! The images of this host, and how registries are reached for more.

use std::sync::Arc;

use nuncio_runtime::image::{ImageStore, RegistrySettings};

use super::Daemon;
use super::events::Kind;

impl Daemon {
    pub(crate) fn images(&self) -> &ImageStore {
        &self.images
    }

    pub(crate) fn registries(&self) -> &Arc<RegistrySettings> {
        &self.options.registries
    }

    /// Tells of something that happened to an image, which is called `id` there.
    pub(crate) fn tell_image(&self, action: &str, id: &str, name: &str) {
        let attributes = [("name".to_owned(), name.to_owned())];
        self.events.tell(Kind::Image, action, id, attributes);
    }
}
