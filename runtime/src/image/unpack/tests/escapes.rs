//! Each known trick to write outside the root, and random mixtures of them.

use proptest::prelude::*;

use super::*;

/// A root with things outside that must not change.
struct Arena {
    dir: TempDir,
    before: Vec<(String, u32, u32, Vec<u8>)>,
}

impl Arena {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir_all(dir.path().join("outside/deep")).unwrap();
        fs::write(dir.path().join("outside/file"), "untouched").unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let before = snapshot(&dir.path().join("outside"));
        Self { dir, before }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self) -> String {
        self.dir.path().join("outside").display().to_string()
    }

    fn is_unharmed(&self) -> bool {
        let mut beside: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        beside == ["outside", "root"] && snapshot(&self.dir.path().join("outside")) == self.before
    }

    fn refuses(&self, archive: &Tar, expected: PathProblem) {
        match archive.unpack(&self.root()) {
            Err(UnpackError::Refused { problem, .. }) => assert_eq!(problem, expected),
            other => panic!("not refused: {other:?}"),
        }
        assert!(self.is_unharmed());
    }
}

#[test]
fn a_name_that_climbs_is_refused() {
    let arena = Arena::new();
    arena.refuses(&tar().file("../evil", "x"), PathProblem::Climbs);
    arena.refuses(
        &tar().dir("a").file("a/../../evil", "x"),
        PathProblem::Climbs,
    );
    arena.refuses(&tar().dir(".."), PathProblem::Climbs);
}

#[test]
fn an_absolute_name_is_refused() {
    let arena = Arena::new();
    let evil = format!("{}/evil", arena.outside());
    arena.refuses(&tar().file(&evil, "x"), PathProblem::Absolute);
    arena.refuses(&tar().dir("//x"), PathProblem::Absolute);
    // The root itself is no way out, but it is a directory and nothing else.
    arena.refuses(&tar().symlink("/", "../outside"), PathProblem::Empty);
    arena.refuses(&tar().hard_link("/", "a"), PathProblem::Empty);
}

#[test]
fn the_way_through_a_planted_link_is_refused() {
    let arena = Arena::new();
    let outside = arena.outside();
    for target in [
        outside.as_str(),
        "..",
        "../outside",
        "/",
        "/proc/self/cwd",
        "/proc/self/root",
    ] {
        let arena = Arena::new();
        arena.refuses(
            &tar().symlink("link", target).file("link/evil", "x"),
            PathProblem::Escapes,
        );
        arena.refuses(
            &tar().symlink("link", target).dir("link/deep/evil"),
            PathProblem::Escapes,
        );
    }
    arena.refuses(
        &tar()
            .symlink("one", "two")
            .symlink("two", "../outside")
            .file("one/evil", "x"),
        PathProblem::Escapes,
    );
    arena.refuses(
        &tar().symlink("loop", "loop").file("loop/evil", "x"),
        PathProblem::Escapes,
    );
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let arena = Arena::new();
    tar()
        .dir("usr")
        .symlink("bin", "usr")
        .file("bin/tool", "x")
        .unpack(&arena.root())
        .unwrap();
    assert_eq!(fs::read(arena.root().join("usr/tool")).unwrap(), b"x");
}

#[test]
fn a_file_takes_the_place_of_a_planted_link_and_does_not_follow_it() {
    let arena = Arena::new();
    let target = format!("{}/file", arena.outside());
    tar()
        .symlink("link", &target)
        .file("link", "mine")
        .unpack(&arena.root())
        .unwrap();
    assert!(arena.is_unharmed());
    assert_eq!(fs::read(arena.root().join("link")).unwrap(), b"mine");
}

#[test]
fn a_directory_takes_the_place_of_a_planted_link() {
    let arena = Arena::new();
    tar()
        .symlink("link", "../outside")
        .dir("link")
        .file("link/file", "mine")
        .unpack(&arena.root())
        .unwrap();
    assert!(arena.is_unharmed());
    assert_eq!(fs::read(arena.root().join("link/file")).unwrap(), b"mine");
}

#[test]
fn a_directory_swapped_for_a_link_behind_the_reader_is_refused() {
    let arena = Arena::new();
    let archive = tar()
        .dir("d")
        .file("d/one", "x")
        .symlink("d", "../outside")
        .file("d/evil", "x");
    arena.refuses(&archive, PathProblem::Escapes);
}

