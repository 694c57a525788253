//! `save`: images as one archive, which is an OCI layout and what `docker load` reads at once.

mod error;
mod layout;
mod stream;

use std::collections::{BTreeSet, HashSet};

use super::catalog::{Catalog, FindImageError, Record};
use super::lease::Lease;
use super::reference::Reference;
use super::store::{Content, ImageStore};
pub use error::SaveError;
pub use stream::SavedArchive;

/// An image to save, under these names.
struct Chosen {
    record: Record,
    names: BTreeSet<Reference>,
}

impl ImageStore {
    /// Prepares an archive of the images with these names or IDs; a name without a tag means all its tags.
    ///
    /// Layers go into it as they are stored. They stay in the store until the archive is dropped.
    ///
    /// # Errors
    ///
    /// See [`SaveError`].
    pub async fn save(&self, names: &[String]) -> Result<SavedArchive, SaveError> {
        let lease = Lease::new(&self.inner);
        let names = names.to_vec();
        let prepare = move || {
            let chosen = choose(&lease.store().catalog(), &names)?;
            for image in &chosen {
                let blobs = image.record.blobs.iter().copied();
                for blob in blobs.chain([image.record.id, image.record.manifest]) {
                    lease.pin(Content::Blob(blob));
                }
            }
            let parts = layout::parts(&chosen, &lease)?;
            Ok(SavedArchive::new(parts, lease))
        };
        tokio::task::spawn_blocking(prepare).await?
    }
}

/// The images, each once, in the order in which they were first named.
fn choose(catalog: &Catalog, texts: &[String]) -> Result<Vec<Chosen>, FindImageError> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut add = |record: &Record, name: Option<Reference>| match chosen
        .iter_mut()
        .find(|other| other.record.id == record.id)
    {
        Some(known) => known.names.extend(name),
        None => chosen.push(Chosen {
            record: record.clone(),
            names: name.into_iter().collect(),
        }),
    };
    for text in texts {
        let name = text.parse::<Reference>().ok();
        let of_repository = name
            .as_ref()
            .filter(|name| is_name_only(text, name))
            .map(|name| with_repository(catalog, name))
            .unwrap_or_default();
        if !of_repository.is_empty() {
            for (record, name) in of_repository {
                add(record, Some(name));
            }
            continue;
        }
        let record = catalog.find(text)?;
        let tagged = name.and_then(|name| name.tagged());
        add(record, tagged.filter(|name| record.names.contains(name)));
    }
    Ok(chosen)
}

/// Whether neither a tag nor a digest was written.
fn is_name_only(text: &str, name: &Reference) -> bool {
    let last = text.rsplit('/').next().unwrap_or(text);
    name.digest().is_none() && !last.contains(':')
}

fn with_repository<'a>(catalog: &'a Catalog, like: &Reference) -> Vec<(&'a Record, Reference)> {
    let same = |name: &&Reference| {
        name.registry() == like.registry() && name.repository() == like.repository()
    };
    let of_record = |record: &'a Record| {
        let names = record.names.iter().filter(same).cloned();
        names.map(move |name| (record, name))
    };
    catalog.records.iter().flat_map(of_record).collect()
}

/// The elements of `all` at their first occurrence.
fn once<T: Copy + Eq + std::hash::Hash>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|&item| seen.insert(item)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;
    use crate::image::catalog::tests::record;

    fn names(texts: &[&str]) -> Vec<Vec<String>> {
        let catalog = Catalog {
            records: vec![
                record("a", &["redis:7", "redis:latest", "other:1"]),
                record("b", &["redis:6"]),
            ],
        };
        let texts: Vec<_> = texts
            .iter()
            .map(|text| text.replace("ID", &catalog.records[0].id.short()))
            .collect();
        let chosen = choose(&catalog, &texts).unwrap();
        let familiar = |image: &Chosen| image.names.iter().map(Reference::familiar).collect();
        chosen.iter().map(familiar).collect()
    }

    #[test]
    fn a_name_alone_means_all_its_tags_and_an_id_none() {
        assert_eq!(names(&["redis:7"]), [["redis:7"]]);
        assert_eq!(
            names(&["redis"]),
            [vec!["redis:7", "redis:latest"], vec!["redis:6"]]
        );
        assert_eq!(names(&["ID"]), [[""; 0]]);
        assert_eq!(names(&["ID", "other:1"]), [["other:1"]]);
        assert!(choose(&Catalog::default(), &["x".to_owned()]).is_err());
    }
}
