//! `tag` and `rmi`, by Docker's rules.

use std::sync::Arc;

use super::catalog::{Catalog, FindImageError, Image, Record};
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
    let record = catalog.find(text)?.clone();
    let id = record.id;
    let using = in_use(&id.to_string());
    let mut removal = Removal::default();
    if let Some(name) = name_meant(catalog, &record, text) {
        if record.names.iter().any(|other| *other != name) {
            removal.untag(catalog, &name);
            return Ok(removal);
        }
        if let (false, Some(using)) = (force, &using) {
            return Err(RemoveImageError::LastName {
                name: text.to_owned(),
                id: id.short(),
                container: using.container.clone(),
            });
        }
    } else if !force && has_several_repositories(&record) {
        return Err(RemoveImageError::SeveralNames { id: id.short() });
    }
    let stays = match using {
        Some(ImageUse {
            container,
            running: true,
        }) => {
            return Err(RemoveImageError::Running {
                id: id.short(),
                container,
            });
        }
        Some(ImageUse {
            container,
            running: false,
        }) if !force => {
            return Err(RemoveImageError::Stopped {
                id: id.short(),
                container,
            });
        }
        using => using.is_some(),
    };
    removal.untag_all(catalog, id);
    if !stays {
        catalog.records.retain(|other| other.id != id);
        removal.image = Some((id, record.layers));
    }
    Ok(removal)
}

/// The name of the image that `text` is, unless it is an ID or the beginning of one.
fn name_meant(catalog: &Catalog, record: &Record, text: &str) -> Option<Reference> {
    let name: Reference = text.parse().ok()?;
    catalog.named(&name).filter(|named| named.id == record.id)?;
    // With both a tag and a digest, it is the tag that goes.
    let tagged = name.tagged().filter(|tagged| record.names.contains(tagged));
    Some(tagged.unwrap_or(name))
}

fn has_several_repositories(record: &Record) -> bool {
    let mut repositories = record.names.iter().map(Reference::familiar_repository);
    let first = repositories.next();
    repositories.any(|other| Some(other) != first)
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
