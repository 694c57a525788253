#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;
use crate::image::catalog::tests::record;

fn catalog(names: &[&str]) -> Catalog {
    Catalog {
        records: vec![record("a", names), record("b", &["other"])],
    }
}

fn force(force: bool) -> RemoveOptions {
    RemoveOptions {
        force,
        keep_parents: false,
    }
}

fn unused(_: &str) -> Option<ImageUse> {
    None
}

fn used(running: bool) -> impl Fn(&str) -> Option<ImageUse> {
    move |_| {
        Some(ImageUse {
            container: "c1".into(),
            running,
        })
    }
}

#[test]
fn a_name_that_is_not_the_last_goes_alone_even_if_the_image_is_used() {
    let mut catalog = catalog(&["redis:7", "redis:latest"]);
    let removal = remove_from(&mut catalog, "redis:7", force(false), &used(true)).unwrap();
    assert_eq!(removal.names, ["redis:7"]);
    assert!(removal.images.is_empty());
    assert_eq!(catalog.records[0].to_image().names, ["redis:latest"]);
}

#[test]
fn the_last_name_takes_the_image_with_its_digests() {
    let mut catalog = catalog(&["redis:7"]);
    let digest = format!("redis@{}", catalog.records[0].manifest);
    catalog.records[0].digests.insert(digest.parse().unwrap());
    let id = catalog.records[0].id;
    let removal = remove_from(&mut catalog, "redis:7", force(false), &unused).unwrap();
    assert_eq!(removal.names, ["redis:7".to_owned(), digest]);
    assert_eq!(removal.images[0].0, id);
    assert_eq!(catalog.records.len(), 1);
}

#[test]
fn a_digest_of_a_tagged_image_is_a_name_of_its_own() {
    let mut catalog = catalog(&["redis:7"]);
    let digest = format!("redis@{}", catalog.records[0].manifest);
    catalog.records[0].digests.insert(digest.parse().unwrap());
    let removal = remove_from(&mut catalog, &digest, force(false), &unused).unwrap();
    assert_eq!(removal.names, [digest]);
    assert!(removal.images.is_empty());
    assert_eq!(catalog.records[0].to_image().names, ["redis:7"]);
}

#[test]
fn an_id_takes_all_names_of_one_repository_but_not_of_several() {
    let mut one = catalog(&["redis:7", "redis:8"]);
    let id = one.records[0].id.to_string();
    let removal = remove_from(&mut one, &id, force(false), &unused).unwrap();
    assert_eq!((removal.names.len(), !removal.images.is_empty()), (2, true));

    let mut several = catalog(&["redis:7", "valkey:7"]);
    let refused = remove_from(&mut several, &id, force(false), &unused).unwrap_err();
    assert!(matches!(refused, RemoveImageError::SeveralNames { .. }));
    let removal = remove_from(&mut several, &id, force(true), &unused).unwrap();
    assert_eq!((removal.names.len(), !removal.images.is_empty()), (2, true));
}

#[test]
fn an_image_in_use_is_refused_by_what_would_help() {
    for (text, forced, running, words) in [
        (
            "redis:7",
            false,
            false,
            "(must force) - container c1 is using",
        ),
        (
            "redis:7",
            false,
            true,
            "(must force) - container c1 is using",
        ),
        (
            "redis:7",
            true,
            true,
            "(cannot be forced) - image is being used by running container c1",
        ),
        (
            "ID",
            false,
            false,
            "(must be forced) - image is being used by stopped container c1",
        ),
        (
            "ID",
            false,
            true,
            "(cannot be forced) - image is being used by running container c1",
        ),
    ] {
        let mut catalog = catalog(&["redis:7"]);
        let text = text.replace("ID", &catalog.records[0].id.hex());
        let refused = remove_from(&mut catalog, &text, force(forced), &used(running))
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with("conflict: unable to ") && refused.contains(words),
            "{refused}"
        );
        assert_eq!(catalog.records[0].names.len(), 1);
    }
}

#[test]
fn force_takes_the_names_from_a_stopped_container_but_leaves_the_image() {
    let mut catalog = catalog(&["redis:7"]);
    let removal = remove_from(&mut catalog, "redis:7", force(true), &used(false)).unwrap();
    assert_eq!(removal.names, ["redis:7"]);
    assert!(removal.images.is_empty());
    assert_eq!(catalog.records.len(), 2);
}

#[test]
fn the_digests_of_a_repository_go_with_its_last_tag() {
    let mut catalog = catalog(&["redis:7", "valkey:7"]);
    let digest = format!("redis@{}", catalog.records[0].manifest);
    catalog.records[0].digests.insert(digest.parse().unwrap());
    let removal = remove_from(&mut catalog, "redis:7", force(false), &used(true)).unwrap();
    assert_eq!(removal.names, ["redis:7".to_owned(), digest]);
    assert_eq!(catalog.records[0].to_image().names, ["valkey:7"]);
}

#[test]
fn an_image_that_another_was_made_of_only_loses_its_name() {
    let mut catalog = catalog(&["redis:7"]);
    let id = catalog.records[0].id;
    catalog.records[1].parent = Some(id);
    let removal = remove_from(&mut catalog, "redis:7", force(false), &unused).unwrap();
    assert_eq!((removal.names.len(), removal.images.len()), (1, 0));
    let refused = remove_from(&mut catalog, &id.hex(), force(true), &unused).unwrap_err();
    assert!(matches!(refused, RemoveImageError::Children { .. }));
    let kept = RemoveOptions {
        force: false,
        keep_parents: true,
    };
    let removal = remove_from(&mut catalog.clone(), "other", kept, &unused).unwrap();
    assert_eq!(removal.images.len(), 1);
    let removal = remove_from(&mut catalog, "other", force(false), &unused).unwrap();
    assert_eq!((removal.images.len(), catalog.records.len()), (2, 0));
}
