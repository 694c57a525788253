//! `rmi`, by Docker's rules.

use std::sync::Arc;

use super::catalog::{Catalog, FindImageError, Record};
use super::digest::{Digest, LayerId};
use super::reference::Reference;
use super::store::{ImageStore, Inner, WriteIndexError};

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

/// How far a removal goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RemoveOptions {
    /// Take all names, and do not mind containers that do not run.
    pub force: bool,
    /// Keep the images it was made of, though they have no name.
    pub keep_parents: bool,
}

/// Why an image was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveImageError {
    /// There is no such image.
    #[error(transparent)]
    Find(#[from] FindImageError),
    /// Another image was made of it.
    #[error(
        "conflict: unable to delete {id} (cannot be forced) - image has dependent child images"
    )]
    Children {
        /// The image, short.
        id: String,
    },
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

impl ImageStore {
    /// Removes a name, and with its last name the image and what no other image needs.
    ///
    /// `in_use` is asked for a container that needs the image with the given ID; the store is locked meanwhile, so it
    /// must not use the store. With force, an image that a stopped container needs loses its names but stays; and
    /// one that another was made of here always does.
    ///
    /// # Errors
    ///
    /// See [`RemoveImageError`]; then nothing was changed.
    pub async fn remove(
        &self,
        name_or_id: &str,
        options: RemoveOptions,
        in_use: impl Fn(&str) -> Option<ImageUse> + Send + 'static,
    ) -> Result<Vec<Removed>, RemoveImageError> {
        let inner = Arc::clone(&self.inner);
        let text = name_or_id.to_owned();
        let remove = move || {
            let removal = inner.change(|catalog| remove_from(catalog, &text, options, &in_use))?;
            Ok(removal.finish(&inner).0)
        };
        tokio::task::spawn_blocking(remove).await?
    }
}

/// What a removal takes out of the catalogue.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub(super) names: Vec<String>,
    /// The image, and those it was made of that went with it.
    pub(super) images: Vec<(Digest, Vec<LayerId>)>,
}

impl Removal {
    /// Collects what nobody needs any more. Gives back all that was done, and the bytes of the layers that went.
    pub(super) fn finish(self, store: &Arc<Inner>) -> (Vec<Removed>, u64) {
        let mut removed: Vec<_> = self.names.into_iter().map(Removed::Untagged).collect();
        if self.images.is_empty() {
            return (removed, 0);
        }
        let layers = self.images.iter().flat_map(|(_, layers)| layers);
        let sizes: std::collections::HashMap<LayerId, u64> = layers
            .map(|&layer| (layer, store.layer_size(layer).unwrap_or(0)))
            .collect();
        let gone = store.collect();
        let mut bytes = 0;
        let mut told = std::collections::HashSet::new();
        for (id, layers) in self.images {
            removed.push(Removed::Deleted(id.to_string()));
            for layer in layers.into_iter().rev() {
                if gone.contains(&layer) && told.insert(layer) {
                    bytes += sizes[&layer];
                    removed.push(Removed::Deleted(layer.to_string()));
                }
            }
        }
        (removed, bytes)
    }

    fn untag(&mut self, catalog: &mut Catalog, name: &Reference) {
        catalog.untag(name);
        self.names.push(name.familiar());
    }

    pub(super) fn untag_all(&mut self, catalog: &mut Catalog, id: Digest) {
        let Some(record) = catalog.record_mut(id) else {
            return;
        };
        let names = std::mem::take(&mut record.names);
        let digests = std::mem::take(&mut record.digests);
        self.names
            .extend(names.iter().chain(&digests).map(Reference::familiar));
    }

