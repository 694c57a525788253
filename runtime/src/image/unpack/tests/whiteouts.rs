//! Whiteouts become the marks by which overlayfs hides lower names.

use super::*;

fn is_hidden(dir: &TempDir, name: &str) -> bool {
    let dir = fs::File::open(dir.path()).unwrap();
    let found = tree::stat(dir.as_fd(), OsStr::new(name)).unwrap();
    found.is_some_and(|found| tree::is_whiteout(&found))
}

fn is_opaque(dir: &TempDir, name: &str) -> bool {
    tree::is_opaque(fs::File::open(dir.path().join(name)).unwrap().as_fd())
}

#[test]
fn a_whiteout_hides_one_name_and_an_opaque_mark_all() {
    let dir = TempDir::new().unwrap();
    tar()
        .file(".wh.gone", "")
        .dir("d")
        .file("d/.wh..wh..opq", "")
        .unpack(dir.path())
        .unwrap();
    assert!(is_hidden(&dir, "gone"));
    assert!(is_opaque(&dir, "d"));
    assert!(!is_opaque(&dir, "."));
}

#[test]
fn what_the_layer_has_itself_is_not_hidden_whatever_the_order() {
    let dir = TempDir::new().unwrap();
    let archive = tar()
        .file("before", "x")
        .file(".wh.before", "")
        .file(".wh.after", "")
        .file("after", "x")
        .dir("kept")
        .file("kept/x", "")
        .file(".wh.kept", "")
        .file(".wh.made", "")
        .dir("made")
        .file("made/x", "")
        .file(".wh.implied", "")
        .file("implied/x", "");
    archive.unpack(dir.path()).unwrap();
    for name in ["before", "after", "kept/x", "made/x", "implied/x"] {
        assert!(dir.path().join(name).is_file(), "{name}");
    }
    // A directory that replaces a lower one must not show what that had.
    for name in ["kept", "made", "implied"] {
        assert!(is_opaque(&dir, name), "{name}");
    }
}

#[test]
fn the_names_aufs_kept_for_itself_are_left_out() {
    let dir = TempDir::new().unwrap();
    tar()
        .dir(".wh..wh.plnk")
        .file(".wh..wh.aufs", "")
        .file("a", "")
        .unpack(dir.path())
        .unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_hidden_lower_file_is_no_target_for_a_hard_link() {
    let [bottom, middle, top] = [(); 3].map(|()| TempDir::new().unwrap());
    tar()
        .file("a", "x")
        .dir("d")
        .file("d/b", "x")
        .unpack(bottom.path())
        .unwrap();
    tar()
        .file(".wh.a", "")
        .dir("d")
        .file("d/.wh..wh..opq", "")
        .unpack(middle.path())
        .unwrap();
    for target in ["a", "d/b"] {
        let linked = tar()
            .hard_link("new", target)
            .unpack_over(top.path(), &[middle.path(), bottom.path()]);
        assert!(
            matches!(linked, Err(UnpackError::NoTarget { .. })),
            "{target}"
        );
    }
}
