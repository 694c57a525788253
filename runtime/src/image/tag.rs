//! `tag`: one more name for an image.

use std::sync::Arc;

use super::catalog::{FindImageError, Image};
use super::reference::{InvalidReference, Reference};
use super::store::{ImageStore, WriteIndexError};

/// Why an image was not given a name.
#[derive(Debug, thiserror::Error)]
pub enum TagImageError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindImageError),
    /// The new name is none.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The new name has a digest, which only a registry gives.
    #[error("refusing to create a tag with a digest reference: {0}; write NAME[:TAG]")]
    Digest(String),
    /// The list of images cannot be written.
    #[error(transparent)]
    Index(#[from] WriteIndexError),
    /// The thread that did it died.
    #[error("tagging the image stopped")]
    Stop(#[from] tokio::task::JoinError),
}

impl ImageStore {
    /// Gives an image one more name, taking it from the image that had it.
    ///
    /// # Errors
    ///
    /// See [`TagImageError`].
    pub async fn tag(&self, name_or_id: &str, name: &str) -> Result<Image, TagImageError> {
        let inner = Arc::clone(&self.inner);
        let name: Reference = name.parse()?;
        if name.digest().is_some() {
            return Err(TagImageError::Digest(name.familiar()));
        }
        let image = name_or_id.to_owned();
        let tag = move || {
            inner.change(|catalog| {
                let id = catalog.find(&image)?.id;
                catalog.tag(id, name);
                let tagged = catalog.record_mut(id).map(|record| record.to_image());
                Ok(tagged.expect("it was just found"))
            })
        };
        tokio::task::spawn_blocking(tag).await?
    }
}