#[test]
fn a_hard_link_out_of_the_root_is_refused() {
    let arena = Arena::new();
    let file = format!("{}/file", arena.outside());
    arena.refuses(&tar().hard_link("evil", &file), PathProblem::Absolute);
    arena.refuses(
        &tar().hard_link("evil", "../outside/file"),
        PathProblem::Climbs,
    );
    arena.refuses(
        &tar()
            .symlink("link", "../outside")
            .hard_link("evil", "link/file"),
        PathProblem::Escapes,
    );
}

#[test]
fn a_hard_link_to_a_planted_link_gives_no_way_to_write_through_it() {
    let arena = Arena::new();
    let archive = tar()
        .symlink("link", "../outside/file")
        .hard_link("same", "link")
        .file("same", "overwritten");
    archive.unpack(&arena.root()).unwrap();
    assert!(arena.is_unharmed());
}

#[test]
fn a_whiteout_of_the_directory_itself_or_its_parent_is_refused() {
    let arena = Arena::new();
    arena.refuses(&tar().file(".wh..", ""), PathProblem::Whiteout);
    arena.refuses(&tar().file(".wh...", ""), PathProblem::Whiteout);
    arena.refuses(&tar().file(".wh.", ""), PathProblem::Whiteout);
    arena.refuses(
        &tar()
            .symlink("link", "../outside")
            .file("link/.wh.file", ""),
        PathProblem::Escapes,
    );
    arena.refuses(
        &tar()
            .symlink("link", "../outside")
            .file("link/.wh..wh..opq", ""),
        PathProblem::Escapes,
    );
}

#[test]
fn the_long_name_in_an_extension_record_is_checked_too() {
    let arena = Arena::new();
    arena.refuses(
        &tar().pax(&[("path", b"../evil")]).file("fine", "x"),
        PathProblem::Climbs,
    );
    arena.refuses(
        &tar()
            .pax(&[("linkpath", b"/etc/passwd")])
            .hard_link("a", "b"),
        PathProblem::Absolute,
    );
    arena.refuses(
        &tar()
            .pax(&[("GNU.sparse.name", b"/evil")])
            .file("fine", "x"),
        PathProblem::Absolute,
    );
    let mut gnu = tar();
    gnu.add(&Item {
        data: b"../evil\0",
        ..item(b'L', "././@LongLink")
    });
    arena.refuses(&gnu.file("fine", "x"), PathProblem::Climbs);
}

#[test]
fn the_overlays_own_marks_cannot_be_forged() {
    let arena = Arena::new();
    let forged: [(&str, &[u8]); 2] = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/outside"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    tar().pax(&forged).dir("d").unpack(&arena.root()).unwrap();
    let dir = fs::File::open(arena.root().join("d")).unwrap();
    let mut list = [0; 256];
    let length = rustix::fs::flistxattr(&dir, &mut list[..]).unwrap();
    assert!(!String::from_utf8_lossy(&list[..length]).contains("overlay"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_mixture_of_entries_reaches_outside(
        entries in proptest::collection::vec(
            (
                prop::sample::select(&b"0123567SL"[..]),
                "(a|b|c|\\.\\.|\\.|\\.wh\\.a|\\.wh\\.|\\.wh\\.\\.|\\.wh\\.\\.\\.|\\.wh\\.\\.wh\\.\\.opq)(/(a|b|c|\\.\\.|file|deep)){0,3}",
                "(a|b|c|\\.\\.|/|OUT|\\.\\./outside)(/(a|b|\\.\\.|file|deep)){0,2}",
            ),
            1..12,
        ),
    ) {
        let arena = Arena::new();
        let mut archive = tar();
        for (kind, name, link) in &entries {
            let link = link.replace("OUT", &arena.outside());
            let link = &link.as_bytes()[..link.len().min(100)];
            let data: &[u8] = if matches!(kind, b'0' | b'7' | b'L') { b"evil" } else { b"" };
            archive.add(&Item { link, data, device: (1, 3), ..item(*kind, name) });
        }
        let _ = archive.unpack(&arena.root());
        prop_assert!(arena.is_unharmed());
    }
}
