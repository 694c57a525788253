//! What the images take on disk.

use std::collections::HashMap;

use super::digest::LayerId;
use super::store::ImageStore;

impl ImageStore {
    /// Bytes of the files of each layer that an image here has.
    #[must_use]
    pub fn layer_sizes(&self) -> HashMap<LayerId, u64> {
        let images = self.list();
        let layers = images.iter().flat_map(|image| &image.layers);
        layers
            .map(|&layer| (layer, self.inner.layer_size(layer).unwrap_or_default()))
            .collect()
    }
}
