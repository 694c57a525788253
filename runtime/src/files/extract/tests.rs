#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::files::{ContainerPath, Look};

/// An archive of entries with names as they are: their kind, and where links lead.
fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for &(name, kind, link) in entries {
        let data: &[u8] = if kind.is_file() { b"planted" } else { b"" };
        let mut header = tar::Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const DIR: tar::EntryType = tar::EntryType::Directory;
const LINK: tar::EntryType = tar::EntryType::Symlink;
const HARD: tar::EntryType = tar::EntryType::Link;

struct Place {
    whole: tempfile::TempDir,
    root: PathBuf,
    view: View,
}

/// A root with `srv` in it, and beside it what must not be reached.
fn place() -> Place {
    let whole = tempfile::tempdir().unwrap();
    let root = whole.path().join("root");
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::create_dir_all(root.join("usr/lib")).unwrap();
    symlink("usr/lib", root.join("lib")).unwrap();
    symlink("/usr/lib", root.join("abs")).unwrap();
    symlink(whole.path(), root.join("out")).unwrap();
    symlink("../..", root.join("srv/up")).unwrap();
    let view = View::of_directory(&root).unwrap();
    Place { whole, root, view }
}

impl Place {
    fn extract(
        &self,
        at: &str,
        entries: &[(&str, tar::EntryType, &str)],
        how: &Extraction,
    ) -> Result<(), ExtractError> {
        self.view
            .extract(Path::new(at), archive(entries).as_slice(), how)
    }

    /// Names beside the root.
    fn outside(&self) -> usize {
        fs::read_dir(self.whole.path()).unwrap().count()
    }
}

#[test]
fn owners_modes_and_links_are_those_of_the_archive() {
    let place = place();
    let entries = [
        ("d/", DIR, ""),
        ("d/f", FILE, ""),
        ("d/h", HARD, "d/f"),
        ("d/l", LINK, "f"),
    ];
    place
        .extract("/srv", &entries, &Extraction::default())
        .unwrap();
    let file = fs::metadata(place.root.join("srv/d/f")).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (7, 8, 0o4755)
    );
    assert_eq!(file.nlink(), 2);
    assert_eq!(fs::metadata(place.root.join("srv/d")).unwrap().mtime(), 9);
    let as_user = Extraction {
        owner: Some((5, 6)),
        ..Extraction::default()
    };
    place.extract("/srv", &[("u", FILE, "")], &as_user).unwrap();
    assert_eq!(fs::metadata(place.root.join("srv/u")).unwrap().uid(), 5);
}

#[test]
fn links_of_the_root_are_followed_within_it() {
    let place = place();
    place
        .extract(
            "/",
            &[("lib/x", FILE, ""), ("/abs/y", FILE, "")],
            &Extraction::default(),
        )
        .unwrap();
    assert!(place.root.join("usr/lib/x").exists() && place.root.join("usr/lib/y").exists());
    place
        .extract("/lib", &[("z", FILE, "")], &Extraction::default())
        .unwrap();
    assert!(place.root.join("usr/lib/z").exists());
}

#[test]
fn nothing_is_made_outside() {
    let place = place();
    let how = Extraction::default();
    for entries in [
        &[("../planted", FILE, "")][..],
        &[("a/../../planted", FILE, "")],
        &[("out/planted", FILE, "")],
        &[("trap", LINK, "/nonexistent"), ("trap/planted", FILE, "")],
        &[("h", HARD, "../../secret")],
    ] {
        assert!(place.extract("/", entries, &how).is_err(), "{entries:?}");
        assert_eq!(place.outside(), 1, "{entries:?}");
    }
    // these lead to the root itself, as they do for the container
    place
        .extract("/srv", &[("up/planted", FILE, "")], &how)
        .unwrap();
    assert!(place.root.join("planted").exists());
    assert_eq!(place.outside(), 1);
}

