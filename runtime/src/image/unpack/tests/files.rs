//! What a layer's files look like once unpacked.

use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use super::*;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn owner_mode_and_time_are_those_of_the_archive() {
    let dir = TempDir::new().unwrap();
    let mut archive = tar();
    archive.add(&Item {
        mode: 0o1777,
        owner: (7, 8),
        ..item(b'5', "d")
    });
    archive.add(&Item {
        mode: 0o6755,
        owner: (1000, 1001),
        data: b"#!",
        ..item(b'0', "d/suid")
    });
    archive.add(&Item {
        link: b"nowhere",
        owner: (5, 6),
        ..item(b'2', "d/link")
    });
    assert_eq!(archive.unpack(dir.path()).unwrap(), 2);

    let stat = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap();
    let (d, suid, link) = (stat("d"), stat("d/suid"), stat("d/link"));
    assert_eq!(
        (d.mode() & 0o7777, d.uid(), d.gid(), d.mtime()),
        (0o1777, 7, 8, 1_000_000_000)
    );
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.mtime()),
        (0o6755, 1000, 1001, 1_000_000_000)
    );
    assert_eq!(
        (link.uid(), link.gid(), link.mtime()),
        (5, 6, 1_000_000_000)
    );
    assert_eq!(
        fs::read_link(dir.path().join("d/link")).unwrap(),
        Path::new("nowhere")
    );
}

#[test]
fn devices_and_fifos_are_made() {
    let dir = TempDir::new().unwrap();
    let mut archive = tar();
    archive.add(&Item {
        device: (1, 3),
        mode: 0o666,
        ..item(b'3', "null")
    });
    archive.add(&Item {
        device: (259, 70_000),
        ..item(b'4', "disk")
    });
    archive.add(&item(b'6', "fifo"));
    archive.unpack(dir.path()).unwrap();
    let stat = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap();
    let (null, disk) = (stat("null"), stat("disk"));
    assert!(null.file_type().is_char_device() && disk.file_type().is_block_device());
    assert!(stat("fifo").file_type().is_fifo());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(null.mode() & 0o777, 0o666);
    assert_eq!(disk.rdev(), rustix::fs::makedev(259, 70_000));
}

#[test]
fn extended_attributes_and_capabilities_survive_the_change_of_owner() {
    let dir = TempDir::new().unwrap();
    // cap_net_raw=ep, version 2: with zero bytes and a newline's value in it.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut archive = tar().pax(&[
        ("SCHILY.xattr.user.note", b"two\nlines"),
        ("SCHILY.xattr.security.capability", &capability),
        ("mtime", b"1.5"),
    ]);
    archive.add(&Item {
        owner: (1, 1),
        data: b"x",
        ..item(b'0', "ping")
    });
    archive.unpack(dir.path()).unwrap();
    let ping = dir.path().join("ping");
    assert_eq!(
        xattr(&ping, "user.note").as_deref(),
        Some(&b"two\nlines"[..])
    );
    assert_eq!(
        xattr(&ping, "security.capability").as_deref(),
        Some(&capability[..])
    );
    let meta = fs::metadata(&ping).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1, 500_000_000));
}

#[test]
fn hard_links_are_one_file() {
    let dir = TempDir::new().unwrap();
    tar()
        .file("a", "x")
        .dir("d")
        .hard_link("d/b", "./a")
        .hard_link("a", "a")
        .unpack(dir.path())
        .unwrap();
    let inode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
}

#[test]
fn a_hard_link_to_a_lower_file_becomes_a_copy_of_it() {
    let (low, high) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut lower = tar();
    lower.add(&Item {
        mode: 0o4711,
        owner: (3, 4),
        data: b"content",
        ..item(b'0', "tool")
    });
    lower.symlink("link", "tool").unpack(low.path()).unwrap();
    let upper = tar()
        .hard_link("same", "tool")
        .hard_link("same-link", "link");
    upper.unpack_over(high.path(), &[low.path()]).unwrap();
    let same = fs::metadata(high.path().join("same")).unwrap();
    assert_eq!(
        (same.mode() & 0o7777, same.uid(), same.gid()),
        (0o4711, 3, 4)
    );
    assert_eq!(fs::read(high.path().join("same")).unwrap(), b"content");
    assert_eq!(
        fs::read_link(high.path().join("same-link")).unwrap(),
        Path::new("tool")
    );
}

#[test]
fn a_hard_link_to_nothing_is_named() {
    let dir = TempDir::new().unwrap();
    let error = tar().hard_link("a", "gone").unpack(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry \"a\" is a hard link to \"gone\", which does not exist"
    );
}

