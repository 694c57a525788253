#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use proptest::prelude::*;

use super::*;

/// All entries with their data, or the error that ended the walk.
fn walk(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(archive, 100);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data)?;
        entries.push((entry, data));
    }
    Ok(entries)
}

#[test]
fn what_the_tar_crate_writes_is_read_back() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in [("short", &b"data"[..]), (&long, &[1; 700])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        tar.append_data(&mut header, name, data).unwrap();
    }
    let entries = walk(&tar.into_inner().unwrap()).unwrap();
    assert_eq!(entries[0].0.path, b"short");
    assert_eq!(
        (entries[0].0.mode, &entries[0].1[..]),
        (0o640, &b"data"[..])
    );
    assert_eq!(entries[1].0.path, long.as_bytes());
    assert_eq!(entries[1].1, [1; 700]);
}

#[test]
fn the_prefix_of_a_ustar_name_counts() {
    let mut header = tar::Header::new_ustar();
    let ustar = header.as_ustar_mut().unwrap();
    ustar.prefix[..6].copy_from_slice(b"parent");
    ustar.name[..5].copy_from_slice(b"child");
    header.set_size(0);
    header.set_cksum();
    let entries = walk(header.as_bytes()).unwrap();
    assert_eq!(entries[0].0.path, b"parent/child");
}

#[test]
fn the_size_in_a_pax_record_is_the_one_that_counts() {
    let mut archive = Vec::new();
    let mut add = |kind: u8, stated: u64, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_path("name").unwrap();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(stated);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    };
    add(b'x', 10, b"10 size=5\n");
    add(b'0', 0, b"hello");
    add(b'0', 2, b"hi");
    let entries = walk(&archive).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (&entries[0].1[..], &entries[1].1[..]),
        (&b"hello"[..], &b"hi"[..])
    );
}

#[test]
fn the_padding_of_the_last_entry_may_be_missing_but_not_its_data() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(10);
    tar.append_data(&mut header, "a", &[7; 10][..]).unwrap();
    let archive = tar.into_inner().unwrap();
    for end in [522, 600, 1024] {
        assert_eq!(walk(&archive[..end]).unwrap()[0].1, [7; 10], "{end}");
    }
    for end in [513, 521] {
        assert!(walk(&archive[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_size_that_overflows_is_malformed() {
    let mut header = tar::Header::new_gnu();
    header.set_path("x").unwrap();
    header.set_size(u64::MAX);
    header.set_cksum();
    let archive = [&header.as_bytes()[..], &[0; 1024]].concat();
    assert!(walk(&archive).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_entries_or_an_error(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = walk(&data);
    }

    #[test]
    fn a_flipped_byte_is_never_more_than_an_error(at in 0_usize..4096, value in any::<u8>()) {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["a", "b", &"c".repeat(120)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(10);
            tar.append_data(&mut header, name, &[7; 10][..]).unwrap();
        }
        let mut archive = tar.into_inner().unwrap();
        if let Some(byte) = archive.get_mut(at) {
            *byte = value;
        }
        let _ = walk(&archive);
    }
}