#[test]
fn what_is_not_trusted_gets_no_further_than_its_directory() {
    let place = place();
    let extract = |entries: &[(&str, tar::EntryType, &str)]| {
        extract_untrusted(
            &place.root.join("srv"),
            archive(entries).as_slice(),
            &Extraction::default(),
        )
    };
    assert!(extract(&[("up/planted", FILE, "")]).is_err());
    assert!(extract(&[("l", LINK, "/etc"), ("l/planted", FILE, "")]).is_err());
    let device = extract(&[("null", tar::EntryType::Char, "")]);
    assert!(matches!(device, Err(ExtractError::Device(_))));
    extract(&[("f", FILE, "")]).unwrap();
    let file = fs::metadata(place.root.join("srv/f")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o755);
    assert_eq!(file.uid(), nix::unistd::geteuid().as_raw());
}

#[test]
fn kinds_are_kept_if_asked() {
    let place = place();
    let keep = Extraction {
        keep_kinds: true,
        ..Extraction::default()
    };
    let told = |entries: &[(&str, tar::EntryType, &str)]| {
        place.extract("/", entries, &keep).unwrap_err().to_string()
    };
    assert_eq!(
        told(&[("srv", FILE, "")]),
        "cannot overwrite directory \"srv\" with non-directory"
    );
    fs::write(place.root.join("file"), "").unwrap();
    assert_eq!(
        told(&[("file/", DIR, "")]),
        "cannot overwrite non-directory \"file\" with directory"
    );
    place
        .extract("/", &[("srv", FILE, "")], &Extraction::default())
        .unwrap();
    assert!(place.root.join("srv").is_file());
    let at_file = place.extract("/file", &[], &keep);
    assert!(matches!(at_file, Err(ExtractError::NotADirectory)));
}

#[test]
fn what_is_packed_comes_out_the_same_under_another_name() {
    let place = place();
    let long = "x".repeat(150);
    fs::write(place.root.join("srv").join(&long), "long").unwrap();
    fs::write(place.root.join("srv/one"), "two names").unwrap();
    fs::hard_link(place.root.join("srv/one"), place.root.join("srv/other")).unwrap();
    fs::set_permissions(
        place.root.join("srv/one"),
        fs::Permissions::from_mode(0o2640),
    )
    .unwrap();
    let found = place
        .view
        .look(&ContainerPath::parse("/srv").unwrap())
        .unwrap();
    let mut packed = Vec::new();
    found.pack(&mut packed).unwrap();
    let how = Extraction {
        rename: Some(("srv".into(), "copy".into())),
        ..Extraction::default()
    };
    place
        .view
        .extract(Path::new("/usr"), packed.as_slice(), &how)
        .unwrap();
    let copy = place.root.join("usr/copy");
    assert_eq!(fs::read_to_string(copy.join(&long)).unwrap(), "long");
    let (one, other) = (
        fs::metadata(copy.join("one")).unwrap(),
        fs::metadata(copy.join("other")).unwrap(),
    );
    assert_eq!((one.ino(), one.mode() & 0o7777), (other.ino(), 0o2640));
    assert_eq!(fs::read_link(copy.join("up")).unwrap(), Path::new("../.."));
}

#[test]
fn a_look_tells_where_links_lead() {
    let place = place();
    let look = |path: &str| place.view.look(&ContainerPath::parse(path).unwrap());
    assert_eq!(look("/abs").unwrap().stat.link_target, "/usr/lib");
    assert_eq!(look("/srv/up").unwrap().stat.link_target, "/");
    assert!(look("/abs/").unwrap().is_dir());
    assert!(look("/nosuch").is_err() && look("/out/root").is_err());
    symlink("loop", place.root.join("loop")).unwrap();
    assert!(look("/loop").is_err());
    let absent = Look::at(&place.root.join("absent"), false);
    assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_archive_makes_anything_outside(
        names in proptest::collection::vec(("[a-c./]{1,8}", 0..4_usize, "[a-c./]{0,8}"), 1..6)
    ) {
        let place = place();
        let kinds = [FILE, DIR, LINK, HARD];
        let entries: Vec<_> = names
            .iter()
            .map(|(name, kind, link)| (name.as_str(), kinds[*kind], link.as_str()))
            .collect();
        let _ = place.extract("/srv", &entries, &Extraction::default());
        let _ = extract_untrusted(&place.root.join("srv"), archive(&entries).as_slice(), &Extraction::default());
        prop_assert_eq!(place.outside(), 1);
    }
}