    /// Takes an image out, and unless they are kept those it was made of and that nothing else needs.
    pub(super) fn delete(
        &mut self,
        catalog: &mut Catalog,
        id: Digest,
        keep_parents: bool,
        in_use: &impl Fn(&str) -> Option<ImageUse>,
    ) {
        let mut next = Some(id);
        while let Some(id) = next.take()
            && let Some(at) = catalog.records.iter().position(|record| record.id == id)
        {
            let record = catalog.records.remove(at);
            self.images.push((id, record.layers));
            next = record.parent.filter(|&parent| {
                let unnamed = catalog
                    .record_mut(parent)
                    .is_some_and(|parent| parent.names.is_empty() && parent.digests.is_empty());
                let unneeded =
                    || !catalog.has_children(parent) && in_use(&parent.to_string()).is_none();
                !keep_parents && unnamed && unneeded()
            });
        }
    }
}

fn remove_from(
    catalog: &mut Catalog,
    text: &str,
    options: RemoveOptions,
    in_use: &impl Fn(&str) -> Option<ImageUse>,
) -> Result<Removal, RemoveImageError> {
    let record = catalog.find(text)?.clone();
    let id = record.id;
    let using = in_use(&id.to_string());
    let has_children = catalog.has_children(id);
    let mut removal = Removal::default();
    if let Some(name) = name_meant(catalog, &record, text) {
        let with_it = digests_that_go_with(&record, &name);
        let stays = |other: &&Reference| **other != name && !with_it.contains(other);
        if record
            .names
            .iter()
            .chain(&record.digests)
            .any(|other| stays(&other))
            || has_children
        {
            removal.untag(catalog, &name);
            with_it
                .iter()
                .for_each(|digest| removal.untag(catalog, digest));
            return Ok(removal);
        }
        if let (false, Some(using)) = (options.force, &using) {
            return Err(RemoveImageError::LastName {
                name: text.to_owned(),
                id: id.short(),
                container: using.container.clone(),
            });
        }
    } else if has_children {
        return Err(RemoveImageError::Children { id: id.short() });
    } else if !options.force && has_several_repositories(&record) {
        return Err(RemoveImageError::SeveralNames { id: id.short() });
    }
    let stays = stays_for(using, &record, options.force)?;
    removal.untag_all(catalog, id);
    if !stays {
        removal.delete(catalog, id, options.keep_parents, in_use);
    }
    Ok(removal)
}

/// Whether an image without names must stay for the container that uses it.
fn stays_for(
    using: Option<ImageUse>,
    record: &Record,
    force: bool,
) -> Result<bool, RemoveImageError> {
    let id = record.id.short();
    match using {
        None => Ok(false),
        Some(ImageUse {
            container,
            running: true,
        }) => Err(RemoveImageError::Running { id, container }),
        Some(ImageUse { container, .. }) if !force => {
            Err(RemoveImageError::Stopped { id, container })
        }
        Some(_) => Ok(true),
    }
}

/// The name of the image that `text` is, unless it is an ID or the beginning of one.
fn name_meant(catalog: &Catalog, record: &Record, text: &str) -> Option<Reference> {
    let name: Reference = text.parse().ok()?;
    catalog.named(&name).filter(|named| named.id == record.id)?;
    // With both a tag and a digest, it is the tag that goes.
    let tagged = name.tagged().filter(|tagged| record.names.contains(tagged));
    Some(tagged.unwrap_or(name))
}

/// With the last tag of a repository the digests by which that repository knows the image go too.
fn digests_that_go_with(record: &Record, name: &Reference) -> Vec<Reference> {
    let same = |other: &&Reference| other.familiar_repository() == name.familiar_repository();
    let is_last = !record.names.iter().filter(same).any(|other| other != name);
    if name.digest().is_some() || !is_last {
        return Vec::new();
    }
    record.digests.iter().filter(same).cloned().collect()
}

fn has_several_repositories(record: &Record) -> bool {
    let mut repositories = record.names.iter().map(Reference::familiar_repository);
    let first = repositories.next();
    repositories.any(|other| Some(other) != first)
}

#[cfg(test)]
mod tests;
