#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::XattrFlags;
use tempfile::TempDir;

use super::*;
use crate::image::Limits;
use crate::image::unpack::unpack_over;

/// Packs what is in `upper` and unpacks it over an empty root.
fn again(upper: &Path) -> TempDir {
    let mut archive = Vec::new();
    assert!(pack(upper, &mut archive).unwrap());
    let copy = TempDir::new().unwrap();
    unpack_over(&archive[..], copy.path(), &[], &Limits::default()).unwrap();
    copy
}

#[test]
fn nothing_makes_an_empty_layer() {
    let upper = TempDir::new().unwrap();
    for mount_point in ["proc", "sys", "etc"] {
        fs::create_dir(upper.path().join(mount_point)).unwrap();
    }
    fs::remove_dir(upper.path().join("etc")).unwrap();
    let mut archive = Vec::new();
    assert!(!pack(upper.path(), &mut archive).unwrap());
    assert_eq!(archive, [0; 1024]);
}

#[test]
fn files_come_back_as_they_were() {
    let upper = TempDir::new().unwrap();
    let at = |name: &str| upper.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/file"), vec![7; 100_000]).unwrap();
    fs::hard_link(at("a/b/file"), at("zz")).unwrap();
    symlink("../nowhere", at("a/link")).unwrap();
    fs::set_permissions(at("a/b/file"), fs::Permissions::from_mode(0o4711)).unwrap();
    rustix::fs::setxattr(at("a/b/file"), "user.x", b"a\nb", XattrFlags::empty()).unwrap();
    std::os::unix::fs::chown(at("a/b"), Some(1234), Some(5_000_000)).unwrap();
    let copy = again(upper.path());
    let of = |name: &str| fs::symlink_metadata(copy.path().join(name)).unwrap();
    assert_eq!(of("a/b/file").mode() & 0o7777, 0o4711);
    assert_eq!(of("a/b/file").ino(), of("zz").ino());
    assert_eq!(of("zz").size(), 100_000);
    assert_eq!((of("a/b").uid(), of("a/b").gid()), (1234, 5_000_000));
    assert_eq!(
        fs::read_link(copy.path().join("a/link")).unwrap(),
        Path::new("../nowhere")
    );
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(copy.path().join("zz"), "user.x", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"a\nb");
}

#[test]
fn what_hides_lower_layers_still_does() {
    let upper = TempDir::new().unwrap();
    let dir = File::open(upper.path()).unwrap();
    tree::make_whiteout(dir.as_fd(), OsStr::new("gone")).unwrap();
    fs::create_dir(upper.path().join("new")).unwrap();
    let new = File::open(upper.path().join("new")).unwrap();
    tree::make_opaque(new.as_fd()).unwrap();
    let copy = again(upper.path());
    let gone = File::open(copy.path()).unwrap();
    let gone = tree::stat(gone.as_fd(), OsStr::new("gone"))
        .unwrap()
        .unwrap();
    assert!(tree::is_whiteout(&gone));
    let new = File::open(copy.path().join("new")).unwrap();
    assert!(tree::is_opaque(new.as_fd()));
}

#[test]
fn what_the_runtime_put_there_is_left_out() {
    let upper = TempDir::new().unwrap();
    fs::create_dir_all(upper.path().join("etc")).unwrap();
    for name in ["etc/hosts", "etc/resolv.conf", "etc/own"] {
        fs::write(upper.path().join(name), "").unwrap();
    }
    fs::write(upper.path().join("etc/hostname"), "mine").unwrap();
    let copy = again(upper.path());
    let mut names: Vec<_> = fs::read_dir(copy.path().join("etc"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["hostname", "own"]);
}