#[test]
fn a_directory_the_archive_leaves_out_looks_as_it_does_below() {
    let (low, high) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut lower = tar();
    lower.add(&Item {
        mode: 0o1777,
        owner: (9, 9),
        ..item(b'5', "tmp")
    });
    lower.unpack(low.path()).unwrap();
    tar()
        .file("tmp/x", "")
        .file("new/y", "")
        .unpack_over(high.path(), &[low.path()])
        .unwrap();
    let stat = |name: &str| fs::metadata(high.path().join(name)).unwrap();
    assert_eq!(
        (stat("tmp").mode() & 0o7777, stat("tmp").uid()),
        (0o1777, 9)
    );
    assert_eq!((stat("new").mode() & 0o7777, stat("new").uid()), (0o755, 0));
}

/// Packs with the system's own tar, as people do.
fn pack(dir: &Path, options: &[&str]) -> Vec<u8> {
    let packed = Command::new("tar")
        .args(options)
        .args(["-C", &dir.display().to_string(), "-cf", "-", "."])
        .output();
    let packed = packed.unwrap();
    assert!(
        packed.status.success(),
        "{}",
        String::from_utf8_lossy(&packed.stderr)
    );
    packed.stdout
}

#[test]
fn what_gnu_tar_packs_comes_out_the_same_in_each_of_its_formats() {
    let source = TempDir::new().unwrap();
    let long = source.path().join("d".repeat(120)).join("n".repeat(200));
    fs::create_dir_all(long.parent().unwrap()).unwrap();
    fs::write(&long, "deep").unwrap();
    std::os::unix::fs::symlink("t".repeat(180), source.path().join("long-link")).unwrap();
    let sparse = fs::File::create(source.path().join("sparse")).unwrap();
    for at in 0..40_u64 {
        std::os::unix::fs::FileExt::write_at(&sparse, b"data", at << 20).unwrap();
    }
    sparse.set_len(100 << 20).unwrap();
    let expected = snapshot(source.path());
    let strip = |list: Vec<(String, u32, u32, Vec<u8>)>, prefix: &Path| -> Vec<_> {
        let prefix = prefix.display().to_string();
        list.into_iter()
            .map(|(name, mode, uid, data)| (name.replace(&prefix, ""), mode, uid, data))
            .collect()
    };
    for options in [
        &["--format=gnu", "--sparse"][..],
        &["--format=gnu"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
    ] {
        let root = TempDir::new().unwrap();
        unpack_over(
            &pack(source.path(), options)[..],
            root.path(),
            &[],
            &Limits::default(),
        )
        .unwrap();
        assert!(
            strip(snapshot(root.path()), root.path()) == strip(expected.clone(), source.path()),
            "{options:?}"
        );
        if options.contains(&"--sparse") {
            let blocks = fs::metadata(root.path().join("sparse")).unwrap().blocks();
            assert!(
                blocks * 512 < 10 << 20,
                "{options:?}: holes take {blocks} blocks"
            );
        }
    }
}

#[test]
fn bombs_are_refused_by_what_they_would_take() {
    let limits = Limits {
        entries: 10,
        layer_bytes: 100,
        ..Limits::default()
    };
    let run = |archive: &Tar| {
        let dir = TempDir::new().unwrap();
        unpack_over(&archive.bytes()[..], dir.path(), &[], &limits).unwrap_err()
    };
    let big = tar().file("a", &"x".repeat(60)).file("b", &"x".repeat(60));
    assert!(matches!(run(&big), UnpackError::TooLarge { limit: 100 }));
    let many = (0..11).fold(tar(), |archive, n| archive.dir(&format!("d{n}")));
    assert!(matches!(
        run(&many),
        UnpackError::Tar(TarError::TooManyEntries { limit: 10 })
    ));
    let mut lying = tar();
    lying.add(&item(b'L', "name"));
    let mut header = tar::Header::from_byte_slice(&lying.0[..512]).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    lying.0[..512].copy_from_slice(header.as_bytes());
    assert!(matches!(
        run(&lying),
        UnpackError::Tar(TarError::Malformed { .. })
    ));
}

#[test]
fn copies_of_a_lower_file_count_too() {
    let (low, high) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    tar().file("a", &"x".repeat(60)).unpack(low.path()).unwrap();
    let twice = tar().hard_link("b", "a").hard_link("c", "a").bytes();
    let limits = Limits {
        layer_bytes: 100,
        ..Limits::default()
    };
    let error =
        unpack_over(&twice[..], high.path(), &[low.path().to_owned()], &limits).unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { limit: 100 }));
}

#[test]
fn an_owner_without_a_number_is_refused() {
    let dir = TempDir::new().unwrap();
    let error = tar()
        .pax(&[("uid", b"4294967295")])
        .file("a", "")
        .unpack(dir.path())
        .unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Owner {
                uid: 4_294_967_295,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_truncated_archive_is_an_error() {
    let dir = TempDir::new().unwrap();
    let whole = tar().file("a", &"x".repeat(2000)).bytes();
    for cut in [100, 512, 600, 1500] {
        let error = unpack_over(&whole[..cut], dir.path(), &[], &Limits::default()).unwrap_err();
        assert!(
            matches!(error, UnpackError::Tar(TarError::Read(_))),
            "{cut}: {error}"
        );
    }
}
