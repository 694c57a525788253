//! `tag` and `rmi`, by Docker's rules.

use std::sync::Arc;

use super::catalog::{Catalog, FindImageError, Image};
use super::digest::{Digest, LayerId};
use super::reference::{InvalidReference, Reference};
use super::store::{ImageStore, WriteIndexError};

/// One thing that a removal did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone.
    Deleted(String),
}

/// A container that needs an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageUse {
    /// The container, as messages should name it.
    pub container: String,
    /// Whether it runs, so that even force must not take the image from it.
    pub running: bool,
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveImageError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindImageError),
    /// A running container needs it.
    #[error(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {container}"
    )]
    Running {
        /// The image, short.
        id: String,
        /// The container.
        container: String,
    },
    /// A stopped container needs it.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {container}"
    )]
    Stopped {
        /// The image, short.
        id: String,
        /// The container.
        container: String,
    },
    /// The last name of an image that a container needs.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {id}"
    )]
    LastName {
        /// The name as given.
        name: String,
        /// The image, short.
        id: String,
        /// The container.
        container: String,
    },
    /// An ID was given, but the image has names in several repositories.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    )]
    SeveralNames {
        /// The image, short.
        id: String,
    },
    /// The list of images cannot be written.
    #[error(transparent)]
    Index(#[from] WriteIndexError),
    /// The thread that did it died.
    #[error("removing the image stopped")]
    Stop(#[from] tokio::task::JoinError),
}

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

    /// Removes a name, and with its last name the image and what no other image needs.
    ///
    /// `in_use` is asked for a container that needs the image with the given ID; the store is locked meanwhile, so it
    /// must not use the store. With `force`, an image that a
    /// stopped container needs loses its names but stays.
    ///
    /// # Errors
    ///
    /// See [`RemoveImageError`]; then nothing was changed.
    pub async fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: impl Fn(&str) -> Option<ImageUse> + Send + 'static,
    ) -> Result<Vec<Removed>, RemoveImageError> {
        let inner = Arc::clone(&self.inner);
        let text = name_or_id.to_owned();
        let remove = move || {
            let removal = inner.change(|catalog| remove_from(catalog, &text, force, in_use))?;
            let mut removed: Vec<_> = removal.names.into_iter().map(Removed::Untagged).collect();
            if let Some((id, layers)) = removal.image {
                removed.push(Removed::Deleted(id.to_string()));
                let gone = inner.collect();
                let ours = layers
                    .into_iter()
                    .rev()
                    .filter(|layer| gone.contains(layer));
                removed.extend(ours.map(|layer| Removed::Deleted(layer.to_string())));
            }
            Ok(removed)
        };
        tokio::task::spawn_blocking(remove).await?
    }
}

/// What a removal takes out of the catalogue.
#[derive(Debug, Default)]
struct Removal {
    names: Vec<String>,
    image: Option<(Digest, Vec<LayerId>)>,
}

fn remove_from(
    catalog: &mut Catalog,
    text: &str,
    force: bool,
    in_use: impl Fn(&str) -> Option<ImageUse>,
) -> Result<Removal, RemoveImageError> {
    let record = catalog.find(text)?;
    let id = record.id;
    let using = in_use(&id.to_string());
    // The text may look like a name and yet be the beginning of an ID; what counts is what it found.
    let name = text
        .parse::<Reference>()
        .ok()
        .filter(|name| catalog.named(name).is_some_and(|named| named.id == id));
    let record = catalog.find(text)?.clone();
    let mut removal = Removal::default();

    if let Some(name) = name {
        let name = if name.digest().is_some() {
            name.tagged()
                .filter(|tagged| record.names.contains(tagged))
                .unwrap_or(name)
        } else {
            name
        };
        let others = record.names.iter().filter(|&other| *other != name).count();
        let last = others == 0;
        if let (true, false, Some(using)) = (last, force, &using) {
            return Err(RemoveImageError::LastName {
                name: text.to_owned(),
                id: id.short(),
                container: using.container.clone(),
            });
        }
        if !last {
            removal.untag(catalog, &name);
            return Ok(removal);
        }
    } else {
        let mut repositories: Vec<_> = record
            .names
            .iter()
            .map(Reference::familiar_repository)
            .collect();
        repositories.dedup();
        if repositories.len() > 1 && !force {
            return Err(RemoveImageError::SeveralNames { id: id.short() });
        }
    }
    if let Some(ImageUse { container, running }) = using {
        if running {
            return Err(RemoveImageError::Running {
                id: id.short(),
                container,
            });
        }
        if !force {
            return Err(RemoveImageError::Stopped {
                id: id.short(),
                container,
            });
        }
        removal.untag_all(catalog, id);
        return Ok(removal);
    }
    removal.untag_all(catalog, id);
    catalog.records.retain(|other| other.id != id);
    removal.image = Some((id, record.layers));
    Ok(removal)
}

impl Removal {
    fn untag(&mut self, catalog: &mut Catalog, name: &Reference) {
        catalog.untag(name);
        self.names.push(name.familiar());
    }

    fn untag_all(&mut self, catalog: &mut Catalog, id: Digest) {
        let Some(record) = catalog.record_mut(id) else {
            return;
        };
        let names = std::mem::take(&mut record.names);
        let digests = std::mem::take(&mut record.digests);
        self.names
            .extend(names.iter().chain(&digests).map(Reference::familiar));
    }
}

#[cfg(test)]
mod tests;
