//! `image prune`: what nothing needs goes.

use std::sync::Arc;

use super::catalog::{Catalog, Image};
use super::remove::{ImageUse, Removal, RemoveImageError, Removed};
use super::store::ImageStore;

/// What a pruning did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    /// Names, images and layers that are gone.
    pub removed: Vec<Removed>,
    /// Bytes of the layers that are gone.
    pub reclaimed: u64,
}

impl ImageStore {
    /// Removes all images that are `wanted` and that no container uses and no other image was made of.
    ///
    /// `in_use` is asked as by [`ImageStore::remove`].
    ///
    /// # Errors
    ///
    /// See [`RemoveImageError`]; then nothing was changed.
    pub async fn prune(
        &self,
        wanted: impl Fn(&Image) -> bool + Send + 'static,
        in_use: impl Fn(&str) -> Option<ImageUse> + Send + 'static,
    ) -> Result<Pruned, RemoveImageError> {
        let inner = Arc::clone(&self.inner);
        let prune = move || {
            let removal: Result<_, RemoveImageError> =
                inner.change(|catalog| Ok(prune_from(catalog, &wanted, &in_use)));
            let (removed, reclaimed) = removal?.finish(&inner);
            Ok(Pruned { removed, reclaimed })
        };
        tokio::task::spawn_blocking(prune).await?
    }
}

fn prune_from(
    catalog: &mut Catalog,
    wanted: &impl Fn(&Image) -> bool,
    in_use: &impl Fn(&str) -> Option<ImageUse>,
) -> Removal {
    let mut removal = Removal::default();
    let chosen = catalog
        .records
        .iter()
        .filter(|record| wanted(&record.to_image()));
    let chosen: Vec<_> = chosen.map(|record| record.id).collect();
    for id in chosen {
        // An earlier one may have taken it along.
        let is_there = catalog.record_mut(id).is_some();
        if !is_there || in_use(&id.to_string()).is_some() {
            continue;
        }
        if catalog.has_children(id) {
            removal.untag_all(catalog, id);
            continue;
        }
        removal.untag_all(catalog, id);
        removal.delete(catalog, id, false, in_use);
    }
    removal
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;
    use crate::image::catalog::tests::record;

    fn unnamed(image: &Image) -> bool {
        image.names.is_empty()
    }

    #[test]
    fn what_is_used_or_named_stays() {
        let mut catalog = Catalog {
            records: vec![record("a", &[]), record("b", &[]), record("c", &["c:1"])],
        };
        let used = catalog.records[1].id.to_string();
        let in_use = |id: &str| {
            (id == used).then(|| ImageUse {
                container: "x".into(),
                running: false,
            })
        };
        let removal = prune_from(&mut catalog, &unnamed, &in_use);
        assert_eq!(removal.images.len(), 1);
        let left: Vec<_> = catalog.records.iter().map(|r| r.id.to_string()).collect();
        assert_eq!(left[0], used);
        assert_eq!(catalog.records[1].to_image().names, ["c:1"]);
    }

    #[test]
    fn a_parent_goes_with_its_last_child() {
        let mut catalog = Catalog {
            records: vec![record("a", &[]), record("b", &[]), record("c", &["c:1"])],
        };
        catalog.records[1].parent = Some(catalog.records[0].id);
        catalog.records[2].parent = Some(catalog.records[1].id);
        assert!(
            prune_from(&mut catalog, &unnamed, &|_| None)
                .images
                .is_empty()
        );
        let all = prune_from(&mut catalog, &|_| true, &|_| None);
        assert_eq!((all.names, all.images.len()), (vec!["c:1".to_owned()], 3));
    }
}
