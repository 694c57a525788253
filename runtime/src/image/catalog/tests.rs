#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;

/// An image whose content is all made up of `seed`.
pub(in crate::image) fn record(seed: &str, names: &[&str]) -> Record {
    let digest = |part: &str| Digest::of(format!("{seed} {part}").as_bytes());
    Record {
        id: digest("config"),
        manifest: digest("manifest"),
        blobs: vec![digest("layer")],
        layers: vec![LayerId(digest("layer"))],
        size: 1,
        config: Arc::default(),
        docker: Arc::default(),
        parent: None,
        tagged: None,
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        digests: BTreeSet::new(),
        unknown: BTreeMap::new(),
    }
}

fn catalog() -> Catalog {
    Catalog {
        records: vec![
            record("a", &["redis:7", "ghcr.io/x/y:1"]),
            record("b", &["redis"]),
            record("c", &[]),
        ],
    }
}

fn found(catalog: &Catalog, text: &str) -> Option<Digest> {
    catalog.find(text).ok().map(|record| record.id)
}

#[test]
fn an_image_is_found_by_name_and_by_id() {
    let catalog = catalog();
    let [a, b, c] = [0, 1, 2].map(|at| catalog.records[at].id);
    for (text, id) in [
        ("redis:7", a),
        ("docker.io/library/redis:7", a),
        ("ghcr.io/x/y:1", a),
        ("redis", b),
        ("redis:latest", b),
        (&c.to_string(), c),
        (&c.hex(), c),
        (&c.short(), c),
        (&c.to_string()[..20], c),
    ] {
        assert_eq!(found(&catalog, text), Some(id), "{text}");
    }
}

#[test]
fn what_is_not_found_is_repeated_with_the_tag_that_was_assumed() {
    let catalog = catalog();
    for (text, message) in [
        ("nothing", "no such image: nothing:latest"),
        ("redis:8", "no such image: redis:8"),
        ("Wrong Name", "no such image: Wrong Name"),
        ("", "no such image: "),
        ("sha256:", "no such image: sha256:"),
    ] {
        assert_eq!(catalog.find(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_beginning_of_several_ids_is_ambiguous() {
    let mut catalog = Catalog::default();
    for seed in 0..40 {
        catalog.add(record(&seed.to_string(), &[]));
    }
    let shared = "0123456789abcdef".chars().map(String::from).find(|digit| {
        catalog
            .records
            .iter()
            .filter(|record| record.id.hex().starts_with(digit.as_str()))
            .count()
            > 1
    });
    let shared = shared.unwrap();
    let refused = catalog.find(&shared).unwrap_err();
    assert_eq!(refused, FindImageError::Ambiguous(shared));
}

#[test]
fn a_name_beats_the_beginning_of_an_id() {
    let mut catalog = catalog();
    let id = catalog.records[2].id;
    let name = id.hex()[..6].to_owned();
    catalog.tag(catalog.records[0].id, name.parse().unwrap());
    assert_eq!(found(&catalog, &name), Some(catalog.records[0].id));
}

#[test]
fn a_digest_finds_only_its_own_repository() {
    let mut catalog = catalog();
    let record = &mut catalog.records[0];
    let manifest = record.manifest;
    record
        .digests
        .insert(format!("redis@{manifest}").parse().unwrap());
    let id = record.id;
    assert_eq!(found(&catalog, &format!("redis@{manifest}")), Some(id));
    assert_eq!(
        found(&catalog, &format!("redis:whatever@{manifest}")),
        Some(id)
    );
    assert_eq!(found(&catalog, &format!("other@{manifest}")), None);
}

#[test]
fn a_name_belongs_to_one_image() {
    let mut catalog = catalog();
    catalog.add(record("d", &["redis:7"]));
    assert_eq!(found(&catalog, "redis:7"), Some(record("d", &[]).id));
    assert_eq!(catalog.records[0].names.len(), 1);
    // The same image again brings its names together.
    catalog.add(record("d", &["redis:8"]));
    assert_eq!(catalog.records.len(), 4);
    assert_eq!(
        catalog.find("redis:8").unwrap().to_image().names,
        ["redis:7", "redis:8"]
    );
}

#[test]
fn a_name_with_a_tag_and_a_digest_takes_only_the_tag() {
    let name: Reference = format!("redis:7@{}", Digest::of(b"x")).parse().unwrap();
    assert_eq!(name.tagged().unwrap().familiar(), "redis:7");
}
