#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn image() -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    let data = image.path().join("srv/data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "of the image").unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/srv/data", image.path().join("link")).unwrap();
    image
}

#[test]
fn volumes_are_found_again() {
    let root = tempfile::tempdir().unwrap();
    let store = VolumeStore::open(root.path()).unwrap();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let made = store.create("data", none(), labels).unwrap();
    assert_eq!(store.create("data", none(), none()).unwrap(), made);
    fs::write(store.mountpoint("data").join("x"), "12345").unwrap();
    let again = VolumeStore::open(root.path()).unwrap();
    assert_eq!(again.list(), [made]);
    assert_eq!(again.usage("data").unwrap().bytes, 5);
    again.remove("data").unwrap().delete().unwrap();
    assert!(matches!(again.remove("data"), Err(VolumeError::NotFound)));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_goes_or_is_finished() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let store = VolumeStore::open(root.path()).unwrap();
    store.create("data", none(), none()).unwrap();
    store.create("other", none(), none()).unwrap();
    // a create, a removal and a copy that were cut off, and a copy that was whole
    fs::create_dir_all(root.path().join(".new-x/_data")).unwrap();
    fs::create_dir_all(root.path().join(".old-x/_data/y")).unwrap();
    fs::create_dir_all(root.path().join("other/part/half")).unwrap();
    fs::rename(image.path().join("srv/data"), root.path().join("data/fill")).unwrap();
    fs::create_dir(root.path().join("foreign")).unwrap();
    let again = VolumeStore::open(root.path()).unwrap();
    let data = again.mountpoint("data");
    assert_eq!(
        fs::read_to_string(data.join("file")).unwrap(),
        "of the image"
    );
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o750);
    assert!(!root.path().join("data/fill").exists());
    assert!(!root.path().join("other/part").exists());
    assert_eq!(fs::read_dir(again.mountpoint("other")).unwrap().count(), 0);
    let names: Vec<_> = again.list().into_iter().map(|volume| volume.name).collect();
    assert_eq!(names, ["data", "other"]);
    assert!(root.path().join("foreign").is_dir());
    assert!(!root.path().join(".new-x").exists() && !root.path().join(".old-x").exists());
}

#[test]
fn an_empty_volume_is_filled_and_another_is_not() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let store = VolumeStore::open(root.path()).unwrap();
    store.create("data", none(), none()).unwrap();
    let data = store.mountpoint("data");
    store
        .fill("data", image.path(), Path::new("/absent"))
        .unwrap();
    store
        .fill("data", image.path(), Path::new("/srv/data/file"))
        .unwrap();
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    store
        .fill("data", image.path(), Path::new("/link"))
        .unwrap();
    assert_eq!(
        fs::read_to_string(data.join("file")).unwrap(),
        "of the image"
    );
    assert!(data.join("sub").is_dir());
    fs::remove_file(data.join("file")).unwrap();
    store
        .fill("data", image.path(), Path::new("/srv/data"))
        .unwrap();
    assert!(!data.join("file").exists(), "what is there stays as it is");
}

#[test]
fn a_link_of_the_image_does_not_lead_to_the_host() {
    let (root, image) = (tempfile::tempdir().unwrap(), image());
    let store = VolumeStore::open(root.path()).unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "of the host").unwrap();
    symlink(outside.path(), image.path().join("out")).unwrap();
    symlink("../../../../../..", image.path().join("up")).unwrap();
    store.create("data", none(), none()).unwrap();
    store.fill("data", image.path(), Path::new("/out")).unwrap();
    let through = Path::new("/up").join(outside.path().strip_prefix("/").unwrap());
    store.fill("data", image.path(), &through).unwrap();
    assert_eq!(fs::read_dir(store.mountpoint("data")).unwrap().count(), 0);
}
